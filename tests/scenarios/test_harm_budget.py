"""A harm budget: a release that has cost what it may goes back, whatever its judge says, and only that one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import Behaviour, World, canary

from forge.core.release.state import ReleaseState
from forge.model.strategy import HarmBudget, Strategy
from forge.model.units import WHOLE

BUDGET = HarmBudget(50.0)
NORMAL = Behaviour(failure_rate=0.01)
SICK = Behaviour(failure_rate=0.2)


def world(**options: object) -> World:
    made = World(rps=200, replicas=4, judge="none", **options)  # type: ignore[arg-type]
    made.behaviour["1.3"] = NORMAL
    return made.established().run(60)


def spent(release: ReleaseState) -> bool:
    return release.reason.startswith("its harm budget is spent: ")


@pytest.mark.parametrize(
    "strategy",
    [
        canary(10, 600.0, harm_budget=BUDGET),
        canary(50, 600.0, harm_budget=BUDGET),
        Strategy("rolling", bake=600.0, harm_budget=BUDGET, thresholds=()),
        Strategy("blue_green", bake=600.0, harm_budget=BUDGET, thresholds=()),
    ],
    ids=["canary", "half", "rolling", "blue-green"],
)
def test_every_strategy_stops_at_what_it_may_cost(strategy: Strategy) -> None:
    """After a blue-green switch stable answers nothing: its rate of the minute before tells what it would have."""
    one = world()
    one.deploy("1.4", strategy, behaviour=SICK)
    release = one.until("rolled_back")
    assert spent(release)
    assert (
        50 <= release.excess_failed <= 50 + 2 * 0.19 * 200 + 1
    )  # and what fails until the next reading, and is under way
    assert release.excess_failed == pytest.approx(0.19 * release.requests, abs=5)
    assert "1.3 would have failed" in release.reason
    assert "50 are allowed" in release.reason
    assert one.events("harm_budget_spent")
    assert one.settle().asked == {"1.3": WHOLE}


def test_an_outage_budget() -> None:
    one = world()
    one.deploy("1.4", canary(25, 600.0, harm_budget=HarmBudget(outage=3.0)), behaviour=Behaviour(failure_rate=1.0))
    release = one.until("rolled_back")
    assert "of full outage, 3.0s is allowed" in release.reason
    assert release.excess_failed == pytest.approx(3 * 200, abs=120)


def test_a_person_who_promotes_does_not_suspend_it() -> None:
    one = world()
    one.deploy("1.4", canary(10, 600.0, bake=600.0, harm_budget=HarmBudget(300.0)), behaviour=SICK)
    one.run(20)
    one.send("promote", full=True)
    assert spent(one.until("rolled_back"))


def test_a_pause_does_not_either_and_missing_data_only_until_it_is_back() -> None:
    one = world()
    one.deploy("1.4", canary(10, 600.0, harm_budget=BUDGET), behaviour=SICK)
    one.run(8)
    one.send("pause")
    one.metrics_away = True
    one.run(60)
    assert one.release().status == "paused"
    one.metrics_away = False
    assert spent(one.until("rolled_back", limit=5))


def test_after_the_promotion_it_goes_on_while_the_version_before_is_warm() -> None:
    one = world()
    one.deploy("1.4", canary(50, 5.0, keep_previous=120.0, harm_budget=BUDGET, thresholds=()), behaviour=NORMAL)
    one.until("promoted")
    one.behaviour["1.4"] = SICK
    one.run(30)
    assert one.state.stable == "1.3"
    bad = one.release("1.4")
    assert bad.status == "rolled_back"
    assert "its harm budget is spent" in bad.reason
    assert bad.excess_failed >= 50
    assert one.settle().asked == {"1.3": WHOLE}


def test_one_that_overlaps_a_promotion_is_held_against_the_new_stable_from_then_on() -> None:
    """1.4 and 1.5 are as good as 1.3 until 1.4 is stable; then both get worse together: 1.5 is no worse than stable."""
    one = world()
    one.deploy("1.4", canary(10, 5.0, keep_previous=0.0), behaviour=Behaviour(failure_rate=0.01))
    one.deploy("1.5", canary(10, 300.0, harm_budget=BUDGET), behaviour=Behaviour(failure_rate=0.01))
    one.until("promoted", version="1.4")
    one.behaviour["1.4"] = one.behaviour["1.5"] = Behaviour(failure_rate=0.1)
    one.run(120)
    release = one.release("1.5")
    assert release.status == "progressing"
    assert release.failed_requests > 200
    assert release.excess_failed == pytest.approx(0.0, abs=12)
    assert release.account.beside == "1.4"


def test_a_first_version_has_nothing_to_be_compared_with_and_keeps_serving() -> None:
    one = World(rps=200, judge="none")
    one.deploy("1.0", Strategy(harm_budget=BUDGET, bake=30.0), behaviour=SICK)
    assert one.until("promoted").failed_requests > 100


def test_a_release_that_goes_back_is_not_stopped_by_what_it_costs() -> None:
    one = world()
    one.deploy("1.4", canary(50, 1.0, keep_previous=0.0))
    one.until("promoted")
    one.settle()
    one.behaviour["1.3"] = SICK
    one.send("undo")
    assert one.until("promoted", version="1.3").status == "promoted"


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.integers(10, 80),
    st.sampled_from([0.05, 0.2, 1.0]),
    st.sampled_from([0.0, 2.0]),
    st.lists(st.tuples(st.integers(5, 60), st.sampled_from(["metrics", "router", "replicas"])), max_size=3),
)
def test_what_is_spent_gets_no_traffic_again_and_nobody_else_pays(
    allowed: int, rate: float, lag: float, faults: list[tuple[int, str]]
) -> None:
    one = World(rps=100, replicas=4, judge="none")
    one.behaviour["1.3"] = NORMAL
    one.established().run(30)
    one.router_lag = lag
    patient = {"patience": 3600.0, "thresholds": (), "progress_deadline": 3600.0}
    one.deploy("1.4", canary(20, 900.0, harm_budget=HarmBudget(float(allowed)), **patient), behaviour=NORMAL)
    one.deploy("1.5", canary(20, 900.0, harm_budget=HarmBudget(float(allowed)), **patient),
               behaviour=Behaviour(failure_rate=rate))  # fmt: skip
    begun = dict.fromkeys(["metrics", "router", "replicas"], -100)
    before, weight = one.state.releases, WHOLE
    for second in range(150):
        begun |= {what: second for at, what in faults if at == second}
        one.metrics_away = second - begun["metrics"] < 10
        one.router_away = second - begun["router"] < 10
        one.running["1.3"].broken = 2 if second - begun["replicas"] < 10 else 0
        one.tick()
        for name, release in one.state.releases.items():
            known = before.get(name, release)
            assert release.requests >= known.requests
            assert release.failed_requests >= known.failed_requests
        bad = one.release("1.5")
        if spent(bad):
            assert one.asked.get("1.5", 0) <= weight
            weight = one.asked.get("1.5", 0)
            assert bad.status in {"rolling_back", "rolled_back"}
        before = one.state.releases
    good = one.release("1.4")
    assert good.status == "progressing"
    assert abs(good.excess_failed) < 15
    assert spent(one.release("1.5"))
    assert one.release("1.5").status == "rolled_back"
