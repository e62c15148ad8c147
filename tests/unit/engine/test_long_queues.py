"""A long queue for a concurrency group costs each of its members the same, and places left behind come back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from forge.core.pipeline.decide import new_run
from forge.core.pipeline.slots import LOOK_AGAIN, LOOK_AT_LEAST, Holder
from forge.core.pipeline.state import SlotState
from forge.engine.plans import Plans
from forge.engine.runs import KIND, RunMachine, encode_head, encode_parts
from forge.model.plan import Concurrency, JobPlan, Plan, Source, StepPlan
from forge.store.contract import Record, Store
from forge.store.database import open_store

GROUP = "queue"
PLAN = Plan(
    file="forge/pipeline.yaml", name="p", source=Source(digest="sha256:0"),
    jobs=(JobPlan(name="a", base="a", steps=(StepPlan(id="s", name="s", kind="run", config={"script": "true"}),)),),
    concurrency=Concurrency(GROUP),
)  # fmt: skip


class Queue:
    """Runs that ask for a place, and how many machines were loaded for it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.machine = RunMachine(store, Plans(store.documents), None, max_parallel=1)
        self.loaded = 0
        load = store.machines.load

        async def counted(machine: str) -> Record | None:
            self.loaded += 1
            return await load(machine)

        store.machines.load = counted

    async def run(self, status: str = "queued") -> str:
        await Plans(self.store.documents).pin(PLAN)
        state = new_run(PLAN, "", actor="me", at=0.0)
        state = type(state)(**{name: getattr(state, name) for name in state.__struct_fields__} | {"status": status})
        return await self.store.machines.create(
            KIND, "", state.status, encode_head(state), encode_parts(state), id_prefix=KIND
        )

    async def ask(self, run: str) -> int:
        return await self.machine._place(GROUP, str(Holder(run, 1, "")), 1, "queue")


@pytest.fixture
async def queue(store_url: str) -> AsyncIterator[Queue]:
    store = await open_store(store_url)
    try:
        yield Queue(store)
    finally:
        await store.close()


async def test_asking_costs_the_same_wherever_one_stands(queue: Queue) -> None:
    runs = [await queue.run() for _ in range(60)]
    costs = []
    for place, run in enumerate(runs):
        before = queue.loaded
        assert await queue.ask(run) == place
        costs.append(queue.loaded - before)
    assert costs[0] == 0
    assert set(costs[1:]) == {1}


async def test_a_place_held_by_a_run_that_is_over_comes_back_to_the_first(queue: Queue) -> None:
    over, waiting, behind = await queue.run("succeeded"), await queue.run(), await queue.run()
    assert await queue.ask(over) == 0
    assert await queue.ask(waiting) == 0, "the first in the queue makes sure of who holds the place"
    assert await queue.ask(behind) == 1


async def test_who_is_gone_from_the_queue_is_found_by_the_one_behind(queue: Queue) -> None:
    holder = await queue.run()
    gone = [await queue.run("cancelled") for _ in range(3)]
    waiting = await queue.run()
    assert await queue.ask(holder) == 0
    for one in gone:
        await queue.store.slots.ask(GROUP, str(Holder(one, 1, "")), 1)
    seen = [await queue.ask(waiting) for _ in range(4)]
    assert seen[-1] == 1, seen
    assert await queue.store.slots.queue(GROUP) == [str(Holder(waiting, 1, ""))]
    await queue.store.slots.free(GROUP, str(Holder(holder, 1, "")))
    assert await queue.ask(waiting) == 0


@pytest.mark.parametrize(
    ("position", "seconds"), [(1, LOOK_AGAIN), (20, LOOK_AGAIN), (40, 30.0), (5000, LOOK_AT_LEAST)]
)
def test_far_back_in_a_queue_one_looks_more_rarely(position: int, seconds: float) -> None:
    from forge.core.pipeline.slots import place_after

    class Tick:
        now, woken = 100.0, None

        def __init__(self) -> None:
            self.run = new_run(PLAN, "run-1", actor="me", at=0.0)
            self.places = {str(Holder("run-1", self.run.attempt, "")): position}

        def wake(self, at: float) -> None:
            self.woken = at

    tick = Tick()
    slot = place_after(tick, SlotState(GROUP, state="queued", position=position + 1), "")
    assert slot.position == position
    assert tick.woken == 100.0 + seconds
