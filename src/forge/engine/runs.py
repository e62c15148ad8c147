"""Runs as durable machines: joins the pure `core.pipeline.decide` to the database, the disk and the steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from forge.core.pipeline.decide import decide
from forge.core.pipeline.keys import ASK, FREE, SAVE
from forge.core.pipeline.slots import Holder, is_left_behind, places_waited_for
from forge.core.pipeline.state import JobState, RunState
from forge.engine.plans import Plans
from forge.engine.step_performing import StepPerformer
from forge.model.decision import Action, Command, Decision, Outcome
from forge.model.errors import CorruptData, DependencyFailed, StaleLease
from forge.model.plan import Concurrency, Plan
from forge.store.contract import Claim, Record, Store

KIND = "run"
SCHEMA_VERSION = 1
PATIENCE_SECONDS = 0.5
"""How long to wait when the database is away."""
_ENCODER = msgspec.json.Encoder()

T = TypeVar("T")


class Observation(msgspec.Struct, frozen=True):
    """What a run looks at: its pinned plan, and where its waiting jobs stand in their queues."""

    plan: Plan
    places: Mapping[str, int] = {}


class RunMachine:
    """The `MachineKind` of runs."""

    kind = KIND

    def __init__(self, store: Store, plans: Plans, steps: StepPerformer, *, max_parallel: int = 4) -> None:
        self._store = store
        self._plans = plans
        self._steps = steps
        self._max_parallel = max_parallel
        self._encoded: dict[str, dict[str, tuple[JobState, bytes]]] = {}
        self._asked_to_stop: set[tuple[str, str]] = set()

    def load(self, record: Record) -> RunState:
        """Return the state from its stored form."""
        if record.schema_version > SCHEMA_VERSION:
            raise CorruptData(
                f"{record.id} was written by a newer Forge (schema {record.schema_version})", hint="update Forge"
            )
        return load_run(record)

    def dump(self, state: RunState) -> tuple[str, bytes, dict[str, bytes]]:
        """Return (status, head, parts); a job that did not change is the very same bytes object as last time."""
        before = self._encoded.get(state.id, {})
        encoded: dict[str, tuple[JobState, bytes]] = {}
        for name, job in state.jobs.items():
            known = before.get(name)
            encoded[name] = known if known is not None and known[0] is job else (job, _ENCODER.encode(job))
        self._encoded[state.id] = encoded
        if state.finished_at is not None:
            self._encoded.pop(state.id)
        return state.status, encode_head(state), {name: text for name, (_, text) in encoded.items()}

    async def observe(self, state: RunState, now: float) -> Observation:
        """Return the plan, and the positions of whoever waits in a queue; asking again takes a place that is free."""
        del now
        plan = await self._plans.get(state.plan_digest)
        places: dict[str, int] = {}
        for holder, group in places_waited_for(state).items():
            concurrency = _concurrency(plan, holder.job)
            if concurrency is not None:
                name = str(holder)
                places[name] = await self._place(group, name, concurrency.limit, concurrency.when_busy)
        return Observation(plan, places)

    def decide(
        self,
        state: RunState,
        observation: Observation,
        commands: tuple[Command, ...],
        outcomes: tuple[Outcome, ...],
        now: float,
    ) -> Decision[RunState]:
        """Call the pure core."""
        return decide(
            observation.plan,
            state,
            commands,
            outcomes,
            now,
            max_parallel=self._max_parallel,
            places=observation.places,
        )

    async def perform(self, action: Action, state: RunState, claim: Claim) -> Outcome:
        """Run a step, ask for a place in a group, give it back, or keep caches. `at` 0: the worker's clock says."""
        del claim
        payload = action.payload
        if action.kind == "step":
            return await self._steps.perform(await self._plans.get(state.plan_digest), state, action)
        if action.kind == ASK:
            when_busy = "cancel_running" if payload["cancel_running"] else "queue"
            place = partial(self._place, payload["group"], payload["holder"], payload["limit"], when_busy)
            return Outcome(action.key, "succeeded", 0.0, data={"position": await patiently(place)})
        if action.kind == FREE:
            await patiently(partial(self._store.slots.free, payload["group"], payload["holder"]))
            return Outcome(action.key, "succeeded", 0.0)
        if action.kind == SAVE:
            await self._steps.save_caches(state.id, payload["job"], payload["attempt"])
            return Outcome(action.key, "succeeded", 0.0)
        return Outcome(action.key, "error", 0.0, f"nobody performs `{action.kind}`")

    async def end_left(self, action: Action, state: RunState) -> None:
        """End what a worker that is gone has left behind of a step. See `Ending`."""
        await self._steps.end_left(await self._plans.get(state.plan_digest), state, action)

    async def _place(self, group: str, holder: str, limit: int, when_busy: str) -> int:
        """Ask for a place, which may be asked again and again; return the position in the queue, 0 for a place."""
        position = await self._store.slots.ask(group, holder, limit)
        if not position:
            return 0
        holders: list[Holder] = []
        if position == 1 or when_busy == "cancel_running":
            holders = [Holder.parse(name) for name in await self._store.slots.holders(group)]
        if await self._free_left_behind(group, await self._checked_by(group, position, holders)):
            position = await self._store.slots.ask(group, holder, limit)
        if when_busy == "cancel_running":
            for other in holders[:position]:
                await self._ask_to_stop(group, other, holder)
        return position

    async def _checked_by(self, group: str, position: int, holders: list[Holder]) -> list[Holder]:
        """Return whom the one at this place of the queue makes sure of: the first looks after those who hold places,
        everybody else after the one just ahead. So a long queue costs each of its members the same."""
        if position <= 1:
            return holders
        queue = await self._store.slots.queue(group)
        return [Holder.parse(name) for name in queue[position - 2 : position - 1]]

    async def _free_left_behind(self, group: str, holders: list[Holder]) -> bool:
        """Give back places, held or queued for, that a worker took after it had lost its lease, or was cut off from
        in the middle of asking; return whether there were any."""
        found = False
        for holder in holders:
            record = await self._store.machines.load(holder.run)
            if record is None or is_left_behind(holder, load_run(record)):
                await self._store.slots.free(group, str(holder))
                found = True
        return found

    async def _ask_to_stop(self, group: str, holder: Holder, asker: str) -> None:
        if (str(holder), asker) in self._asked_to_stop:
            return
        actor = Holder.parse(asker).run
        payload: dict[str, Any] = {"comment": f"{actor} takes its place in concurrency group `{group}`"}
        if holder.job:
            payload["job"] = holder.job
        await self._store.inbox.send(holder.run, "cancel", actor, payload, key=f"cancel {holder} for {asker}")
        self._asked_to_stop.add((str(holder), asker))


async def patiently(ask: Callable[[], Awaitable[T]], pause: float = PATIENCE_SECONDS) -> T:
    """Ask the database until it answers: a place in a group is nothing that the work could fail by."""
    while True:
        try:
            return await ask()
        except StaleLease:
            raise
        except DependencyFailed:
            await asyncio.sleep(pause)


def load_run(record: Record) -> RunState:
    """Return the run that a record holds; without parts, only its header."""
    head = msgspec.json.decode(record.head, type=RunState)
    parts = {name: msgspec.json.decode(part, type=JobState) for name, part in record.parts.items()}
    jobs = {name: parts[name] for name in head.jobs if name in parts} | parts
    return replace(head, id=record.id, jobs=jobs)


def encode_head(state: RunState) -> bytes:
    """Return the header alone as JSON; the jobs are parts."""
    return _ENCODER.encode(replace(state, jobs={}))


def encode_parts(state: RunState) -> dict[str, bytes]:
    """Return one JSON part per job."""
    return {name: _ENCODER.encode(job) for name, job in state.jobs.items()}


def _concurrency(plan: Plan, job: str) -> Concurrency | None:
    return plan.job(job).concurrency if job else plan.concurrency
