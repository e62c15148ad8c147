"""A split that somebody else changed: asked for again, and told with whose hand it was."""

from __future__ import annotations

from forge.core.release.decide import decide
from forge.core.release.fulfil import ASK_AGAIN, CHANGED
from forge.core.release.state import EnvironmentState, VersionState
from forge.model.decision import Decision
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Observation, ReplicaCount, Sample, TrafficTable, Version

NOW = 1000.0
REMARK = "traffic: HTTPRoute shop was changed by kubectl-edit: Forge's split is written again"


def seen(weights: dict[str, int], generation: int, problem: str, waited: float) -> Decision[EnvironmentState]:
    count = ReplicaCount(2, 2, 2)
    known = {"1.3": VersionState(Version("1.3", config={"replicas": 2}), wanted=2, seen=count)}
    state = EnvironmentState(
        "production", EnvironmentPlan("production"), "1.3", versions=known, traffic=TrafficTable({"1.3": 10_000}, 7),
        generation=7, traffic_generation=7, asked_at=NOW - waited, observed={"1.3": 10_000},
    )  # fmt: skip
    observation = Observation(NOW, {"1.3": count}, weights, {"1.3": Sample(NOW, 100, 0)}, problem, generation)
    return decide(state, observation, (), (), NOW)


def test_it_is_asked_for_again_and_the_story_says_who() -> None:
    decision = seen({"9.9": 10_000}, CHANGED, REMARK, ASK_AGAIN + 1)
    (told,) = [event for event in decision.events if event.kind == "traffic_asked_again"]
    assert "changed by kubectl-edit" in told.message
    (again,) = [action for action in decision.actions if action.kind == "traffic"]
    assert again.payload["table"]["weights"] == {"1.3": 10_000}
    assert again.payload["table"]["generation"] > 7


def test_the_same_weights_in_other_rules_are_asked_for_again_too() -> None:
    decision = seen({"1.3": 10_000}, CHANGED, REMARK, ASK_AGAIN + 1)
    assert [event for event in decision.events if event.kind == "traffic_asked_again"]


def test_a_router_that_lags_is_nobodys_doing() -> None:
    decision = seen({}, 6, "metrics: prometheus does not answer", ASK_AGAIN + 1)
    (told,) = [event for event in decision.events if event.kind == "traffic_asked_again"]
    assert "prometheus" not in told.message


def test_it_is_not_asked_for_all_the_time() -> None:
    decision = seen({"9.9": 10_000}, CHANGED, REMARK, ASK_AGAIN - 1)
    assert not [event for event in decision.events if event.kind == "traffic_asked_again"]
