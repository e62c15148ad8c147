"""What goes on without a worker: it is ended before anybody hears that it was cancelled or lost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from forge.engine.machine import ELSEWHERE, Ending
from forge.engine.worker import Worker
from forge.model.decision import Action, Decision, Outcome
from forge.model.errors import DependencyFailed
from forge.store.contract import Claim, Record, Write
from forge.store.database import DatabaseStore


class State(msgspec.Struct, frozen=True):
    todo: tuple[str, ...] = ()
    results: dict[str, str] = {}
    words: dict[str, str] = {}


class Kind:
    """Asked nothing but to settle what a dead worker left: `todo` were all asked for already."""

    kind = "run"

    def __init__(self, *, fails: str = "", gate: asyncio.Event | None = None) -> None:
        self.performed: list[str] = []
        self.ended: list[str] = []
        self.fails = fails
        self.gate = gate

    def load(self, record: Record) -> State:
        return msgspec.json.decode(record.head, type=State)

    def dump(self, state: State) -> tuple[str, bytes, dict[str, bytes]]:
        done = set(state.results) == set(state.todo)
        return "done" if done else "running", msgspec.json.encode(state), {}

    async def observe(self, state: State, now: float) -> Any:
        return None

    def decide(self, state: State, observation: Any, commands: Any, outcomes: Any, now: float) -> Decision[State]:
        results = state.results | {outcome.key: outcome.result for outcome in outcomes}
        words = state.words | {outcome.key: outcome.message for outcome in outcomes}
        stop = tuple(command.payload["key"] for command in commands if command.kind == "stop")
        return Decision(msgspec.structs.replace(state, results=results, words=words), cancel=stop)

    async def perform(self, action: Action, state: State, claim: Claim) -> Outcome:
        self.performed.append(action.key)
        return Outcome(action.key, "succeeded", time.time())

    async def end_left(self, action: Action, state: State) -> None:
        assert isinstance(state, State)
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise DependencyFailed(self.fails)
        self.ended.append(action.key)


def action(key: str, *, elsewhere: bool = True) -> Action:
    return Action(key, "step", {ELSEWHERE: True} if elsewhere else {}, rerun=not key.startswith("once"))


async def left_by_a_dead_worker(store: DatabaseStore, *actions: Action, cancel: tuple[str, ...] = ()) -> str:
    head = msgspec.json.encode(State(tuple(each.key for each in actions)))
    machine = await store.machines.create("run", "", "queued", head, {}, id_prefix="run")
    (dead,) = await store.machines.claim("dead", ("run",), 1, 0.2)
    await store.machines.write(dead, Write(status="running", head=head, actions=actions, start=True))
    if cancel:
        await store.machines.write(dead, Write(status="running", head=head, cancel=cancel))
    return machine


async def settled(store: DatabaseStore, kind: Kind, machine: str, seconds: float = 15) -> State:
    stop = asyncio.Event()
    task = asyncio.create_task(Worker(store, [kind], lease_seconds=1.0).run(stop))
    deadline = time.monotonic() + seconds
    while True:
        record = await store.machines.load(machine)
        assert record is not None
        if record.status == "done":
            break
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)
    stop.set()
    await asyncio.wait_for(task, 15)
    return kind.load(record)


def test_the_kind_says_that_it_can() -> None:
    assert isinstance(Kind(), Ending)


async def test_what_was_being_stopped_is_ended_before_it_counts_as_cancelled(store: DatabaseStore) -> None:
    gate = asyncio.Event()
    kind = Kind(gate=gate)
    machine = await left_by_a_dead_worker(store, action("pod"), cancel=("pod",))
    task = asyncio.create_task(settled(store, kind, machine))
    await asyncio.sleep(1.0)
    assert not task.done()
    (intent,) = await store.intents.of(machine)
    assert intent.outcome is None
    gate.set()
    assert (await task).results == {"pod": "cancelled"}
    assert (kind.ended, kind.performed) == (["pod"], [])


async def test_what_must_not_run_twice_is_ended_and_lost(store: DatabaseStore) -> None:
    kind = Kind()
    state = await settled(store, kind, await left_by_a_dead_worker(store, action("once")))
    assert state.results == {"once": "lost"}
    assert (kind.ended, kind.performed) == (["once"], [])


async def test_what_is_cancelled_while_nobody_works_is_ended_not_begun_again(store: DatabaseStore) -> None:
    kind = Kind()
    machine = await left_by_a_dead_worker(store, action("pod"))
    await store.inbox.send(machine, "stop", "ada", {"key": "pod"})
    assert (await settled(store, kind, machine)).results == {"pod": "cancelled"}
    assert (kind.ended, kind.performed) == (["pod"], [])


async def test_what_may_be_repeated_goes_on_and_is_not_ended(store: DatabaseStore) -> None:
    kind = Kind()
    state = await settled(store, kind, await left_by_a_dead_worker(store, action("pod")))
    assert state.results == {"pod": "succeeded"}
    assert (kind.ended, kind.performed) == ([], ["pod"])


async def test_what_was_on_the_dead_workers_machine_is_settled_without_asking(store: DatabaseStore) -> None:
    kind = Kind()
    machine = await left_by_a_dead_worker(store, action("here", elsewhere=False), cancel=("here",))
    assert (await settled(store, kind, machine)).results == {"here": "cancelled"}
    assert kind.ended == []


async def test_a_cluster_that_is_away_is_told_and_holds_nobody_up(store: DatabaseStore) -> None:
    kind = Kind(fails="the cluster is away")
    state = await settled(store, kind, await left_by_a_dead_worker(store, action("pod"), cancel=("pod",)))
    assert state.results == {"pod": "cancelled"}
    assert state.words["pod"] == "its worker ended while it was being stopped; the cluster is away"


@pytest.mark.parametrize("moment", ["sort", "act"])
async def test_a_worker_that_leaves_while_it_ends_something_records_nothing(store: DatabaseStore, moment: str) -> None:
    """The next one ends it again: that is no harm."""
    gate = asyncio.Event()
    first = Kind(gate=gate)
    machine = await left_by_a_dead_worker(store, action("pod"), cancel=("pod",) if moment == "sort" else ())
    if moment == "act":
        await store.inbox.send(machine, "stop", "ada", {"key": "pod"})
    stop = asyncio.Event()
    leaving = asyncio.create_task(Worker(store, [first], lease_seconds=1.0).run(stop))
    await asyncio.sleep(1.0)
    stop.set()
    await asyncio.wait_for(asyncio.shield(leaving), 15)
    second = Kind()
    assert (await settled(store, second, machine)).results == {"pod": "cancelled"}
    assert second.ended == ["pod"]
