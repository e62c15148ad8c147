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
BLUE_GREEN = {"name": "blue_green", "thresholds": [], "keep_previous": 600.0}
BY_NAME = {"rolling": ROLLING, "canary": CANARY, "blue-green": BLUE_GREEN}
CHECKED = {**CANARY, "thresholds": [{"metric": "error_rate", "above": 0.5, "over": 5.0}]}


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
        self.measured = True
        self.broken: dict[str, int] = {}
        """How many of a version's replicas cannot get ready."""
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
        samples = (
            None
            if not self.measured
            else {name: Sample(self.now, 10 * int(self.now), 0) for name, count in self.ready.items() if count}
        )
        look = Observation(self.now, counts, seen.weights, samples, generation=seen.generation)
        decision = decide(self.state, look, tuple(sent), (), self.now)
        before, self.state = self.state.stable, decision.state
        for action in decision.actions:
            payload = action.payload
            if action.kind in {"ensure", "remove"} and payload["version"] == before:
                self._others_carry(before, payload.get("replicas", 0))
            if action.kind == "ensure":
                self.asked[payload["version"]] = payload["replicas"]
            elif action.kind == "remove":
                self.asked[payload["version"]] = 0
            else:
                table = payload["table"]
                if all(self.ready.get(name) for name, weight in table["weights"].items() if weight):
                    self.table = TrafficTable(table["weights"], table["generation"])
        for name, broken in self.broken.items():
            self.ready[name] = min(self.ready.get(name, 0), max(0, self.full - broken))
        if int(self.now) % self.slow == 0:
            for name, wanted in self.asked.items():
                have = self.ready.get(name, 0)
                whole = max(0, self.full - self.broken[name]) if name in self.broken else self.full
                self.ready[name] = wanted if wanted < have else min(wanted, whole, have + 1)
        self.fewest = min(self.fewest, sum(self.ready.values()))

    def _others_carry(self, stable: str, size: int) -> None:
        """Nothing is taken from stable before the ready replicas of others carry what it leaves."""
        others = sum(count for name, count in self.ready.items() if name != stable)
        assert size >= self.asked[stable] or size + others >= self.full, (stable, size, self.ready)

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

    def until_asked(self, version: str, weight: int, ticks: int = 100) -> None:
        """Go on until a version is asked to carry at least that."""
        for _ in range(ticks):
            if self.state.traffic and self.state.traffic.weights.get(version, 0) >= weight:
                return
            self.tick()
        raise AssertionError(self.state.traffic)

    def serving(self) -> set[str]:
        return {name for name, count in self.ready.items() if count}


@pytest.mark.parametrize("strategy", BY_NAME.values(), ids=BY_NAME)
@pytest.mark.parametrize("full", [1, 2, 5])
def test_a_release_is_over_when_nobody_meets_the_old_version_any_more(strategy: dict[str, Any], full: int) -> None:
    cluster = Cluster(full)
    cluster.deploy("1.1", strategy)
    cluster.until_over()
    assert cluster.state.stable == "1.1"
    assert cluster.serving() == {"1.1"}
    assert cluster.fewest >= full


@pytest.mark.parametrize("strategy", BY_NAME.values(), ids=BY_NAME)
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
    st.integers(1, 5), st.integers(1, 4), st.sampled_from(list(BY_NAME.values())), st.integers(0, 40),
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


@pytest.mark.parametrize("strategy", BY_NAME.values(), ids=BY_NAME)
def test_nothing_is_kept_warm_because_it_would_go_on_serving(strategy: dict[str, Any]) -> None:
    """Also when somebody else scales the old version up again, or the router was another one when it was kept."""
    cluster = Cluster(2)
    cluster.deploy("1.1", strategy)
    cluster.until_over()
    cluster.asked["1.0"] = 2
    for _ in range(12):
        cluster.tick()
    assert cluster.serving() == {"1.1"}
    assert "1.0" in cluster.state.versions


def test_while_nobody_can_measure_stable_does_not_come_back_beside_what_replaces_it() -> None:
    cluster = Cluster(6, slow=3)
    cluster.deploy("1.1", CHECKED)
    while cluster.asked["1.0"] == 6:
        cluster.tick()
    left, cluster.measured = cluster.asked["1.0"], False
    for _ in range(8):
        cluster.tick()
        assert cluster.state.releases["production-1"].status == "promoting"
        assert cluster.asked["1.0"] == left < 6


def test_what_is_lost_of_the_new_version_while_nobody_can_measure_is_carried_by_stable() -> None:
    cluster = Cluster(4, slow=2)
    cluster.deploy("1.1", CHECKED)
    cluster.until_asked("1.1", 10_000)
    cluster.measured = False
    cluster.broken["1.1"] = 3
    for _ in range(30):
        cluster.tick()
    assert sum(cluster.ready.values()) >= 4


def test_two_canaries_at_once_both_come_to_an_end() -> None:
    cluster = Cluster(5)
    cluster.deploy("1.1", CANARY)
    cluster.tick()
    cluster.deploy("1.2", CANARY)
    cluster.until_over(400)
    assert cluster.serving() == {cluster.state.stable} == {"1.2"}
    assert cluster.fewest >= 5


@settings(max_examples=60)
@given(st.integers(2, 5), st.sampled_from(list(BY_NAME.values())), st.integers(0, 25), st.integers(1, 3),
       st.sampled_from(["1.0", "1.1"]))  # fmt: skip
def test_whatever_is_lost_meanwhile_stable_stays_until_others_carry_what_it_leaves(
    full: int, strategy: dict[str, Any], after: int, lost: int, version: str
) -> None:
    cluster = Cluster(full)
    cluster.deploy("1.1", strategy)
    for _ in range(after):
        cluster.tick()
    cluster.broken[version] = lost
    for _ in range(15):
        cluster.tick()
    cluster.broken.clear()
    for _ in range(15):
        cluster.tick()
    cluster.until_over(400)
    assert cluster.serving() == {cluster.state.stable}
