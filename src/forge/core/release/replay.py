"""Decisions on record, and deciding them again: the same inputs must give the same answers, bit for bit.

A segment is a row of ticks, one after the other, of one environment. It begins with the whole state, or where the
segment before it ended. What one tick was given and what it answered are in it; the states between are not, because
the rules give them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec.structs import replace

from forge.core.judge.windows import storable
from forge.core.release.decide import decide
from forge.core.release.state import EnvironmentState
from forge.model.decision import Action, Command, Decision, Event, Outcome, canonical_json, digest
from forge.model.traffic import Observation


class RecordedTick(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision: all that it was given beside the state, and its answer. `after` is the next state's digest."""

    now: float
    observation: Observation
    after: str
    commands: tuple[Command, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    cancel: tuple[str, ...] = ()
    wake_at: float | None = None
    why: str = ""


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ticks in a row. `rules` names the rules that decided; `before` is the digest of the first state."""

    environment: str
    rules: str
    before: str
    ticks: tuple[RecordedTick, ...]
    start: EnvironmentState | None = None
    """The first state, or None where it is the last one of the segment before."""
    passed: int = 0
    """How many looks before this segment were not kept: nothing followed from them."""


class Moment(msgspec.Struct, frozen=True):
    """A decision made again. `segment` and `index` say where it is on record."""

    segment: int
    index: int
    recorded: RecordedTick
    before: EnvironmentState
    decision: Decision[EnvironmentState]
    other_rules: bool = False


class Difference(msgspec.Struct, frozen=True):
    """The first decision that did not come out the same, and how."""

    segment: int
    now: float
    words: tuple[str, ...]


class Replayed(msgspec.Struct, frozen=True):
    """What came of deciding everything again."""

    decisions: int = 0
    segments: int = 0
    passed: int = 0
    """Looks from which nothing followed, and that were not kept."""
    other_rules: int = 0
    """Decisions made by other rules than these: their answers were compared, the bytes of their states were not."""
    difference: Difference | None = None


class BrokenRecord(ValueError):
    """A segment that cannot be decided again: it does not begin where the one before ended."""

    def __init__(self, segment: int, words: str) -> None:
        super().__init__(words)
        self.segment = segment


def state_digest(state: EnvironmentState) -> str:
    """Return the digest of all of the state that decisions rest on; the signal reader's own memory is not part."""
    return digest(replace(state, signals_state={}) if state.signals_state else state)


def recorded(
    observation: Observation,
    commands: tuple[Command, ...],
    outcomes: tuple[Outcome, ...],
    now: float,
    decision: Decision[EnvironmentState],
    after: str,
) -> RecordedTick:
    """Return a tick as it goes on record. JSON has no infinity, so the last bucket's bound is written as a number."""
    if observation.samples:
        samples = {version: storable(sample) for version, sample in observation.samples.items()}
        observation = replace(observation, samples=samples)
    return RecordedTick(
        now, observation, after, commands, outcomes, decision.actions, decision.events, decision.cancel,
        decision.wake_at, decision.why,
    )  # fmt: skip


def trace(segments: Iterable[tuple[int, Segment]], rules: str = "") -> Iterator[Moment]:
    """Decide everything on record again, in order, each decision on the state that the rules themselves came to.

    `segments` are numbered; `rules` names the present rules (empty: take them as the same). Raises BrokenRecord.
    """
    states: dict[str, tuple[EnvironmentState, str]] = {}
    for number, segment in segments:
        other = bool(rules) and segment.rules != rules
        state = _beginning(number, segment, states.get(segment.environment), other=other)
        for index, tick in enumerate(segment.ticks):
            decision = decide(state, tick.observation, tick.commands, tick.outcomes, tick.now)
            yield Moment(number, index, tick, state, decision, other)
            state = decision.state
        states[segment.environment] = (state, segment.ticks[-1].after if segment.ticks else segment.before)


def replay(segments: Iterable[tuple[int, Segment]], rules: str = "") -> Replayed:
    """Decide everything on record again and compare; ends at the first difference."""
    so_far = Replayed()

    def counting() -> Iterator[tuple[int, Segment]]:
        nonlocal so_far
        for number, segment in segments:
            so_far = replace(so_far, segments=so_far.segments + 1, passed=so_far.passed + segment.passed)
            yield number, segment

    try:
        for moment in trace(counting(), rules):
            others = so_far.other_rules + moment.other_rules
            so_far = replace(so_far, decisions=so_far.decisions + 1, other_rules=others)
            if words := differences(moment):
                return replace(so_far, difference=Difference(moment.segment, moment.recorded.now, words))
    except BrokenRecord as broken:
        return replace(so_far, difference=Difference(broken.segment, 0.0, (str(broken),)))
    return so_far


def differences(moment: Moment) -> tuple[str, ...]:
    """Return in words how the answer made again differs from the one on record; empty: it is the same."""
    was, now = moment.recorded, moment.decision
    words = [
        *_compared("an action", was.actions, now.actions),
        *_compared("an event", was.events, now.events),
        *_compared("what is to be stopped", was.cancel, now.cancel),
    ]
    if was.wake_at != now.wake_at:
        words.append(f"the next look: on record {was.wake_at}, now {now.wake_at}")
    if was.why != now.why:
        words.append(f"why: on record `{was.why}`, now `{now.why}`")
    if not moment.other_rules and not words and state_digest(now.state) != was.after:
        words.append(f"the next state: on record {was.after[:16]}, now {state_digest(now.state)[:16]}")
    return tuple(words)


def _compared(what: str, was: tuple[object, ...], now: tuple[object, ...]) -> list[str]:
    for index in range(max(len(was), len(now))):
        before = canonical_json(was[index]).decode() if index < len(was) else "nothing"
        after = canonical_json(now[index]).decode() if index < len(now) else "nothing"
        if before != after:
            return [f"{what}: on record {before}, now {after}"]
    return []


def _beginning(
    number: int, segment: Segment, known: tuple[EnvironmentState, str] | None, *, other: bool
) -> EnvironmentState:
    if segment.start is not None:
        if not other and state_digest(segment.start) != segment.before:
            raise BrokenRecord(number, f"record {number} does not begin with the state that it names")
        return segment.start
    if known is None:
        raise BrokenRecord(number, f"record {number} goes on from a record that is not here")
    state, digest_of = known
    if digest_of != segment.before:
        raise BrokenRecord(number, f"record {number} does not begin where the one before it ended")
    return state
