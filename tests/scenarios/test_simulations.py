"""Whole stories: what policies do in them, that a seed tells everything, and that the examples are true."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from forge.cli.main import run_command
from forge.model.strategy import Adaptive, Strategy, StrategyStep
from forge.simulate.plot import svg
from forge.simulate.policy import instructive_story
from forge.simulate.run import simulate
from forge.simulate.scenario import load_story
from forge.simulate.story import Kind, Story
from forge.simulate.traffic import Shape
from forge.simulate.versions import Behaviour

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples" / "simulations").glob("*.yaml"))
STEPS = tuple(step for weight in (500, 2500) for step in (StrategyStep(weight=weight), StrategyStep(pause=60.0)))
CANARY = Strategy("canary", STEPS)
HOUR = 3600.0
LONGEST = 10 * 86_400.0
"""Seconds of an example that are played here; all of it by whoever runs it."""


def one(behaviour: Behaviour, **changes) -> Story:
    story = Story(seconds=HOUR, strategy=CANARY, kinds=(Kind(behaviour),), sequence=((60.0, 0),))
    return replace(story, **changes)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_holds_the_invariants(path: Path) -> None:
    story = load_story(path)
    report = simulate(replace(story, seconds=min(story.seconds, LONGEST)), checked=True)
    assert report.totals.releases > 0
    assert report.totals.unfinished == 0


def test_the_same_seed_tells_the_same_story_and_another_one_another() -> None:
    story = replace(instructive_story(), seconds=4 * 86_400.0)
    assert simulate(story, 3) == simulate(story, 3)
    assert simulate(story, 3).totals != simulate(story, 4).totals


def test_a_good_version_is_promoted_and_an_outage_is_caught() -> None:
    good = simulate(one(Behaviour()), checked=True)
    assert [told.outcome for told in good.releases] == ["promoted"]
    assert abs(good.totals.excess_failed) < 20
    bad = simulate(one(Behaviour(errors=1.0, bad=True, name="bad")), checked=True, traced=True)
    (told,) = bad.releases
    assert told.outcome == "caught"
    assert told.failed == told.requests > 0
    assert told.excess == pytest.approx(told.failed, rel=0.1)
    assert told.counted_failed <= told.failed
    assert bad.traced == told.id
    assert bad.totals.detection_rate == 1.0


def test_the_counts_of_forge_are_those_of_its_users() -> None:
    """Forge reads counters as often as it looks; in the end it has counted every request of the release."""
    (told,) = simulate(one(Behaviour(errors=0.02, bad=True)), checked=True).releases
    assert told.outcome == "caught"
    assert told.counted_failed == pytest.approx(told.failed, abs=10)


def test_a_version_that_never_gets_ready_costs_nobody_anything() -> None:
    for behaviour in (Behaviour(crash_loops=True, bad=True), Behaviour(unready=1.0, bad=True)):
        (told,) = simulate(one(behaviour), checked=True).releases
        assert (told.outcome, told.requests) == ("caught", 0)


def test_the_story_without_a_file_is_a_month_of_many_releases() -> None:
    """That a month takes less than a minute is measured by `make bench`."""
    story = instructive_story()
    assert story.seconds == 30 * 86_400
    assert simulate(replace(story, seconds=LONGEST)).totals.releases > 12


def test_the_picture_is_an_svg_with_every_release() -> None:
    story = replace(instructive_story(), seconds=5 * 86_400.0)
    report = simulate(story, traced=True)
    picture = ET.fromstring(svg(report))
    circles = [each for each in picture.iter() if each.tag.endswith("circle") and len(each)]
    assert len(circles) == len(report.releases)
    assert len([each for each in picture.iter() if each.tag.endswith("polyline")]) >= 4


def test_the_command_prints_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = tmp_path / "out.svg"
    example = str(ROOT / "examples" / "simulations" / "outage.yaml")
    assert run_command(["simulate", example, "-o", "json", "--check", "--seed", "5", "--svg", str(drawn)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seed"], told["checked"], told["totals"]["caught"]) == (5, True, 2)
    assert drawn.read_text().startswith("<svg")
    assert run_command(["simulate", example, "--releases", "1", "-o", "name"]) == 0
    assert capsys.readouterr().out == "production-2\n"


def test_a_small_one_letter_by_letter(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`FORGE_UPDATE_GOLDEN=1` writes it anew; look at the difference."""
    golden = ROOT / "tests" / "golden" / "simulate"
    monkeypatch.setenv("COLUMNS", "160")
    assert run_command(["simulate", str(golden / "small.yaml"), "-o", "wide", "--check"]) == 0
    told = capsys.readouterr()
    text = f"{told.out}\n{told.err}"
    if os.environ.get("FORGE_UPDATE_GOLDEN"):
        (golden / "small.txt").write_text(text, encoding="utf-8")
    assert text == (golden / "small.txt").read_text(encoding="utf-8")


def test_every_mistake_in_a_file_is_shown_with_a_caret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = """\
days: 3
service: {replicas: 4, error: 0.1%}
releases: {every: 12h, versions: [{name: good, shares: 90}]}
faults: [{kind: metrics_awy, every: 2d}]
strategy: canry
"""
    (tmp_path / "wrong.yaml").write_text(wrong)
    assert run_command(["simulate", str(tmp_path / "wrong.yaml")]) == 2
    told = capsys.readouterr().err.splitlines()
    carets = [(told[at - 1], line) for at, line in enumerate(told) if set(line.partition("|")[2]) == {" ", "^"}]
    marked = [line[under.index("^") : under.rindex("^") + 1] for line, under in carets]
    assert marked == ["error", "shares", "metrics_awy", "canry"]
    assert "4 errors" in told


def test_a_canary_that_sets_its_own_weights_costs_less_than_fixed_steps() -> None:
    """The same bad versions: what is known of a version allows it less traffic than a fixed first step gives it."""
    bad = (Kind(Behaviour(errors=1.0, bad=True)), Kind(Behaviour(errors=0.2, bad=True)))
    story = one(
        Behaviour(), kinds=bad, sequence=((60.0, 0), (1800.0, 1)), shape=Shape(rps=500.0),
    )  # fmt: skip
    steps = tuple(step for weight in (2500, 5000) for step in (StrategyStep(weight=weight), StrategyStep(pause=60.0)))
    fixed = simulate(replace(story, strategy=replace(CANARY, steps=steps)), checked=True).totals
    own = simulate(replace(story, strategy=Strategy("canary", adaptive=Adaptive())), checked=True).totals
    assert own.caught == fixed.caught == 2
    assert own.excess_failed < fixed.excess_failed / 2


def test_the_command_says_what_is_wrong_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("lasts: 1h\nreleases: {evry: 1h}\n")
    assert run_command(["simulate", str(tmp_path / "bad.yaml")]) == 2
    assert "did you mean `every`?" in capsys.readouterr().err
    assert run_command(["simulate", str(tmp_path / "none.yaml")]) == 2


def test_without_a_file_the_project_s_own_policy_is_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["simulate", "--days", "1", "-C", str(ROOT / "examples" / "shop"), "-o", "json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert run_command(["simulate", "--days", "1", "-C", str(tmp_path), "-o", "json"]) == 0
    default = json.loads(capsys.readouterr().out)
    assert own["policy"] == default["policy"] == "canary"
    assert own["releases"] != default["releases"]
