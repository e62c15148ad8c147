"""The in-memory target and router as the engine's tests use them: on a clock that the test advances."""

from __future__ import annotations

import pytest

from forge.adapters.routers.memory import MemoryRouter
from forge.adapters.signals.memory import MemorySignals
from forge.adapters.targets.memory import MemoryTarget
from forge.model.errors import DependencyFailed
from forge.model.traffic import TrafficTable, Version


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_replicas_are_ready_after_their_time_and_again_after_a_crash(clock) -> None:
    target = MemoryTarget(clock, ready_after=5.0)
    await target.ensure(Version("1.0"), 2, "/artifact", 1)
    assert (await target.observe())["1.0"].message == "starting"
    clock.now += 5.0
    assert (await target.observe())["1.0"].ready == 2
    target.crash("1.0")
    count = (await target.observe())["1.0"]
    assert (count.running, count.ready, count.restarts) == (2, 1, 1)
    clock.now += 5.0
    assert target.is_ready("1.0")
    assert target.artifacts == {"1.0": "/artifact"}


async def test_a_version_that_never_gets_ready_says_why(clock) -> None:
    target = MemoryTarget(clock)
    target.never_ready["1.0"] = "GET /health answered 500"
    await target.ensure(Version("1.0"), 1, None, 1)
    clock.now += 1e6
    count = (await target.observe())["1.0"]
    assert (count.ready, count.message) == (0, "GET /health answered 500")


async def test_a_table_takes_its_time_and_a_frozen_router_never_takes_it(clock) -> None:
    router = MemoryRouter(clock, delay=2.0)
    first, second = TrafficTable({"1.0": 10000}, 1), TrafficTable({"1.1": 10000}, 2)
    await router.apply(first, 1)
    assert await router.observed() is None
    clock.now += 1.0
    await router.apply(second, 1)
    clock.now += 1.0
    assert await router.observed() == first
    clock.now += 1.0
    assert await router.observed() == second
    router.frozen = True
    await router.apply(first, 1)
    clock.now += 100.0
    assert await router.observed() == second
    assert router.applied == [first, second, first]


async def test_all_of_it_can_be_out_of_reach(clock) -> None:
    target, signals = MemoryTarget(clock), MemorySignals(clock)
    router = MemoryRouter(clock, target)
    target.unreachable = router.unreachable = signals.unreachable = True
    for call in (
        target.observe(),
        target.ensure(Version("1.0"), 1, None, 1),
        target.remove("1.0", 1),
        router.observed(),
        router.address(),
        router.apply(TrafficTable({"1.0": 10000}, 1), 1),
        signals.read(["1.0"]),
    ):
        with pytest.raises(DependencyFailed):
            await call


async def test_users_experience_what_the_test_says(clock) -> None:
    signals = MemorySignals(clock)
    signals.serve("1.0", 3, errors=1, latency=[0.001, 0.02, 3.0])
    signals.serve("1.1", 1)
    signals.use("1.0", cpu_seconds=1.5, memory=7)
    signals.silent.add("1.1")
    read = await signals.read(["1.0", "1.1"])
    assert set(read) == {"1.0"}
    sample = read["1.0"]
    assert (sample.at, sample.requests, sample.errors, sample.cpu_seconds, sample.memory) == (1000.0, 3, 1, 1.5, 7)
    assert dict(sample.latency)[0.005] == 1
    assert dict(sample.latency)[0.025] == 2
    assert sample.latency[-1][1] == 3
