"""What `forge plan` tells about a plan. `FORGE_UPDATE_GOLDEN=1` writes the outlines anew for review."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.outline import check_words, minimal_seconds, plan_document, strategy_words
from forge.core.pipeline.resolve import resolve
from forge.model.strategy import Adaptive, HarmBudget, Strategy, StrategyStep, Threshold

GOLDEN = Path(__file__).parents[3] / "golden" / "pipeline"


def outline(name: str):
    text = (GOLDEN / f"{name}.yaml").read_text()
    return plan_document(resolve(Sources(read(text, "forge/pipeline.yaml")), {"tag": "v2"} if name == "full" else {}))


@pytest.mark.parametrize("name", ["seed", "full"])
def test_the_outline_is_as_recorded(name: str):
    golden = GOLDEN / f"{name}.outline.json"
    if os.environ.get("FORGE_UPDATE_GOLDEN"):
        golden.write_bytes(msgspec.json.format(msgspec.json.encode(outline(name)), indent=1) + b"\n")
    assert msgspec.json.decode(msgspec.json.encode(outline(name))) == msgspec.json.decode(golden.read_bytes())


def test_the_seeds_outline_names_waves_and_the_gate():
    found = outline("seed")
    assert found.waves == (("build_and_test",), ("deploy_staging",), ("deploy_production",))
    assert found.gates == ("deploy_production",)
    assert found.minimal_seconds == 0.0


def test_a_deploy_is_told_step_by_step():
    (deploy,) = [
        step.deploy for job in outline("full").jobs if job.name == "production" for step in job.steps if step.deploy
    ]
    assert deploy.environment == "production"
    assert deploy.replicas == 4
    assert deploy.people == 2
    assert deploy.steps == (
        "5% of traffic",
        "wait 30s",
        "wait for approval: Widen?",
        "50% of traffic",
        "wait until a person resumes",
        "100% of traffic",
        "watch for 1m 0s",
    )
    assert deploy.checks == (
        "more than 5% of requests answered 5xx in 5m",
        "p99 latency above 500 ms in 1m",
        "CPU above 80% of a core per replica in 5m",
        "memory above 536.9 MB per replica in 5m",
    )
    assert deploy.minimal_seconds == 90.0


def test_the_minimal_duration_is_the_longest_way():
    def deploy(pause: str, more: str = "") -> str:
        return f"{{deploy: {{environment: p, {more}strategy: {{canary: {{steps: [{{weight: 5}}, {{pause: {pause}}}]}}}}}}}}"

    text = (
        "environments: {p: {target: {local: {command: x}}}}\njobs:\n"
        f"  a: {{steps: [{deploy('10s')}]}}\n"
        f"  b: {{steps: [{deploy('60s')}]}}\n"
        f"  c: {{depends_on: a, steps: [{deploy('20s')}, {{verify: {{environment: p, for: 5s}}}}]}}\n"
        f"  d: {{depends_on: a, steps: [{deploy('9h', 'wait: false, ')}]}}\n"
    )
    found = plan_document(resolve(Sources(read(text, "f"))))
    assert {job.name: job.minimal_seconds for job in found.jobs} == {"a": 10.0, "b": 60.0, "c": 25.0, "d": 0.0}
    assert found.minimal_seconds == 60.0


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Strategy(), ("replace replicas one after another: 1 more at a time, none away",)),
        (
            Strategy(max_surge=2, max_unavailable=1),
            ("replace replicas one after another: 2 more at a time, up to 1 away",),
        ),
        (
            Strategy("blue_green", harm_budget=HarmBudget(100, 30.0)),
            (
                "bring up all replicas beside the old ones",
                "100% of traffic",
                (
                    "roll back at once, whatever the judge says, when it has cost 100 more failed requests than stable "
                    "would have or as much as 30s of full outage"
                ),
            ),
        ),
        (Strategy("blue_green"), ("bring up all replicas beside the old ones", "100% of traffic")),
        (
            Strategy("blue_green", auto_promote=False, bake=30.0),
            (
                "bring up all replicas beside the old ones",
                "wait for a person to promote",
                "100% of traffic",
                "watch for 30s",
            ),
        ),
        (
            Strategy("canary", (StrategyStep(weight=50), StrategyStep(approval={"required": 2}))),
            ("0.5% of traffic", "wait for approval of 2 people", "100% of traffic"),
        ),
        (
            Strategy("canary", adaptive=Adaptive(budget=9.0)),
            (
                "at most 5% of traffic, so that no more than 9 requests fail before it is stopped, should all of them fail",
                "more as the evidence allows, up to 50%",
                "wait until 0.1% more errors than stable are excluded; after 15m 0s a person decides",
                "100% of traffic",
            ),
        ),
    ],
)
def test_strategies_in_words(strategy: Strategy, words: tuple[str, ...]):
    assert strategy_words(strategy) == words


def test_certain_waiting_is_added_up():
    strategy = Strategy("canary", (StrategyStep(pause=10.0), StrategyStep(pause=0.0, until_resumed=True)), bake=5.0)
    assert minimal_seconds(strategy) == 15.0


def test_checks_in_words():
    assert check_words(Threshold("latency", 0.25, 30.0, 0.5)) == "p50 latency above 250 ms in 30s"
    assert check_words(Threshold("error_rate", 0.001, 3600.0)) == "more than 0.1% of requests answered 5xx in 1h"
