"""Making decisions again: what a difference looks like, and what a record must begin with."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from forge.core.release.decide import decide
from forge.core.release.replay import (
    BrokenRecord,
    Moment,
    RecordedTick,
    Segment,
    differences,
    recorded,
    replay,
    state_digest,
    trace,
)  # fmt: skip
from forge.core.release.state import EnvironmentState
from forge.model.decision import Action, Command, Event, canonical_json
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.model.traffic import Observation, ReplicaCount, Sample, Version

PLAN = EnvironmentPlan("production", judge="threshold")
EMPTY = EnvironmentState("production", PLAN)


def deploy(version: str, number: int = 1) -> Command:
    payload = {
        "request": {"environment": "production", "version": version, "strategy": msgspec.to_builtins(Strategy())},
        "version": msgspec.to_builtins(Version(version, config={"replicas": 1})),
        "plan": msgspec.to_builtins(PLAN), "run": "run-1", "key": f"k{number}",
    }  # fmt: skip
    return Command(number, "deploy", "ann", 100.0, payload)


def ticks(count: int = 5) -> tuple[list[RecordedTick], EnvironmentState]:
    """Some ticks in a row from the empty environment, and the state after them."""
    state, made = EMPTY, []
    for number in range(count):
        now = 100.0 + number
        seen = Observation(
            now,
            replicas={"1.0": ReplicaCount(1, 1, 1)} if number else {},
            weights=state.traffic.weights if state.traffic else None,
            samples={"1.0": Sample(now, 10 * number, 0, latency=((0.1, 10 * number), (float("inf"), 10 * number)))},
        )
        commands = (deploy("1.0"),) if number == 0 else ()
        decision = decide(state, seen, commands, (), now)
        made.append(recorded(seen, commands, (), now, decision, state_digest(decision.state)))
        state = decision.state
    return made, state


@pytest.fixture
def segment() -> Segment:
    made, _ = ticks()
    return Segment("production", "rules", state_digest(EMPTY), tuple(made), EMPTY)


def through_json(segment: Segment) -> Segment:
    return msgspec.json.decode(msgspec.json.encode(segment), type=Segment)


def test_a_record_gives_the_same_decisions(segment):
    found = replay([(1, through_json(segment))], "rules")
    assert (found.decisions, found.segments, found.difference, found.other_rules) == (5, 1, None, 0)


def test_a_record_that_was_read_from_json_is_the_same_record(segment):
    assert canonical_json(through_json(segment)) == canonical_json(segment)


def test_records_go_on_where_the_one_before_ended(segment):
    first = replace(segment, ticks=segment.ticks[:2])
    second = replace(segment, before=segment.ticks[1].after, ticks=segment.ticks[2:], start=None, passed=3)
    found = replay([(1, first), (2, second)], "rules")
    assert (found.decisions, found.segments, found.passed, found.difference) == (5, 2, 3, None)


def test_a_record_without_the_one_before_cannot_be_made_again(segment):
    found = replay([(7, replace(segment, start=None))], "rules")
    assert found.difference is not None
    assert found.difference.segment == 7
    assert "goes on from a record that is not here" in found.difference.words[0]


def test_a_record_that_was_left_out_is_noticed(segment):
    first = replace(segment, ticks=segment.ticks[:1])
    third = replace(segment, before=segment.ticks[1].after, ticks=segment.ticks[2:], start=None)
    with pytest.raises(BrokenRecord, match="does not begin where the one before it ended"):
        list(trace([(1, first), (3, third)]))


def test_another_first_state_is_noticed(segment):
    other = replace(segment, start=replace(EMPTY, next_release=5))
    found = replay([(1, other)], "rules")
    assert found.difference is not None
    assert "does not begin with the state that it names" in found.difference.words[0]


@pytest.mark.parametrize("at", range(5))
def test_another_answer_is_told_with_both(segment, at):
    tick = replace(segment.ticks[at], why="nothing in particular")
    found = replay([(1, replace(segment, ticks=(*segment.ticks[:at], tick, *segment.ticks[at + 1 :])))], "rules")
    assert found.decisions == at + 1
    assert found.difference is not None
    assert found.difference.now == 100.0 + at
    assert any("`nothing in particular`" in words for words in found.difference.words)


def moment(tick: RecordedTick, *, other_rules: bool = False) -> Moment:
    decision = decide(EMPTY, tick.observation, tick.commands, tick.outcomes, tick.now)
    return Moment(1, 0, tick, EMPTY, decision, other_rules)


def test_each_part_of_an_answer_counts(segment):
    tick = segment.ticks[0]
    assert differences(moment(tick)) == ()
    for changed, word in (
        (replace(tick, actions=()), "an action: on record nothing"),
        (replace(tick, actions=(*tick.actions, Action("x", "ensure"))), "an action: on record {"),
        (replace(tick, events=(Event("odd", "odd"), *tick.events)), "an event"),
        (replace(tick, cancel=("a",)), "what is to be stopped"),
        (replace(tick, wake_at=1.0), "the next look: on record 1.0"),
        (replace(tick, after="0" * 64), "the next state: on record 0000000000000000"),
    ):
        words = differences(moment(changed))
        assert len(words) == 1
        assert word in words[0]


def test_another_command_gives_another_answer(segment):
    tick = replace(segment.ticks[0], commands=(deploy("1.1"),))
    assert differences(moment(tick))


def test_by_other_rules_only_what_was_done_is_compared(segment):
    tick = replace(segment.ticks[0], after="0" * 64)
    assert differences(moment(tick, other_rules=True)) == ()
    assert differences(moment(replace(tick, why="?"), other_rules=True))
    found = replay([(1, replace(segment, before="of another schema"))], "newer rules")
    assert (found.other_rules, found.difference) == (5, None)


def test_what_the_signal_reader_remembers_is_not_part_of_a_state():
    assert state_digest(replace(EMPTY, signals_state={"x": 1})) == state_digest(EMPTY)
    assert state_digest(replace(EMPTY, generation=1)) != state_digest(EMPTY)


def test_an_infinite_bound_survives_the_record(segment):
    bounds = [bound for bound, _ in through_json(segment).ticks[1].observation.samples["1.0"].latency]
    assert bounds[0] == 0.1
    assert bounds[1] > 1e300


def test_two_environments_do_not_mix(segment):
    staging = replace(EMPTY, name="staging")
    made = decide(staging, Observation(1.0), (), (), 1.0)
    tick = recorded(Observation(1.0), (), (), 1.0, made, state_digest(made.state))
    other = Segment("staging", "rules", state_digest(staging), (tick,), staging)
    first = replace(segment, ticks=segment.ticks[:2])
    second = replace(segment, before=segment.ticks[1].after, ticks=segment.ticks[2:], start=None)
    assert replay([(1, first), (2, other), (3, second)], "rules").difference is None
