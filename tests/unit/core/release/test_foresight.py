"""What a release says of its steps before the first one: told by the world's own traffic."""

from __future__ import annotations

from forge.core.release.foresight import tell_sensitivity, timed_steps
from forge.core.release.state import EnvironmentState, ReleaseState
from forge.core.release.tick import Tick
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Adaptive, Strategy, StrategyStep
from forge.model.traffic import Observation, Sample

STEPS = (
    StrategyStep(weight=500), StrategyStep(pause=300.0), StrategyStep(weight=2500), StrategyStep(pause=60.0),
    StrategyStep(pause=60.0), StrategyStep(weight=5000), StrategyStep(until_resumed=True), StrategyStep(weight=7500),
)  # fmt: skip


def told(requests: int, strategy: Strategy, judge: str = "sequential") -> list[tuple[str, dict[str, object]]]:
    samples = [(1000.0, {"1.3": Sample(1000.0, 0, 0)}), (1100.0, {"1.3": Sample(1100.0, requests, requests // 100)})]
    plan = EnvironmentPlan("production", judge=judge)
    tick = Tick(EnvironmentState("production", plan, stable="1.3", history=tuple(samples)), Observation(1100.0), 1100.0)
    tell_sensitivity(tick, ReleaseState("production-2", "1.4", strategy))
    return [(event.message, event.data) for event in tick.events]


def test_a_weight_lasts_as_long_as_its_pauses_and_a_gate_has_no_known_end() -> None:
    assert timed_steps(Strategy("canary", STEPS)) == [(500, 300.0), (2500, 120.0), (7500, 0.0)]


def test_each_step_says_what_it_finds_and_warns_of_one_that_proves_nothing() -> None:
    found = told(50_000, Strategy("canary", STEPS))
    assert [data["warning"] for _, data in found] == [False, False, True]
    assert "at 5% for 5m 0s this finds +" in found[0][0]
    assert "warning: at 75% this step proves nothing" in found[2][0]
    assert float(str(found[0][1]["requests_per_second"])) == 500.0
    assert all(0 < float(str(data["increase"])) <= 1 for _, data in found)


def test_more_traffic_finds_less() -> None:
    strategy = Strategy("canary", STEPS[:2])
    few, many = told(2_000, strategy)[0][1]["increase"], told(200_000, strategy)[0][1]["increase"]
    assert float(str(many)) < float(str(few))


def test_too_little_traffic_proves_nothing() -> None:
    assert told(20, Strategy("canary", STEPS[:2]))[0][1]["warning"]


def test_without_traffic_it_does_not_guess() -> None:
    assert "not known" in told(0, Strategy("canary", STEPS))[0][0]


def test_only_a_canary_under_this_judge_has_something_to_say() -> None:
    assert told(50_000, Strategy("rolling")) == []
    assert told(50_000, Strategy("canary", STEPS), judge="threshold") == []


def test_an_adaptive_one_says_where_it_begins_and_how_long_a_good_version_takes() -> None:
    (words, data), *others = told(50_000, Strategy("canary", adaptive=Adaptive(reaction=6.0)))
    assert others == []
    assert "begins at 0.66%; as good as stable, it takes all of the traffic after about" in words
    assert data["warning"] is False
    assert data["seconds"] == 150.0, "read every 15 s, as is assumed before anything was read"


def test_an_adaptive_one_warns_where_the_traffic_is_too_little_whoever_judges() -> None:
    for judge in ("sequential", "threshold"):
        words, data = told(200, Strategy("canary", adaptive=Adaptive(reaction=6.0)), judge)[0]
        assert "warning: the traffic is too little to exclude 0.1 % more errors within 15m 0s" in words
        assert data["seconds"] is None
