"""Where replicas make the split, a version carries requests for as long as it has ready ones: a release is over only
when those that it leaves behind are gone, and those who serve could always carry everything."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.release.decide import decide
from forge.core.release.state import RELEASE_FINAL, EnvironmentState, VersionState
from forge.model.decision import Command
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Observation, ReplicaCount, Sample, TrafficTable, Version

PLAN = EnvironmentPlan("production", target="kubernetes", router="replicas")
ROLLING = {"name": "rolling", "max_surge": 1, "max_unavailable": 0, "thresholds": [], "keep_previous": 600.0}
CANARY = {
    "name": "canary", "thresholds": [], "keep_previous": 600.0,
    "steps": [{"weight": 2000}, {"pause": 3.0}, {"weight": 5000}, {"pause": 2.0}],
}  # fmt: skip


class Cluster:
    """Replicas that come and go a tick late, and a Service that sends requests to whatever is ready."""

    def __init__(self, full: int, slow: int = 1) -> None:
        self.full, self.slow = full, slow
        self.now = 1000.0
        self.state = EnvironmentState(
            "production", PLAN, "1.0", traffic=TrafficTable({"1.0": 10_000}, 1), generation=1,
            versions={"1.0": VersionState(Version("1.0", config={"replicas": full}), wanted=full)},
        )  # fmt: skip
        self.asked = {"1.0": full}
        self.ready = {"1.0": full}
        self.table = TrafficTable({"1.0": 10_000}, 1)
        self.fewest = full
        self._numbers = 0

    def shares(self) -> dict[str, int]:
        total = sum(self.ready.values())
        return {name: count * 10_000 // total for name, count in self.ready.items() if count}

    def observed(self) -> TrafficTable:
        """As the router tells it (forge.adapters.routers.replicas)."""
        asked = {name for name, weight in self.table.weights.items() if weight}
        serving = {name for name, count in self.ready.items() if count}
        if asked - serving:
            return TrafficTable(self.shares(), -1)
        return TrafficTable(self.shares(), self.table.generation) if serving - asked else self.table

    def tick(self, *commands: tuple[str, dict[str, Any]]) -> None:
        self.now += 1.0
        sent = []
        for kind, payload in commands:
            self._numbers += 1
            sent.append(Command(self._numbers, kind, "ada", self.now, payload))
        counts = {
            name: ReplicaCount(self.asked.get(name, 0), self.ready.get(name, 0), self.ready.get(name, 0))
            for name in {*self.asked, *self.ready}
        }
        seen = self.observed()
        samples = {name: Sample(self.now, 10 * int(self.now), 0) for name, count in self.ready.items() if count}
        look = Observation(self.now, counts, seen.weights, samples, generation=seen.generation)
        decision = decide(self.state, look, tuple(sent), (), self.now)
        self.state = decision.state
        for action in decision.actions:
            payload = action.payload
            if action.kind == "ensure":
                self.asked[payload["version"]] = payload["replicas"]
            elif action.kind == "remove":
                self.asked[payload["version"]] = 0
            else:
                table = payload["table"]
                if all(self.ready.get(name) for name, weight in table["weights"].items() if weight):
                    self.table = TrafficTable(table["weights"], table["generation"])
        if int(self.now) % self.slow == 0:
            for name, wanted in self.asked.items():
                have = self.ready.get(name, 0)
                self.ready[name] = wanted if wanted < have else min(wanted, have + 1)
        self.fewest = min(self.fewest, sum(self.ready.values()))

    def deploy(self, version: str, strategy: dict[str, Any]) -> None:
        self.tick(("deploy", {
            "request": {"environment": "production", "strategy": strategy},
            "version": {"id": version, "artifact": version, "config": {"replicas": self.full}},
            "plan": msgspec.to_builtins(PLAN), "run": "run-1", "key": f"run-1/{version}",
        }))  # fmt: skip

    def until_over(self, ticks: int = 200) -> None:
        """Go on until no release is under way, and not one tick longer: whoever worked on it may leave now."""
        for _ in range(ticks):
            if self.state.releases and all(each.status in RELEASE_FINAL for each in self.state.releases.values()):
                return
            self.tick()
        raise AssertionError({name: (each.status, each.waits_for) for name, each in self.state.releases.items()})

    def serving(self) -> set[str]:
        return {name for name, count in self.ready.items() if count}


@pytest.mark.parametrize("strategy", [ROLLING, CANARY], ids=["rolling", "canary"])
@pytest.mark.parametrize("full", [1, 2, 5])
def test_a_release_is_over_when_nobody_meets_the_old_version_any_more(strategy: dict[str, Any], full: int) -> None:
    cluster = Cluster(full)
    cluster.deploy("1.1", strategy)
    cluster.until_over()
    assert cluster.state.stable == "1.1"
    assert cluster.serving() == {"1.1"}
    assert cluster.fewest >= full


@pytest.mark.parametrize("strategy", [ROLLING, CANARY], ids=["rolling", "canary"])
def test_going_back_is_over_when_nobody_meets_the_version_that_was_left(strategy: dict[str, Any]) -> None:
    cluster = Cluster(3)
    cluster.deploy("1.1", strategy)
    cluster.until_over()
    cluster.tick(("rollback", {}))
    cluster.until_over()
    assert cluster.state.stable == "1.0"
    assert cluster.serving() == {"1.0"}
    assert cluster.fewest >= 3


def test_an_aborted_canary_is_gone_when_its_release_is_over() -> None:
    cluster = Cluster(3)
    cluster.deploy("1.1", CANARY)
    while not cluster.ready.get("1.1"):
        cluster.tick()
    cluster.tick(("abort", {}))
    cluster.until_over()
    assert [each.status for each in cluster.state.releases.values()] == ["aborted"]
    assert cluster.serving() == {"1.0"}
    assert cluster.fewest >= 3


@settings(max_examples=60)
@given(
    st.integers(1, 5), st.integers(1, 4), st.sampled_from([ROLLING, CANARY]), st.integers(0, 40),
    st.sampled_from(["abort", "rollback", "undo"]),
)  # fmt: skip
def test_whenever_somebody_changes_his_mind_enough_replicas_serve(
    full: int, slow: int, strategy: dict[str, Any], after: int, mind: str
) -> None:
    cluster = Cluster(full, slow)
    cluster.deploy("1.1", strategy)
    for _ in range(after):
        cluster.tick()
    cluster.tick((mind, {}))
    cluster.until_over(400)
    assert cluster.fewest >= full
    assert cluster.serving() == {cluster.state.stable}
