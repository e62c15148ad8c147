"""The same stories through the real worker and the real database, for the faults that only they can have.

Everything of Forge is as in production but the clock: worker, tending, leases, SQLite, the hash-chained log. What
is simulated is the world, and the fate of the workers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from forge.adapters.artifacts.memory import MemoryArtifacts
from forge.core.release.state import RELEASE_FINAL, EnvironmentState
from forge.engine.environments import KIND, EnvironmentMachine, empty_state
from forge.engine.project import Project
from forge.engine.worker import Worker
from forge.model.decision import Command, Decision, Outcome
from forge.model.traffic import Observation
from forge.simulate.adapters import LiveWorld
from forge.simulate.clock import VirtualLoop, run_virtually
from forge.simulate.invariants import check, check_durable
from forge.simulate.mortal import Fate, MortalStore
from forge.simulate.people import Desk
from forge.simulate.story import MONDAY, Story
from forge.simulate.world import World
from forge.store.database import DatabaseStore
from forge.store.sqlite import SqliteDatabase

LEASE = 5.0
LOOKS_EVERY = 1.0
FIRST_AT = -300.0
"""When the first version is asked for, so that it is stable as the story begins."""


class EngineResult(msgspec.Struct, frozen=True):
    """What became of a story: statuses by release, the stable version, the split, and whether the log is whole."""

    statuses: dict[str, str]
    stable: str
    split: dict[str, int]
    replicas: dict[str, int]
    log_problem: int | None
    decisions: int
    writes: tuple[int, ...]
    """Of each worker that had a fate."""
    seconds: float


class CheckedMachine(EnvironmentMachine):
    """The environment's machine; every decision is held against the invariants."""

    decisions = 0

    def decide(
        self, state: EnvironmentState, observation: Observation, commands: tuple[Command, ...],
        outcomes: tuple[Outcome, ...], now: float,
    ) -> Decision[EnvironmentState]:  # fmt: skip
        """Decide, and check."""
        decision = super().decide(state, observation, commands, outcomes, now)
        CheckedMachine.decisions += 1
        check(state, decision, observation, commands)
        check_durable(decision)
        return decision


class VirtualDatabase(SqliteDatabase):
    """SQLite as it is; its threads hold virtual time still, and no other process writes to it."""

    def __init__(self, path: Path, loop: VirtualLoop) -> None:
        super().__init__(path)
        self._virtual = loop
        self._clock = lambda: MONDAY + loop.time()

    async def write(self, work: Any) -> Any:
        """See SqliteDatabase."""
        return await self._virtual.counted(super().write(work))

    async def read(self, work: Any, *, whole: bool = False) -> Any:
        """See SqliteDatabase."""
        return await self._virtual.counted(super().read(work, whole=whole))

    def _look(self) -> None:
        """Nobody else writes."""


def play_in_engine(story: Story, folder: Path, seed: int = 1, fates: Sequence[Fate | None] = (None,)) -> EngineResult:
    """Play a story with one worker for each fate at once; a worker that was killed is followed by a sound one.

    Raises InvariantBroken as soon as a decision breaks one.
    """
    return run_virtually(lambda loop: _play(loop, story, folder, seed, fates))


async def _play(loop: VirtualLoop, story: Story, folder: Path, seed: int, fates: Sequence[Fate | None]) -> EngineResult:
    rng = Random(seed)  # noqa: S311  a story, no secret
    world = World(story.shape, rng, MONDAY, story.faults_in(rng, MONDAY - FIRST_AT), headroom=story.headroom)
    world.behaviours["v0"] = story.first
    planned = [(FIRST_AT, "v0")]
    for number, (at, kind) in enumerate(story.releases_in(rng), 1):
        world.behaviours[f"v{number}"] = story.kinds[kind].behaviour
        planned.append((at, f"v{number}"))
    database = VirtualDatabase(folder / "forge.db", loop)
    await database.open()
    store = DatabaseStore(database)
    CheckedMachine.decisions = 0
    live, stop = LiveWorld(world, MONDAY), asyncio.Event()
    stores = [MortalStore(store, fate) for fate in fates]
    workers = [asyncio.create_task(_work(store, one, live, folder, stop)) for one in stores]
    try:
        await _until_over(store, Desk(story, MONDAY - FIRST_AT, planned), story, workers)
        state = await _state(store, story)
        return EngineResult(
            statuses={name: release.status for name, release in state.releases.items()}, stable=state.stable,
            split=dict(live.now().router.split),
            replicas={version: world.replicas.ready(version) for version in world.replicas.running},
            log_problem=await store.log.verify(), decisions=CheckedMachine.decisions,
            writes=tuple(one.writes for one in stores), seconds=loop.time(),
        )  # fmt: skip
    finally:
        stop.set()
        await asyncio.gather(*workers, return_exceptions=True)
        await store.close()


async def _work(store: DatabaseStore, mortal: MortalStore, live: LiveWorld, folder: Path, stop: asyncio.Event) -> None:
    """One worker until it is killed, and then a sound one."""
    views: list[Any] = [mortal, store]
    for view in views:
        ended = asyncio.Event()
        machine = CheckedMachine(Project(folder), MemoryArtifacts(), opener=lambda _plan, _folder: live)
        worker = asyncio.create_task(Worker(view, [machine], lease_seconds=LEASE).run(ended))
        deaths = [
            asyncio.create_task(stop.wait()),
            *([asyncio.create_task(mortal.dead.wait())] if view is mortal else []),
        ]
        await asyncio.wait({worker, *deaths}, return_when=asyncio.FIRST_COMPLETED)
        ended.set()
        for death in deaths:
            death.cancel()
        if worker.done():
            worker.result()
        with contextlib.suppress(Exception):
            await worker
        if stop.is_set():
            return


async def _until_over(store: DatabaseStore, desk: Desk, story: Story, workers: Sequence[asyncio.Task[None]]) -> None:
    """Give the commands of the story at their times, and wait for its end."""
    head, parts = empty_state(story.plan)
    machine = await store.machines.create(KIND, story.plan.name, "empty", head, parts, id_prefix="env")
    loop, number = asyncio.get_running_loop(), 0
    end = story.seconds - FIRST_AT
    while loop.time() < end:
        for command in (*desk.take(MONDAY + loop.time()), *desk.answer(await _state(store, story), loop.time())):
            number += 1
            key = str(command.payload.get("key", "")) or f"{command.kind} {number}"
            await store.inbox.send(machine, command.kind, command.actor, command.payload, key=key)
        for worker in workers:
            if worker.done():
                worker.result()
        await asyncio.sleep(min(LOOKS_EVERY, max(0.01, end - loop.time())))


async def _state(store: DatabaseStore, story: Story) -> EnvironmentState:
    record = await store.machines.load(await store.machines.find(KIND, story.plan.name) or "")
    return EnvironmentMachine.load(record) if record is not None else EnvironmentState(story.plan.name, story.plan)


def at_rest(result: EngineResult) -> bool:
    """Whether no release was under way in the end."""
    return all(status in RELEASE_FINAL for status in result.statuses.values())
