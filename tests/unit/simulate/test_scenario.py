"""Scenarios from YAML: what is read, what is refused and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge.model.errors import InvalidConfiguration, UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.simulate.faults import KINDS, MEANING
from forge.simulate.scenario import load_story, parse_story

ROOT = Path(__file__).resolve().parents[3]
SMALL = "lasts: 2h\nreleases: {every: 1h}\n"


def story_of(text: str):
    return parse_story(text, "scenario.yaml")


def problems_of(text: str) -> list[str]:
    with pytest.raises(InvalidConfiguration) as wrong:
        story_of(text)
    return [f"{one.line}: {one.message}" + (f" ({one.hint})" if one.hint else "") for one in wrong.value.diagnostics]


def test_everything_but_the_length_and_the_releases_has_a_default() -> None:
    story = story_of(SMALL)
    assert (story.seconds, story.every, story.replicas) == (7200.0, 3600.0, 4)
    assert story.strategy.name == "rolling"
    assert not story.kinds[0].behaviour.bad


def test_what_a_scenario_says_is_what_is_played() -> None:
    story = story_of("""
days: 2
seed: 9
service: {replicas: 3, requests_per_second: 40, errors: 1%, latency: 50ms}
traffic: {diurnal: 20%, clump: 5, bursts: {every: 1h, errors: 30%}}
releases:
  versions:
    - {name: good, at: [1h, 3h]}
    - {name: worse, at: [2h], errors: 4%, after: 5m}
    - {name: slow, share: 0, latency: 400ms}
    - {name: fine after all, errors: 4%, bad: false}
strategy: {canary: {steps: [{weight: 5%}, {pause: 1m}]}}
judge: none
policy: {max_arms: 2}
faults: [{kind: metrics_late, every: 1h, amount: 20}]
people: {after: 1m, paused: abort}
commands: [{at: 90m, do: rollback}]
""")
    assert [number for _, number in story.sequence] == [0, 1, 0]
    assert [kind.behaviour.bad for kind in story.kinds] == [False, True, True, False]
    worse = story.kinds[1].behaviour
    assert (worse.errors, worse.error_rate(0.0), worse.error_rate(301.0)) == (0.04, 0.01, 0.04)
    assert story.plan.judge == "none"
    assert story.plan.policy["max_arms"] == 2
    assert [step.weight for step in story.strategy.steps] == [500, None]
    assert story.faults[0].amount == 20
    assert story.deeds[0].kind == "rollback"
    assert (story.seed, story.people.paused) == (9, "abort")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lasts: 2h\n", "1: a scenario needs `releases` (add `releases:`)"),
        ("releases: {every: 1h}\n", "the file does not say how long it lasts"),
        ("lasts: 2h\nreleases: {}\n", "2: `releases` never happen"),
        ("lasts: 2h\nfault: []\nreleases: {every: 1h}\n", "2: a scenario has no key `fault` (did you mean `faults`?)"),
        (
            SMALL + "faults: [{kind: metric_away, at: 1m}]\n",
            "3: `faults[1].kind` cannot be `metric_away` (did you mean",
        ),
        (SMALL + "faults: [{kind: metrics_away}]\n", "must have exactly one of `at` and `every`"),
        (SMALL + "faults: [{kind: metrics_away, at: 1m, every: 2m}]\n", "must have exactly one of `at` and `every`"),
        (SMALL + "service: {errors: 101%}\n", "is not a percentage"),
        (SMALL + "days: 3\n", "has both `days` and `lasts`"),
        (SMALL + "judge: treshold\n", "did you mean `threshold`?"),
        (SMALL + "strategy: kanary\n", "did you mean `canary`?"),
        ("lasts: 1h\nreleases: {versions: [{at: [soon]}]}\n", "has an `at` that is not a duration"),
        ("days: 900\nreleases: {every: 1h}\n", "lasts longer than a year"),
        (SMALL + "commands: [{at: 1m, do: explode}]\n", "cannot be `explode`"),
        ("", "the file is empty"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, expected: str) -> None:
    found = problems_of(text)
    assert any(expected in one for one in found), found


def test_all_problems_are_told_at_once() -> None:
    assert len(problems_of("lasts: 2h\nfoo: 1\nservice: {errors: x}\nreleases: {every: no}\n")) == 3


def test_a_scenario_leaves_open_what_the_project_says() -> None:
    own = Strategy("blue_green", bake=7.0)
    plan = EnvironmentPlan("live", judge="none", policy={"max_arms": 1})
    story = parse_story(SMALL, "scenario.yaml", own, plan)
    assert story.strategy == own
    assert (story.plan.name, story.plan.judge, story.plan.policy) == ("live", "none", {"max_arms": 1})
    assert parse_story(SMALL + "strategy: rolling\n", "scenario.yaml", own, plan).strategy.name == "rolling"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_story(tmp_path / "nothing.yaml")


def test_every_fault_is_explained_and_documented() -> None:
    text = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
    assert set(MEANING) == set(KINDS)
    for kind, meaning in MEANING.items():
        assert f"| `{kind}` | {meaning} |" in text


def test_the_scenario_in_the_documentation_can_be_read() -> None:
    text = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
    story_of(text.partition("```yaml\n")[2].partition("```")[0])
