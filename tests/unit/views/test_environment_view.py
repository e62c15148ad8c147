from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState, ReleaseStatus, Verdict, VersionState
from forge.model.migrations import Contract
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep
from forge.model.traffic import Observation, ReplicaCount, Route, Sample, TrafficTable, Version
from forge.views.environment import describe_route, environment_view
from forge.views.release import describe_step, describe_strategy

CANARY = Strategy("canary", (StrategyStep(weight=500), StrategyStep(pause=600.0), StrategyStep(weight=5000)))


def version(name: str, ready: int = 2, desired: int = 2, **fields) -> VersionState:
    return VersionState(Version(name), desired, ReplicaCount(desired, desired, ready), **fields)


def environment(**fields) -> EnvironmentState:
    return EnvironmentState(**{"name": "production", "plan": EnvironmentPlan("production"), **fields})


def under_way(**fields) -> EnvironmentState:
    release = ReleaseState(
        "production-2", "1.4", CANARY, "progressing", created_at=5.0, started_at=10.0, step=1, previous="1.3",
        requests=412, failed_requests=3, verdict=Verdict("hold", "too few requests"), waits_for="10m pause", earliest=700.0,
    )  # fmt: skip
    old = ReleaseState("production-1", "1.3", Strategy(), "promoted", created_at=1.0, finished_at=4.0)
    return environment(
        stable="1.3", previous=("1.2",), versions={"1.4": version("1.4", 1), "1.3": version("1.3"), "1.2": version("1.2", 0, 0)},
        releases={"production-1": old, "production-2": release}, observed={"1.3": 9600, "1.4": 400},
        traffic=TrafficTable({"1.3": 9500, "1.4": 500}, 3, (Route("1.4", header="x-try", value="new"),)), **fields,
    )  # fmt: skip


def test_stable_comes_first_then_arms_then_what_carries_nothing():
    view = environment_view(under_way(), 100.0)
    assert [(arm.version, arm.role, arm.set_weight, arm.actual_weight) for arm in view.arms] == [
        ("1.3", "stable", 9500, 9600), ("1.4", "arm", 500, 400), ("1.2", "warm", 0, 0),
    ]  # fmt: skip
    assert [arm.state for arm in view.arms] == ["ready", "degraded", "stopped"]


def test_the_release_under_way_is_looked_at_first_and_tells_everything():
    view = environment_view(under_way(), 100.0)
    current = view.current
    assert current is not None
    assert (current.id, current.state, view.state) == ("production-2", "progressing", "progressing")
    assert (current.progress, current.set_weight, current.actual_weight) == ("1/3", 500, 400)
    assert [step.state for step in current.steps] == ["done", "current", "pending"]
    assert (current.requests, current.failed_requests, current.duration) == (412, 3, 90.0)
    assert current.verdict is not None
    assert (current.verdict.kind, current.waits_for, current.earliest) == ("hold", "10m pause", 700.0)
    assert [release.id for release in view.under_way] == ["production-2"]
    assert "forge release abort production" in view.next


def test_contract_migrations_tell_which_versions_run_newest_first():
    done = Contract("k1", "drop price", "1.2", 0.0, 1.0, "run-7", finished_at=2.0)
    failed = Contract("k2", "drop stock", "1.3", 0.0, 1.0, "run-9", finished_at=2.0, failed="exit code 1")
    begun = Contract("k3", "drop all", "1.4", 0.0, 1.0)
    assert environment_view(environment(contracts=(done, failed, begun)), 100.0).contracts == (
        "1.4 (drop all, under way)", "1.3 (drop stock of run-9, failed)", "1.2 (drop price of run-7)",
    )  # fmt: skip
    assert environment_view(environment(), 100.0).contracts == ()


def test_a_router_that_has_not_answered_is_unknown_and_not_zero():
    import msgspec

    silent = msgspec.structs.replace(under_way(), observed=None)
    view = environment_view(silent, 100.0)
    assert {arm.actual_weight for arm in view.arms} == {None}
    assert view.releases[0].actual_weight is None


def test_a_fresher_observation_replaces_what_the_last_tick_saw():
    seen = Observation(
        101.0,
        {"1.3": ReplicaCount(2, 2, 0, "crashed", 7)},
        {"1.3": 10000},
        {"1.3": Sample(101.0, 50, 1)},
        "metrics: away",
    )
    view = environment_view(under_way(), 101.0, seen, address="http://127.0.0.1:1")
    stable = view.arms[0]
    assert (stable.replicas.ready, stable.replicas.message, stable.replicas.restarts) == (0, "crashed", 7)
    assert (stable.requests, stable.failed_requests, stable.actual_weight) == (50, 1, 10000)
    assert (view.problem, view.address) == ("metrics: away", "http://127.0.0.1:1")
    assert view.arms[1].replicas.message == "not seen yet"


def test_an_environment_without_a_release_is_empty_and_with_one_behind_it_stable():
    assert environment_view(environment(), 1.0).state == "empty"
    assert environment_view(environment(stable="1", versions={"1": version("1")}), 1.0).state == "stable"


def test_a_final_release_waits_for_nothing_and_offers_what_is_left():
    promoted = ReleaseState("p-1", "1", Strategy(), "promoted", previous="0", waits_for="x", earliest=9.0)
    view = environment_view(environment(stable="1", releases={"p-1": promoted}), 1.0).releases[0]
    assert (view.waits_for, view.earliest, view.next) == ("", None, ("forge rollback production",))
    first = ReleaseState("p-1", "1", Strategy(), "promoted")
    assert environment_view(environment(releases={"p-1": first}), 1.0).releases[0].next == ()


@given(st.lists(st.sampled_from(ReleaseStatus.__args__), max_size=6))
def test_what_needs_the_most_attention_is_the_environments_state(states):
    releases = {f"p-{at}": ReleaseState(f"p-{at}", "1", Strategy(), state) for at, state in enumerate(states, 1)}
    view = environment_view(environment(stable="1", releases=releases), 1.0)
    open_states = [state for state in states if state not in RELEASE_FINAL]
    assert view.state in (open_states or ["stable"])
    assert len(view.under_way) == len(open_states)
    if "rolling_back" in open_states:
        assert view.state == "rolling_back"
    order = [release.final for release in view.releases]
    assert order == sorted(order), "those under way come before those that are over"


def test_steps_strategies_and_routes_are_told_in_words():
    assert describe_step(StrategyStep(weight=550)) == "weight 5.5%"
    assert describe_step(StrategyStep(pause=90.0)) == "pause 1m 30s"
    assert describe_step(StrategyStep(until_resumed=True)) == "pause until resumed"
    assert describe_step(StrategyStep(approval={})) == "approval"
    assert describe_strategy(Strategy()) == "rolling: max_surge 1, max_unavailable 0"
    assert describe_strategy(CANARY) == "canary: weight 5% → pause 10m 0s → weight 50%"
    assert describe_strategy(Strategy("blue_green")) == "blue_green"
    assert describe_route(Route("2", header="x-try", value="new")) == "header x-try: new"
    assert describe_route(Route("2", cookie="beta", value="1")) == "cookie beta=1"
    assert describe_route(Route("2", header="x-try")) == "header x-try"
    assert describe_route(Route("2", mirror=250)) == "mirror 2.5%"
