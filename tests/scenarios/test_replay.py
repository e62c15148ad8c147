"""The record of a world where anything happens, with writes that were lost: it still gives the same decisions.

Every other scenario is replayed too, by the fixture in `conftest.py`.
"""

from __future__ import annotations

import random

import msgspec
import pytest
import world as worlds
from hypothesis import settings
from hypothesis.stateful import rule
from stenographer import Stenographer
from test_release_machine import ReleaseMachine
from world import Behaviour, World, canary

from forge.core.release.replay import replay, trace
from forge.core.release.state import EnvironmentState
from forge.engine import recording
from forge.engine.recording import LOOKS_TOGETHER, rules


class ReplayedMachine(ReleaseMachine):
    """Everything that can happen to an environment, and to the record of it."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = Stenographer()
        self.outer, worlds.decide = worlds.decide, self.writing.decide

    @rule()
    def the_write_is_lost(self) -> None:
        """Decided, put into words, and then the database was away: the state is read anew."""
        world = self.world
        kept = len(self.writing.bodies)
        self.writing.decide(world.state, world.observe(), tuple(world.inbox), tuple(world.outcomes), world.now)
        del self.writing.bodies[kept:]
        world.state = msgspec.json.decode(msgspec.json.encode(world.state), type=EnvironmentState)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            worlds.decide = self.outer
        found = replay(self.writing.segments(), rules())
        assert found.difference is None
        moments = list(trace(self.writing.segments()))
        if moments and hasattr(self, "world"):
            standing = {name: release.status for name, release in moments[-1].decision.state.releases.items()}
            assert standing == {name: release.status for name, release in self.world.state.releases.items()}


ReplayedMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
TestReplayedMachine = ReplayedMachine.TestCase


def test_the_record_of_a_release_is_small(stenographer: Stenographer) -> None:
    world = World(rps=500).established()
    before = sum(map(len, stenographer.bodies))
    ticks = stenographer.ticks
    world.deploy("1.4", canary(5, 60.0, 25, 60.0, 50, 60.0))
    world.until("promoted", limit=2000)
    size = sum(map(len, stenographer.bodies)) - before
    assert stenographer.ticks - ticks > 180
    assert size < 250 * (stenographer.ticks - ticks), f"{size} bytes for {stenographer.ticks - ticks} ticks"


def test_a_release_that_is_paused_for_days_does_not_grow_the_record(
    stenographer: Stenographer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "LOOKS_KEPT", 120)
    world = World(rps=500).established()
    world.deploy("1.4", canary(5, "resume", 50))
    world.until("paused")
    world.run(recording.LOOKS_KEPT + 1)
    records, size = len(stenographer.bodies), sum(map(len, stenographer.bodies))
    world.run(500)
    assert len(stenographer.bodies) == records
    world.behaviour["1.4"] = Behaviour(failure_rate=0.5)
    world.until("rolled_back")
    assert sum(map(len, stenographer.bodies)) - size < 40_000
    found = replay(stenographer.segments(), rules())
    assert found.passed > 400
    moments = list(trace(stenographer.segments()))
    went_back = [m for m in moments if any(event.kind == "release_rolling_back" for event in m.recorded.events)]
    assert len(went_back) == 1, "what ended the pause can be made again"
    after_the_gap = [segment for _, segment in stenographer.segments() if segment.passed]
    assert [segment.start is not None for segment in after_the_gap] == [True]
    assert len(after_the_gap[0].ticks) == LOOKS_TOGETHER + 1


def test_every_reading_that_a_judge_saw_on_the_way_is_on_record(stenographer: Stenographer) -> None:
    world = World(rps=50).established()
    world.deploy("1.4", canary(10, 60.0, 50, 60.0))
    world.until("promoted")
    seen = {moment.recorded.now for moment in trace(stenographer.segments())}
    release = world.release()
    assert release.started_at is not None
    assert release.finished_at is not None
    assert {release.started_at + second for second in range(int(release.finished_at - release.started_at))} <= seen


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_reading_gives_a_difference(stenographer: Stenographer, seed: int) -> None:
    world = World(rps=300).established()
    world.deploy("1.4", canary(10, 20.0, 50, 20.0))
    world.until("promoted")
    choose = random.Random(seed)
    segments = dict(stenographer.segments())
    number = choose.choice([n for n, segment in segments.items() if _samples(segment)])
    at, version = choose.choice(_samples(segments[number]))
    tick = segments[number].ticks[at]
    sample = tick.observation.samples[version]
    forged = msgspec.structs.replace(sample, errors=sample.errors + 1)
    observation = msgspec.structs.replace(tick.observation, samples={**tick.observation.samples, version: forged})
    ticks = list(segments[number].ticks)
    ticks[at] = msgspec.structs.replace(tick, observation=observation)
    segments[number] = msgspec.structs.replace(segments[number], ticks=tuple(ticks))
    found = replay(segments.items(), rules())
    assert found.difference is not None
    assert (found.difference.segment, found.difference.now) == (number, tick.now)


def _samples(segment: recording.Segment) -> list[tuple[int, str]]:
    """Where the segment has a reading that counts: of a version that has traffic."""
    return [
        (at, version)
        for at, tick in enumerate(segment.ticks)
        for version in (tick.observation.weights or {})
        if version in (tick.observation.samples or {}) and tick.observation.samples[version].requests
    ]
