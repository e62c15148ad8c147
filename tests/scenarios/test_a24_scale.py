"""A24: many releases for thirty simulated days: memory and the work of a tick are flat.

A small version of `python -m bench scale`, which plays ten thousand at once. Work is counted in function calls: a
test that measured time would fail on a busy machine.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from types import FrameType
from typing import Any

import msgspec
import pytest
from world import World, canary

from bench.scale import DAY, a_past, lived_in
from forge.core.release.state import RELEASE_FINAL, EnvironmentState
from forge.simulate.run import Simulation

DAYS = 30


@pytest.fixture(scope="module")
def past() -> bytes:
    return a_past()


class _Calls:
    """Counts every call of a Python function while it is on."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, _frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            self.count += 1


def _day(world: Simulation, day: int) -> None:
    while world.world.now < world.start + (day - 0.25) * DAY and world.step() is not None:
        pass


def test_state_memory_and_work_of_a_tick_stay_what_they_are(past: bytes) -> None:
    tracemalloc.start()
    worlds = [lived_in(number, DAYS, past) for number in range(5)]
    work: dict[int, float] = {}
    memory: dict[int, int] = {}
    state: dict[int, int] = {}
    under_way = []
    try:
        for day in range(1, DAYS + 1):
            made = sum(world.decisions for world in worlds)
            with _Calls() as calls:
                for world in worlds:
                    _day(world, day)
            work[day] = calls.count / (sum(world.decisions for world in worlds) - made)
            gc.collect()
            memory[day] = tracemalloc.get_traced_memory()[0]
            state[day] = sum(len(msgspec.json.encode(world.state)) for world in worlds)
            releases = [each for world in worlds for each in world.state.releases.values()]
            under_way.append(sum(each.status not in RELEASE_FINAL | {"queued"} for each in releases))
    finally:
        tracemalloc.stop()
    assert sorted(under_way)[DAYS // 2] == 2 * len(worlds)
    assert all(world.report().totals.releases >= 6 for world in worlds)

    def grown(of: dict[int, Any]) -> float:
        return sum(of[day] for day in range(DAYS - 9, DAYS + 1)) / sum(of[day] for day in range(4, 14))

    assert grown(state) < 1.2
    assert grown(memory) < 1.25
    assert grown(work) < 1.25


def test_a_release_that_is_over_keeps_nothing_of_its_judge(past: bytes) -> None:
    """Which is by far the largest part of it, and the reason why states once grew for weeks."""
    world = lived_in(1, 20.0, past)
    world.play()
    releases = [each for each in world.state.releases.values() if each.status in RELEASE_FINAL]
    assert any(each.requests for each in releases)
    assert all(each.judge_state == {} for each in releases)
    assert max(len(msgspec.json.encode(each)) for each in releases) < 4096


def test_as_long_as_a_promoted_release_can_be_rolled_back_what_was_seen_of_it_is_kept() -> None:
    world = World(replicas=2).established()
    world.run(20)
    world.deploy("1.4", canary(20, 5.0, keep_previous=30.0))
    world.until("promoted")
    for _ in range(28):
        world.tick()
        assert world.release("1.4").judge_state
    world.run(5)
    assert world.release("1.4").judge_state == {}
    assert world.release("1.4").verdict is not None


def test_a_state_of_a_month_survives_the_disk(past: bytes) -> None:
    world = lived_in(2, 30.0, past)
    world.play()
    assert msgspec.json.decode(msgspec.json.encode(world.state), type=EnvironmentState) == world.state
