"""Contract migrations: what was taken away is remembered, and nobody is sent where it is needed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.release.decide import decide
from forge.core.release.migrations import gone, precedence, too_old
from forge.core.release.rollback import choose_target
from forge.core.release.state import EnvironmentState, ReleaseState, VersionState
from forge.model.decision import Command, Decision
from forge.model.migrations import Contract
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.model.traffic import Observation, ReplicaCount, Sample, TrafficTable, Version

NOW = 1000.0
READY = ReplicaCount(2, 2, 2)


def contract(since: str, **fields: Any) -> Contract:
    basics: dict[str, Any] = {"key": "run-7/db#1/1#1", "step": "drop price", "since_at": 500.0, "begun_at": 600.0}
    return Contract(since=since, **(basics | fields))


def environment(stable: str, *previous: str, **fields: Any) -> EnvironmentState:
    """`previous` newest first; each came into being a hundred seconds before the one after it."""
    names = (stable, *previous)
    versions = {
        name: VersionState(
            Version(name, config={"replicas": 2}, created_at=500.0 - 100.0 * age),
            wanted=2 if not age else 0,
            seen=READY,
        )
        for age, name in enumerate(names)
    }
    table = TrafficTable({stable: 10_000}, 3)
    basics: dict[str, Any] = {"versions": versions, "traffic": table, "generation": 3, "asked_at": NOW}
    return EnvironmentState("shop", EnvironmentPlan("shop"), stable, previous, **(basics | fields))


def tell(state: EnvironmentState, kind: str, **payload: Any) -> Decision[EnvironmentState]:
    seen = dict.fromkeys(state.versions, READY)
    samples = {name: Sample(NOW, 100, 0) for name in state.versions}
    weights = dict(state.traffic.weights) if state.traffic else None
    return decide(state, Observation(NOW, seen, weights, samples), (Command(1, kind, "ada", NOW, payload),), (), NOW)


def begin(state: EnvironmentState, since: str, **fields: Any) -> Decision[EnvironmentState]:
    return tell(state, "begin_contract", contract=msgspec.to_builtins(contract(since, **fields)))


def words(decision: Decision[EnvironmentState], kind: str) -> list[str]:
    return [event.message for event in decision.events if event.kind == kind]


class TestPrecedence:
    ORDER = ("0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
             "1.0", "1.0.1", "1.9.7", "v1.10", "2024.11.3")  # fmt: skip

    def test_versions_are_ordered_as_semantic_versioning_says(self) -> None:
        ranks = [precedence(version) for version in self.ORDER]
        assert ranks == sorted(ranks)  # type: ignore[type-var]
        assert len(set(ranks)) == len(self.ORDER)

    @pytest.mark.parametrize(("one", "other"), [("1.4", "1.4.0"), ("v1.4", "1.4.0+build.7"), ("0", "0.0")])
    def test_other_spellings_are_the_same_version(self, one: str, other: str) -> None:
        assert precedence(one) == precedence(other)

    @pytest.mark.parametrize("name", ["3f0a9c1d22ab", "main", "1.x", "", "release-4", "1..2"])
    def test_what_is_no_number_has_none(self, name: str) -> None:
        assert precedence(name) is None


class TestGoingBack:
    def test_a_rollback_past_a_contract_is_refused_in_words_and_moves_nothing(self) -> None:
        state = environment("1.4", "1.3", contracts=(contract("1.4", run="run-7", finished_at=700.0),))
        decision = tell(state, "rollback", to="1.3")
        assert words(decision, "command_without_effect") == [
            (
                "rollback by ada: nothing was rolled back: 1.3 cannot run any more: `drop price` of run-7 took away what "
                "versions older than 1.4 need"
            )
        ]
        assert decision.state.releases == {}
        assert [action for action in decision.actions if action.kind != "remove"] == []

    def test_so_is_one_that_names_no_version_and_it_says_what_to_do(self) -> None:
        decision = tell(environment("1.4", "1.3", contracts=(contract("1.4"),)), "rollback")
        (said,) = words(decision, "rollback_impossible")
        assert "1.3 cannot run any more" in said
        assert "mend it by releasing a later version" in said
        assert decision.state.releases == {}

    def test_a_version_that_still_runs_is_gone_back_to(self) -> None:
        state = environment("1.6", "1.5", "1.4", "1.3", contracts=(contract("1.4"),))
        assert choose_target(state).version == "1.5"
        assert choose_target(state, "1.4").version == "1.4"
        assert choose_target(state, "1.3").version == ""

    def test_the_reason_is_told_where_an_older_one_is_chosen_instead(self) -> None:
        target = choose_target(environment("1.6", "1.3", "1.5", contracts=(contract("1.4"),)))
        assert target.version == "1.5"
        assert "1.3 cannot run any more" in target.why

    def test_a_person_who_knows_better_may_go_back_and_it_is_on_record(self) -> None:
        state = environment("1.4", "1.3", contracts=(contract("1.4"),))
        decision = tell(state, "rollback", to="1.3", override="the column was restored")
        (release,) = decision.state.releases.values()
        assert (release.kind, release.version) == ("rollback", "1.3")
        (said,) = words(decision, "contract_overridden")
        assert said.startswith("ada goes back all the same: the column was restored: 1.3 cannot run any more")

    def test_an_old_version_is_not_deployed_either(self) -> None:
        state = environment("1.4", contracts=(contract("1.4"),))
        payload = {"request": {"environment": "shop"}, "version": {"id": "1.3.9"}, "plan": {"name": "shop"}, "key": "k"}
        decision = tell(state, "deploy", **payload)
        (release,) = decision.state.releases.values()
        assert release.status == "failed"
        assert "1.3.9 cannot run any more" in release.reason
        assert [action for action in decision.actions if action.kind != "remove"] == []

    def test_a_contract_that_failed_may_have_done_it_and_says_so(self) -> None:
        state = environment("1.4", "1.3", contracts=(contract("1.4", failed="exit code 1", finished_at=700.0),))
        assert "may have taken away, though it failed, what versions older than 1.4 need" in gone(state, "1.3")


class TestBeginning:
    def test_it_is_on_record_before_the_step_begins(self) -> None:
        decision = begin(environment("1.4", "1.3"), "1.4", run="run-7", begun_at=1.0, since_at=2.0)
        (known,) = decision.state.contracts
        assert (known.since, known.begun_at, known.since_at) == ("1.4", NOW, 500.0)
        assert known.finished_at is None
        assert words(decision, "contract_begun") == [
            "`drop price` begins: versions of shop older than 1.4 cannot run any more"
        ]

    def test_it_must_not_begin_while_an_older_version_is_stable(self) -> None:
        decision = begin(environment("1.3"), "1.4")
        assert decision.state.contracts == ()
        assert words(decision, "command_without_effect") == [
            (
                "begin_contract by ada: 1.3 is stable in shop and needs what `drop price` takes away: it runs from 1.4 on; "
                "release 1.4 or a later version to shop first"
            )
        ]

    @pytest.mark.parametrize(
        ("status", "role"),
        [("progressing", "is being released by shop-2"), ("queued", "waits to be released by shop-2")],
    )
    def test_nor_while_one_is_on_its_way(self, status: str, role: str) -> None:
        release = ReleaseState("shop-2", "1.3", Strategy("canary"), status)  # type: ignore[arg-type]
        decision = begin(environment("1.4", "1.3", releases={"shop-2": release}), "1.4")
        assert decision.state.contracts == ()
        assert role in words(decision, "command_without_effect")[0]

    def test_nor_while_one_still_has_traffic(self) -> None:
        state = environment("1.4", "1.3", traffic=TrafficTable({"1.4": 9000, "1.3": 1000}, 3))
        assert "1.3 has traffic" in words(begin(state, "1.4"), "command_without_effect")[0]

    def test_the_same_step_again_changes_nothing_and_is_not_refused(self) -> None:
        first = begin(environment("1.4", "1.3"), "1.4").state
        again = begin(first, "1.4")
        assert again.state.contracts == first.contracts
        assert words(again, "command_without_effect") == []

    def test_since_must_be_something_that_can_be_compared(self) -> None:
        decision = begin(environment("3f0a", "77bc"), "9999999zz")
        assert decision.state.contracts == ()
        assert words(decision, "command_without_effect")[0].endswith(
            "`since: 9999999zz` is neither a number nor a version of shop, which knows 3f0a, 77bc"
        )

    def test_its_end_is_noted_once(self) -> None:
        begun = begin(environment("1.4"), "1.4").state
        ended = tell(begun, "end_contract", contract="run-7/db#1/1#1", failed="exit code 1")
        assert (ended.state.contracts[0].finished_at, ended.state.contracts[0].failed) == (NOW, "exit code 1")
        assert "it counts as done" in words(ended, "contract_ended")[0]
        again = tell(ended.state, "end_contract", contract="run-7/db#1/1#1")
        assert again.state.contracts == ended.state.contracts

    def test_a_payload_that_cannot_be_read_changes_nothing(self) -> None:
        decision = tell(environment("1.4"), "begin_contract", contract={"step": 3})
        assert "cannot be read" in words(decision, "command_without_effect")[0]
        assert decision.state.contracts == ()


class TestIdsThatAreNoNumbers:
    def test_they_are_ordered_by_when_they_came_into_being(self) -> None:
        state = begin(environment("ccc", "bbb", "aaa"), "bbb").state
        assert (gone(state, "aaa") != "", gone(state, "bbb"), gone(state, "ccc")) == (True, "", "")

    def test_one_that_is_built_afterwards_runs(self) -> None:
        state = begin(environment("1.4"), "1.4").state
        assert too_old(state, Version("deadbeef", created_at=NOW + 1)) == ""

    def test_what_cannot_be_compared_with_a_number_must_be_younger_than_the_step(self) -> None:
        assert "deadbeef is stable in shop" in words(begin(environment("deadbeef"), "1.4"), "command_without_effect")[0]

    def test_a_state_without_contracts_reads_back_from_before_there_were_any(self) -> None:
        stored = msgspec.to_builtins(environment("1.4"))
        del stored["contracts"]
        assert msgspec.convert(stored, EnvironmentState).contracts == ()


numbers = st.lists(st.integers(0, 4), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
ids = st.one_of(numbers, st.sampled_from(["aaa", "bbb", "ccc", "ddd"]))


@st.composite
def histories(draw: st.DrawFn) -> EnvironmentState:
    names = draw(st.lists(ids, min_size=2, max_size=6, unique=True))
    state = environment(names[0], *names[1:])
    for number in range(draw(st.integers(0, 3))):
        state = begin(state, draw(ids), key=f"step-{number}").state
    return state


@given(histories(), ids)
def test_no_rollback_goes_to_a_version_that_cannot_run_any_more(state: EnvironmentState, to: str) -> None:
    for target in (choose_target(state), choose_target(state, to)):
        assert not target.version or gone(state, target.version) == ""
        assert target.why


@given(histories(), ids)
def test_a_step_that_may_begin_leaves_every_served_version_able_to_run(state: EnvironmentState, since: str) -> None:
    after = begin(state, since, key="the step").state
    served = {version for version, weight in after.traffic.weights.items() if weight} | {after.stable}
    assert all(gone(after, version) == "" for version in served)
    assert set(after.contracts) >= set(state.contracts)


@given(histories(), ids)
def test_a_contract_only_takes_away(state: EnvironmentState, since: str) -> None:
    after = begin(state, since, key="the step").state
    for version in state.versions:
        assert not gone(state, version) or gone(after, version)


@given(histories(), ids)
def test_no_rollback_that_was_refused_moves_anything(state: EnvironmentState, to: str) -> None:
    decision = tell(state, "rollback", to=to)
    if gone(state, to) and to != state.stable:
        assert decision.state.releases == {}
        assert not [action for action in decision.actions if action.kind == "traffic"]


@given(numbers, numbers, numbers)
def test_the_order_of_numbers_is_a_total_order(one: str, two: str, three: str) -> None:
    a, b, c = precedence(one), precedence(two), precedence(three)
    assert a is not None
    assert b is not None
    assert c is not None
    assert (a <= b) or (b <= a)
    if a <= b <= c:
        assert a <= c
