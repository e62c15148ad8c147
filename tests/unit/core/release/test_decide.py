"""The contract of `decide`: guards that no order of events may pass, keys, payloads, and refusals in words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from forge.core.judge.registry import JUDGES
from forge.core.release.decide import decide
from forge.core.release.state import EnvironmentState, ReleaseState, VersionState
from forge.model.decision import Command, Decision, Outcome
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep
from forge.model.traffic import Observation, ReplicaCount, Sample, TrafficTable, Version

READY = ReplicaCount(2, 2, 2)
NOW = 1000.0


def version(name: str, wanted: int = 2, **fields: Any) -> VersionState:
    return VersionState(Version(name, config={"replicas": 2}), wanted=wanted, seen=READY, **fields)


def environment(asked: dict[str, int], *releases: ReleaseState, stable: str = "1.3", **fields: Any) -> EnvironmentState:
    versions = {name: version(name) for name in ("1.3", "1.4", "1.5")}
    basics: dict[str, Any] = {
        "versions": versions, "traffic": TrafficTable(asked, 7), "generation": 7, "asked_at": NOW,
        "releases": {release.id: release for release in releases}, "next_release": 9,
    }  # fmt: skip
    return EnvironmentState("production", EnvironmentPlan("production"), stable, **(basics | fields))


def release(status: str, **fields: Any) -> ReleaseState:
    basics: dict[str, Any] = {"started_at": 900.0, "step_started_at": 900.0, "traffic_since": 900.0}
    strategy = fields.pop("strategy", Strategy(thresholds=(), keep_previous=0.0))
    return ReleaseState("production-2", "1.4", strategy, status, **(basics | fields))  # type: ignore[arg-type]


def look(
    state: EnvironmentState, *commands: Command, weights: dict[str, int] | None = None, outcomes: tuple[Outcome, ...] = (),
    replicas: dict[str, ReplicaCount] | None = None,
) -> Decision[EnvironmentState]:  # fmt: skip
    seen = replicas or dict.fromkeys(state.versions, READY)
    samples = {name: Sample(NOW, 100, 0) for name in state.versions}
    return decide(state, Observation(NOW, seen, weights, samples), commands, outcomes, NOW)


def command(kind: str, actor: str = "ada", **payload: Any) -> Command:
    return Command(1, kind, actor, NOW, payload)


def deploy(**changes: Any) -> Command:
    payload: dict[str, Any] = {
        "request": {"environment": "production"},
        "version": {"id": "2.0", "artifact": "f00", "config": {"replicas": 2}},
        "plan": {"name": "production"},
        "run": "run-1",
        "key": "run-1/deploy#1",
    }
    return command("deploy", **(payload | changes))


class TestGuards:
    def test_a_version_that_still_carries_traffic_is_not_removed(self) -> None:
        state = environment({"1.3": 10_000})
        decision = look(state, weights={"1.3": 9700, "1.5": 300})
        assert [a.payload["version"] for a in decision.actions if a.kind == "remove"] == ["1.4"]

    def test_nor_while_the_router_cannot_be_read(self) -> None:
        idle = {name: version(name, idle_since=10.0) for name in ("1.3", "1.4")}
        assert look(environment({"1.3": 10_000}, versions=idle)).actions == ()

    def test_a_release_has_not_taken_over_while_stable_is_seen_to_carry_something(self) -> None:
        state = environment({"1.4": 9000, "1.5": 1000}, release("promoting"),
                            ReleaseState("production-3", "1.5", Strategy("canary"), "paused", held_weight=1000))  # fmt: skip
        behind = look(state, weights={"1.3": 500, "1.4": 9000, "1.5": 500})
        assert behind.state.releases["production-2"].status == "promoting"
        there = look(state, weights={"1.4": 9000, "1.5": 1000})
        assert there.state.stable == "1.4"

    def test_stable_is_never_removed(self) -> None:
        state = environment({"1.4": 10_000}, stable="1.3")
        decision = look(state, weights={"1.4": 10_000})
        assert "1.3" not in [a.payload["version"] for a in decision.actions if a.kind == "remove"]

    def test_a_warm_version_stays_until_its_time(self) -> None:
        warm = {"1.3": version("1.3"), "1.4": version("1.4", warm_until=NOW + 1), "1.5": version("1.5", warm_until=NOW)}
        decision = look(environment({"1.3": 10_000}, versions=warm), weights={"1.3": 10_000})
        assert [(a.kind, a.payload["version"]) for a in decision.actions] == [("remove", "1.5")]


class TestActions:
    def test_keys_and_payloads(self) -> None:
        state = environment({"1.3": 5000, "1.4": 5000}, release("rolling_back", reason="bad"))
        decision = look(state, weights={"1.3": 5000, "1.4": 5000})
        traffic = next(action for action in decision.actions if action.kind == "traffic")
        assert traffic.key == "traffic#8"
        table = msgspec.convert(traffic.payload["table"], TrafficTable)
        assert table == TrafficTable({"1.3": 10_000}, 8) == decision.state.traffic
        others = [(action.key, action.payload) for action in decision.actions if action.kind != "traffic"]
        assert others == [("remove#9:1.5", {"version": "1.5"})], (
            "what the router does not confirm yet keeps its replicas"
        )

    def test_a_size_that_the_target_does_not_show_is_asked_for_again(self) -> None:
        counts = {"1.3": ReplicaCount(1, 1, 1)}
        state = environment({"1.3": 10_000}, versions={"1.3": version("1.3", ensured_at=NOW - 5)})
        decision = look(state, weights={"1.3": 10_000}, replicas=counts)
        assert [(a.key, a.payload) for a in decision.actions] == [("ensure#8:1.3", {"version": "1.3", "replicas": 2})]

    def test_every_payload_is_plain_json(self) -> None:
        decision = look(environment({"1.3": 10_000}), deploy(), weights={"1.3": 10_000})
        for action in decision.actions:
            assert msgspec.json.decode(msgspec.json.encode(action.payload)) == action.payload

    def test_at_rest_nobody_needs_to_look(self) -> None:
        state = environment({"1.3": 10_000}, versions={"1.3": version("1.3")})
        decision = look(state, weights={"1.3": 10_000})
        assert (decision.actions, decision.wake_at, decision.why) == ((), None, "production is at rest")

    def test_under_way_it_looks_every_second_and_says_why(self) -> None:
        decision = look(
            environment({"1.3": 10_000}, release("paused", waits_for="ada", held_weight=0)), weights={"1.3": 10_000}
        )
        assert decision.wake_at == NOW + 1
        assert decision.why


class TestOutcomes:
    def test_what_was_refused_is_told(self) -> None:
        state = environment({"1.3": 10_000})
        bad = (
            Outcome("traffic#7", "error", NOW, "admin port closed"),
            Outcome("ensure#6:1.4", "failed", NOW, "no disk"),
        )
        decision = look(state, weights={"1.3": 10_000}, outcomes=bad)
        assert decision.state.traffic_problem == "admin port closed"
        assert decision.state.versions["1.4"].problem == "no disk"
        assert [event.kind for event in decision.events[:2]] == ["action_failed", "action_failed"]
        good = (Outcome("traffic#7", "succeeded", NOW), Outcome("ensure#6:1.4", "succeeded", NOW))
        decision = look(decision.state, weights={"1.3": 10_000}, outcomes=good)
        assert (decision.state.traffic_problem, decision.state.versions["1.4"].failures) == ("", 0)

    @pytest.mark.parametrize("key", ["", "odd", "traffic", "ensure#x:9.9", "remove#3:0.1"])
    def test_unknown_keys_are_harmless(self, key: str) -> None:
        state = environment({"1.3": 10_000})
        decision = look(state, weights={"1.3": 10_000}, outcomes=(Outcome(key, "lost", NOW),))
        assert decision.state.stable == "1.3"


class TestDeploy:
    def test_is_accepted_with_its_plan_and_started(self) -> None:
        plan = {"name": "production", "policy": {"max_arms": 3}}
        decision = look(environment({"1.3": 10_000}), deploy(plan=plan), weights={"1.3": 10_000})
        accepted = decision.state.releases["production-9"]
        assert (accepted.version, accepted.status, accepted.run, accepted.actor) == ("2.0", "starting", "run-1", "ada")
        assert accepted.previous == "1.3"
        assert decision.state.plan.policy == {"max_arms": 3}
        assert decision.state.next_release == 10

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"version": {}}, "cannot be read"),
            ({"version": None}, "cannot be read"),
            ({"request": {"environment": "production", "strategy": {"name": "yolo"}}}, "cannot be read"),
            ({"request": {"environment": "production", "strategy": {"steps": [{"approval": {"required": "two"}}]}}},
             "cannot be read"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_read_is_refused_in_words(self, changes: dict[str, Any], words: str) -> None:
        decision = look(environment({"1.3": 10_000}), deploy(**changes), weights={"1.3": 10_000})
        assert decision.state.releases == {}
        assert decision.events[0].kind == "command_without_effect"
        assert words in decision.events[0].message

    def test_an_unknown_judge_fails_the_release_and_leaves_the_plan(self) -> None:
        plan = {"name": "production", "judge": "oracle"}
        decision = look(environment({"1.3": 10_000}), deploy(plan=plan), weights={"1.3": 10_000})
        failed = decision.state.releases["production-9"]
        assert (failed.status, failed.reason) == (
            "failed",
            f"there is no judge `oracle`; there are {', '.join(JUDGES)}",
        )
        assert decision.state.plan.judge == "sequential"

    def test_the_stable_version_again_is_promoted_at_once(self) -> None:
        same = {"id": "1.3", "config": {"replicas": 2}}
        decision = look(environment({"1.3": 10_000}), deploy(version=same), weights={"1.3": 10_000})
        done = decision.state.releases["production-9"]
        assert (done.status, done.reason) == ("promoted", "1.3 is already stable in production")
        assert [action for action in decision.actions if action.kind != "remove"] == []


class TestPromote:
    def test_of_several_one_has_to_be_named(self) -> None:
        other = ReleaseState("production-3", "1.5", Strategy("canary", thresholds=()), "paused", waits_for="ada")
        state = environment({"1.3": 10_000}, release("paused", waits_for="ada", strategy=Strategy("canary")), other)
        decision = look(state, command("promote"), weights={"1.3": 10_000})
        assert "several releases are under way, name one: production-2, production-3" in decision.events[0].message
        decision = look(state, command("promote", release="production-3", full=True), weights={"1.3": 10_000})
        assert decision.state.releases["production-3"].status == "promoting"
        assert decision.state.releases["production-2"].status == "paused"

    def test_one_that_is_starting_has_no_step_to_leave(self) -> None:
        strategy = Strategy("canary", (StrategyStep(weight=500), StrategyStep(pause=9.0)), thresholds=())
        state = environment({"1.3": 10_000}, release("starting", strategy=strategy, waits_for="replicas"))
        decision = look(state, command("promote"), weights={"1.3": 10_000})
        assert "production-2 is still starting, there is no step to leave" in decision.events[1].message
        decision = look(state, command("promote", full=True), weights={"1.3": 10_000})
        assert decision.state.releases["production-2"].forced

    def test_nonsense_is_answered_with_what_there_is(self) -> None:
        decision = look(environment({"1.3": 10_000}), command("dance"), weights={"1.3": 10_000})
        assert decision.events[0].message == (
            "dance by ada: there is no command `dance`; there are abort, approve, begin_contract, deploy, down, "
            "end_contract, handed_back, look, pause, promote, resume, retry, rollback, undo"
        )
