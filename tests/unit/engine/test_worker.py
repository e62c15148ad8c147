"""The worker on both databases, with machines small enough to see through."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from forge.engine.worker import Worker
from forge.model.decision import Action, Decision, Event, Outcome
from forge.model.errors import DependencyFailed, StaleLease
from forge.store.contract import Claim, Record, Write
from forge.store.database import DatabaseStore, open_store


class State(msgspec.Struct, frozen=True):
    todo: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    results: dict[str, str] = {}
    commands: tuple[str, ...] = ()
    ticks: int = 0
    wake_at: float | None = None
    jobs: dict[str, int] = {}


class Kind:
    """Performs what is in `todo`, all at once; notes every outcome and command. Tests replace its methods."""

    kind = "run"

    def __init__(self) -> None:
        self.performed: list[str] = []
        self.ended: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.claims: list[Claim] = []

    def load(self, record: Record) -> State:
        jobs = {name: msgspec.json.decode(value) for name, value in record.parts.items()}
        return msgspec.structs.replace(msgspec.json.decode(record.head, type=State), jobs=jobs)

    def dump(self, state: State) -> tuple[str, bytes, dict[str, bytes]]:
        done = set(state.results) == set(state.todo)
        head = msgspec.json.encode(msgspec.structs.replace(state, jobs={}))
        return "done" if done else "running", head, {n: msgspec.json.encode(v) for n, v in state.jobs.items()}

    async def observe(self, state: State, now: float) -> Any:
        return None

    def decide(self, state: State, observation: Any, commands: Any, outcomes: Any, now: float) -> Decision[State]:
        new = tuple(key for key in state.todo if key not in state.asked)
        after = msgspec.structs.replace(
            state,
            asked=state.asked + new,
            results=state.results | {outcome.key: outcome.result for outcome in outcomes},
            commands=state.commands + tuple(command.kind for command in commands),
        )
        stop = tuple(c.payload["key"] for c in commands if c.kind == "stop")
        events = tuple(Event("outcome", outcome.key) for outcome in outcomes)
        return Decision(after, actions=tuple(self.action(key) for key in new), cancel=stop, events=events)

    def action(self, key: str) -> Action:
        return Action(key, "step", rerun=not key.startswith("once"))

    async def perform(self, action: Action, state: State, claim: Claim) -> Outcome:
        self.performed.append(action.key)
        self.claims.append(claim)
        try:
            if action.key in self.gates:
                await self.gates[action.key].wait()
        finally:
            self.ended.append(action.key)
        return Outcome(action.key, "succeeded", time.time())


async def create(store: DatabaseStore, *todo: str, **fields: Any) -> str:
    head = msgspec.json.encode(State(todo=todo, **fields))
    return await store.machines.create("run", "", "queued", head, {}, id_prefix="run")


async def state_of(store: DatabaseStore, machine: str) -> State:
    record = await store.machines.load(machine)
    assert record is not None
    return Kind().load(record)


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if await answer if isinstance(answer, Awaitable) else answer:
            return
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


async def until_done(store: DatabaseStore, *machines: str) -> None:
    async def all_done() -> bool:
        records = [await store.machines.load(machine) for machine in machines]
        return all(record is not None and record.status == "done" for record in records)

    await until(all_done)


@contextlib.asynccontextmanager
async def working(store: Any, kind: Any, only: tuple[str, ...] = (), **settings: Any) -> AsyncIterator[Worker]:
    stop = asyncio.Event()
    worker = Worker(store, [kind], **settings)
    task = asyncio.create_task(worker.run(stop, only))
    try:
        yield worker
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


class TestTicks:
    async def test_everything_asked_for_is_performed_once_and_recorded(self, store):
        kind = Kind()
        machine = await create(store, "a", "b", "c")
        async with working(store, kind):
            await until_done(store, machine)
        assert sorted(kind.performed) == ["a", "b", "c"]
        assert (await state_of(store, machine)).results == dict.fromkeys("abc", "succeeded")
        assert await store.intents.of(machine) == []
        assert sorted(e.event.message for e in await store.log.read(machine)) == ["a", "b", "c"]
        assert await store.log.verify() is None

    async def test_actions_of_one_machine_run_at_the_same_time(self, store):
        kind = Kind()
        kind.gates = {key: asyncio.Event() for key in "ab"}
        machine = await create(store, "a", "b")
        async with working(store, kind):
            await until(lambda: sorted(kind.performed) == ["a", "b"])
            kind.gates["b"].set()
            await until(lambda: kind.ended == ["b"])
            kind.gates["a"].set()
            await until_done(store, machine)

    async def test_outcomes_that_come_together_are_taken_together(self, store):
        kind = Kind()
        gate = asyncio.Event()
        kind.gates = {f"k{n}": gate for n in range(50)}
        machine = await create(store, *kind.gates)
        store.machines = Counting(store.machines)
        async with working(store, kind):
            await until(lambda: len(kind.performed) == 50)
            before = store.machines.calls["write"]
            gate.set()
            await until_done(store, machine)
            assert store.machines.calls["write"] - before < 5

    async def test_a_new_machine_begins_at_once(self, store):
        async with working(store, Kind()):
            await asyncio.sleep(0.3)
            machine = await create(store, "a")
            begin = time.monotonic()
            await until_done(store, machine)
            assert time.monotonic() - begin < 2

    async def test_a_command_reaches_a_machine_that_is_held_and_one_that_is_not(self, store, store_url):
        kind = Kind()
        kind.gates["long"] = asyncio.Event()
        held, free = await create(store, "long"), await create(store)
        async with working(store, kind), await open_store(store_url) as other:
            await until(lambda: kind.performed == ["long"])
            await until_done(store, free)
            await asyncio.sleep(0.2)
            for machine in (held, free):
                begin = time.monotonic()
                await other.inbox.send(machine, "hello", "ada", {})

                async def heard(machine: str = machine) -> bool:
                    return (await state_of(store, machine)).commands == ("hello",)

                await until(heard)
                assert time.monotonic() - begin < 2
            assert await store.inbox.of(held) == []
            kind.gates["long"].set()
            await until_done(store, held)
        assert kind.performed == ["long"]

    async def test_wake_at_makes_it_tick_while_held_and_while_free(self, store):
        class Waking(Kind):
            def decide(self, state, observation, commands, outcomes, now):
                if state.wake_at is None or now >= state.wake_at:
                    ticks = state.ticks + 1
                    state = msgspec.structs.replace(state, ticks=ticks, wake_at=now + (0.05 if ticks % 2 else 0.5))
                return Decision(state, wake_at=state.wake_at)

        machine = await create(store, "never")
        # Held over the short sleep, given back for the long one.
        async with working(store, Waking(), lease_seconds=0.3):

            async def ticked() -> bool:
                return (await state_of(store, machine)).ticks >= 6

            await until(ticked)

    async def test_nothing_is_written_when_nothing_changes(self, store):
        class Watching(Kind):
            looks = 0

            async def observe(self, state, now):
                self.looks += 1

            def decide(self, state, observation, commands, outcomes, now):
                return Decision(state, wake_at=now + 0.02)

        kind = Watching()
        await create(store, "never")
        store.machines = Counting(store.machines)
        async with working(store, kind):
            await until(lambda: kind.looks > 10)
            assert store.machines.calls["write"] <= 1

    async def test_only_parts_that_changed_are_written(self, store):
        class Jobs(Kind):
            def decide(self, state, observation, commands, outcomes, now):
                if state.jobs.get("a", 0) < 3:
                    jobs = {**state.jobs, "a": state.jobs.get("a", 0) + 1, "b": 7}
                    return Decision(msgspec.structs.replace(state, jobs=jobs), wake_at=now)
                return Decision(msgspec.structs.replace(state, todo=()))

        machine = await create(store, "never")
        store.machines = Counting(store.machines)
        async with working(store, Jobs()):
            await until_done(store, machine)
        written = [write.parts for _claim, write in store.machines.arguments["write"] if write.parts]
        assert written == [{"a": b"1", "b": b"7"}, {"a": b"2"}, {"a": b"3"}]
        assert (await state_of(store, machine)).jobs == {"a": 3, "b": 7}

    async def test_outcomes_are_on_disk_before_a_slow_look_at_the_world_ends(self, store):
        class Slow(Kind):
            looking = asyncio.Event()

            async def observe(self, state, now):
                if state.asked:
                    await self.looking.wait()

        kind = Slow()
        machine = await create(store, "a")
        async with working(store, kind):

            async def finished() -> bool:
                return [i.state for i in await store.intents.of(machine)] == ["finished"]

            await until(finished)
            kind.looking.set()
            await until_done(store, machine)

    async def test_only_the_machines_asked_for(self, store):
        one, two = await create(store, "a"), await create(store, "b")
        async with working(store, Kind(), only=(two,)):
            await until_done(store, two)
            await asyncio.sleep(0.1)
        assert (await store.machines.load(one)).status == "queued"

    async def test_more_machines_than_seats_all_get_their_turn(self, store):
        class Waking(Kind):
            def decide(self, state, observation, commands, outcomes, now):
                decision = super().decide(state, observation, commands, outcomes, now)
                return msgspec.structs.replace(decision, wake_at=now + 1)

        machines = [await create(store, "a") for _ in range(12)]
        async with working(store, Waking(), max_machines=3):
            await until_done(store, *machines)


class Counting:
    """Counts the calls of one part of a store."""

    def __init__(self, part: Any) -> None:
        self._part = part
        self.calls: dict[str, int] = {"write": 0}
        self.arguments: dict[str, list[tuple[Any, ...]]] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            self.arguments.setdefault(name, []).append(args)
            return method(*args, **kwargs)

        return call


class TestCancelling:
    async def test_cancelled_is_recorded_only_when_the_action_has_really_ended(self, store):
        class Stubborn(Kind):
            cleaning = asyncio.Event()
            cleaned = asyncio.Event()

            async def perform(self, action, state, claim):
                try:
                    return await super().perform(action, state, claim)
                except asyncio.CancelledError:
                    self.cleaning.set()
                    await self.cleaned.wait()
                    raise

        kind = Stubborn()
        kind.gates["a"] = asyncio.Event()
        machine = await create(store, "a")
        async with working(store, kind):
            await until(lambda: kind.performed == ["a"])
            await store.inbox.send(machine, "stop", "ada", {"key": "a"})
            await asyncio.wait_for(kind.cleaning.wait(), 10)
            # Asking again must not interrupt the cleaning up.
            await store.inbox.send(machine, "stop", "ada", {"key": "a"})

            async def heard() -> bool:
                return len((await state_of(store, machine)).commands) == 2

            await until(heard)
            assert (await state_of(store, machine)).results == {}
            (intent,) = await store.intents.of(machine)
            assert (intent.state, intent.cancel) == ("started", True)
            kind.cleaned.set()
            await until_done(store, machine)
        assert (await state_of(store, machine)).results == {"a": "cancelled"}
        assert kind.performed == ["a"]

    async def test_an_action_may_say_itself_how_it_ended(self, store):
        class Graceful(Kind):
            async def perform(self, action, state, claim):
                try:
                    return await super().perform(action, state, claim)
                except asyncio.CancelledError:
                    return Outcome(action.key, "timed_out", 5.0, "killed after the grace period")

        kind = Graceful()
        kind.gates["a"] = asyncio.Event()
        machine = await create(store, "a")
        async with working(store, kind):
            await until(lambda: kind.performed == ["a"])
            await store.inbox.send(machine, "stop", "ada", {"key": "a"})
            await until_done(store, machine)
        assert (await state_of(store, machine)).results == {"a": "timed_out"}

    async def test_cancelling_what_begins_in_the_same_tick(self, store):
        class Hasty(Kind):
            def decide(self, state, observation, commands, outcomes, now):
                decision = super().decide(state, observation, commands, outcomes, now)
                return msgspec.structs.replace(decision, cancel=tuple(action.key for action in decision.actions))

        machine = await create(store, "a", "b")
        kind = Hasty()
        async with working(store, kind):
            await until_done(store, machine)
        assert (await state_of(store, machine)).results == {"a": "cancelled", "b": "cancelled"}

    async def test_cancelling_what_is_not_there_is_harmless(self, store):
        machine = await create(store, "a")
        await store.inbox.send(machine, "stop", "ada", {"key": "unknown"})
        async with working(store, Kind()):
            await until_done(store, machine)
        assert (await state_of(store, machine)).results == {"a": "succeeded"}


class TestFailures:
    async def test_an_exception_in_an_action_is_an_error_outcome(self, store):
        class Broken(Kind):
            async def perform(self, action, state, claim):
                raise OSError("no such proxy")

        machine = await create(store, "a")
        seen = []

        class Noting(Broken):
            def decide(self, state, observation, commands, outcomes, now):
                seen.extend(outcomes)
                return super().decide(state, observation, commands, outcomes, now)

        async with working(store, Noting()):
            await until_done(store, machine)
        assert [(o.key, o.result, o.message) for o in seen] == [("a", "error", "no such proxy")]

    @pytest.mark.parametrize("ours", [True, False])
    async def test_who_is_refused_as_stale_gives_up_only_what_is_not_its_own_any_more(self, store, ours):
        class Refused(Kind):
            async def perform(self, action, state, claim):
                if self.performed:
                    return await super().perform(action, state, claim)
                self.performed.append(action.key)
                if not ours:
                    await store.machines.let_go_all(claim.worker)
                    (stolen,) = await store.machines.claim("thief", ("run",), 1, 60)
                    assert not await store.machines.holds(claim)
                    await store.machines.let_go(stolen)
                raise StaleLease("token 1 is stale: 7 was seen")

        kind = Refused()
        machine = await create(store, "a")
        async with working(store, kind, lease_seconds=60):
            await until_done(store, machine)
        result = (await state_of(store, machine)).results["a"]
        assert (result, len(kind.performed)) == (("error", 1) if ours else ("succeeded", 2))

    @pytest.mark.parametrize("where", ["decide", "observe", "dump", "load"])
    async def test_a_failing_brain_is_reported_once_and_tried_again_with_nothing_lost(self, store, where, monkeypatch):
        monkeypatch.setattr("forge.engine.tending.FIRST_PAUSE_SECONDS", 0.05)
        failures = 4

        class Failing(Kind):
            left = {} if where == "load" else {"bad": failures}

            def _fail(self, state):
                if "bad" in state.todo and self.left.get("bad", 0) > 0:
                    self.left["bad"] -= 1
                    raise RuntimeError("the brain is broken")

            def load(self, record):
                state = super().load(record)
                if where == "load" and "bad" in state.todo and not self.left.get("healed"):
                    raise RuntimeError("the brain is broken")
                return state

            async def observe(self, state, now):
                if where == "observe":
                    self._fail(state)

            def decide(self, state, observation, commands, outcomes, now):
                if where == "decide":
                    self._fail(state)
                return super().decide(state, observation, commands, outcomes, now)

            def dump(self, state):
                if where == "dump":
                    self._fail(state)
                return super().dump(state)

        kind = Failing()
        bad, good = await create(store, "bad"), await create(store, "good")
        await store.inbox.send(bad, "hello", "ada", {})
        async with working(store, kind):
            await until_done(store, good)
            if where == "load":
                await asyncio.sleep(0.4)
            else:
                await until_done(store, bad)
        events = [e.event for e in await store.log.read(bad) if e.event.kind == "engine_error"]
        assert len(events) == 1
        assert "the brain is broken" in events[0].message
        if where == "load":
            kind.left["healed"] = 1
            async with working(store, kind):
                await until_done(store, bad)
        assert (await state_of(store, bad)).commands == ("hello",)
        assert kind.performed.count("bad") == 1

    async def test_a_machine_whose_rows_cannot_be_read_is_tried_again_and_holds_up_nobody(self, store, monkeypatch):
        monkeypatch.setattr("forge.engine.tending.FIRST_PAUSE_SECONDS", 0.05)
        broken, well = await create(store, "a"), await create(store, "b")
        intents_of, failures = store.intents.of, []

        async def of(machine: str) -> Any:
            if machine == broken and len(failures) < 3:
                failures.append(machine)
                raise ValueError("the payload is no JSON")
            return await intents_of(machine)

        monkeypatch.setattr(store.intents, "of", of)
        async with working(store, Kind(), lease_seconds=60):
            await until_done(store, well, broken)
        assert len(failures) == 3

    async def test_a_brain_that_fails_on_an_outcome_keeps_the_outcome(self, store, monkeypatch):
        monkeypatch.setattr("forge.engine.tending.FIRST_PAUSE_SECONDS", 30.0)

        class Failing(Kind):
            def decide(self, state, observation, commands, outcomes, now):
                if outcomes:
                    raise RuntimeError("cannot take this")
                return super().decide(state, observation, commands, outcomes, now)

        machine = await create(store, "a")
        async with working(store, Failing()):

            async def finished() -> bool:
                return [i.state for i in await store.intents.of(machine)] == ["finished"]

            await until(finished)
        kind = Kind()
        async with working(store, kind):
            await until_done(store, machine)
        assert kind.performed == []

    async def test_a_database_that_fails_now_and_then_loses_and_repeats_nothing(self, store, monkeypatch):
        monkeypatch.setattr("forge.engine.tending.DATABASE_PAUSE_SECONDS", 0.02)
        monkeypatch.setattr("forge.engine.worker.RETRY_SECONDS", 0.02)

        class Flaky:
            """Fails every fourth call or so, before or after it did its work."""

            dice = random.Random(4)

            def __init__(self, part: Any) -> None:
                self._part = part

            def __getattr__(self, name: str) -> Any:
                method = getattr(self._part, name)

                async def call(*args: Any, **kwargs: Any) -> Any:
                    throw = Flaky.dice.random()
                    if throw < 0.12:
                        raise DependencyFailed("the database is away")
                    result = await method(*args, **kwargs)
                    if throw > 0.88:
                        raise DependencyFailed("the database went away in the middle")
                    return result

                return call

        machines = [await create(store, "a", "b", "once") for _ in range(5)]
        kind = Kind()

        class FlakyStore:
            machines, intents, inbox = Flaky(store.machines), Flaky(store.intents), Flaky(store.inbox)
            now, wait, mark = store.now, store.wait, store.mark

        async with working(FlakyStore(), kind):
            await until_done(store, *machines)
        for machine in machines:
            assert set((await state_of(store, machine)).results) == {"a", "b", "once"}
        assert sorted(kind.performed) == sorted(["a", "b", "once"] * 5)
        assert await store.machines.renew("nobody", 1) == set()


class TestStopping:
    async def test_what_is_under_way_is_cancelled_unrecorded_and_taken_up_at_once_by_the_next(self, store):
        first, second = Kind(), Kind()
        first.gates["long"] = asyncio.Event()
        machine = await create(store, "long", "short")
        async with working(store, first, lease_seconds=60):

            async def half() -> bool:
                return (await state_of(store, machine)).results == {"short": "succeeded"}

            await until(half)
        assert sorted(first.ended) == ["long", "short"]
        (intent,) = await store.intents.of(machine)
        assert (intent.action.key, intent.state) == ("long", "started")
        begin = time.monotonic()
        async with working(store, second, lease_seconds=60):
            await until_done(store, machine)
        assert time.monotonic() - begin < 5
        assert second.performed == ["long"]
        assert second.claims[0].token > first.claims[0].token

    async def test_an_action_that_may_not_be_repeated_is_reported_as_lost(self, store):
        first, second = Kind(), Kind()
        first.gates["once"] = asyncio.Event()
        machine = await create(store, "once")
        async with working(store, first):
            await until(lambda: first.performed == ["once"])
        async with working(store, second):
            await until_done(store, machine)
        assert second.performed == []
        assert (await state_of(store, machine)).results == {"once": "lost"}

    async def test_stopping_keeps_the_lease_while_an_action_cleans_up(self, store):
        class Slow(Kind):
            async def perform(self, action, state, claim):
                try:
                    return await super().perform(action, state, claim)
                except asyncio.CancelledError:
                    await asyncio.sleep(1.2)
                    self.ended.append("really")
                    raise

        first, second = Slow(), Kind()
        first.gates["a"] = asyncio.Event()
        machine = await create(store, "a")
        async with working(store, second, lease_seconds=0.5, only=("none",)):
            pass
        stop = asyncio.Event()
        ending = asyncio.create_task(Worker(store, [first], lease_seconds=0.5).run(stop))
        await until(lambda: first.performed == ["a"])
        stop.set()
        async with working(store, second, lease_seconds=0.5):
            await until(lambda: bool(second.performed))
            assert "really" in first.ended
            await until_done(store, machine)
        await ending

    async def test_a_cancelled_worker_gives_its_leases_back_too(self, store):
        kind = Kind()
        kind.gates["a"] = asyncio.Event()
        machine = await create(store, "a")
        task = asyncio.create_task(Worker(store, [kind], lease_seconds=60).run(asyncio.Event()))
        await until(lambda: kind.performed == ["a"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert kind.ended == ["a"]
        assert await store.machines.claim("next", ("run",), 1, 10)
        assert len(await store.intents.of(machine)) == 1

    async def test_no_task_outlives_the_worker(self, store):
        kind = Kind()
        kind.gates["a"] = asyncio.Event()
        await create(store, "a", "b")
        before = asyncio.all_tasks()
        async with working(store, kind):
            await until(lambda: "a" in kind.performed)
        left = {task for task in asyncio.all_tasks() - before if task.get_name() != "forge-listen"}
        assert left == set()


class TestLeases:
    async def test_a_long_action_keeps_its_machine_though_another_worker_waits(self, store, store_url):
        kind, other_kind = Kind(), Kind()
        kind.gates["a"] = asyncio.Event()
        machine = await create(store, "a")
        async with working(store, kind, lease_seconds=0.5), await open_store(store_url) as other:
            await until(lambda: kind.performed == ["a"])
            async with working(other, other_kind, lease_seconds=0.5):
                await asyncio.sleep(1.2)
                kind.gates["a"].set()
                await until_done(store, machine)
        assert (kind.performed, other_kind.performed) == (["a"], [])

    async def test_a_lost_lease_stops_the_action_and_records_nothing(self, store):
        kind = Kind()
        kind.gates["a"] = asyncio.Event()
        machine = await create(store, "a")
        async with working(store, kind, lease_seconds=0.6, max_machines=1) as worker:
            await until(lambda: kind.performed == ["a"])
            # Somebody else holds it now: as after an expired lease.
            await store.machines.let_go_all(worker.id)
            (stolen,) = await store.machines.claim("thief", ("run",), 1, 60)
            await until(lambda: kind.ended == ["a"])
            (intent,) = await store.intents.of(machine)
            assert intent.outcome is None
            await store.machines.write(stolen, Write(status="mine", head=b"{}"))
        assert (await store.machines.load(machine)).status == "mine"

    @pytest.mark.parametrize("again", [1, 3])
    async def test_a_worker_that_stood_still_for_longer_than_its_lease_goes_on_alone(self, store, again):
        """As a machine that was asleep, or busy: nobody else is there who would take the machines over."""

        class Slow(Kind):
            stood_still = 0

            def decide(self, state, observation, commands, outcomes, now):
                if self.stood_still < again:
                    self.stood_still += 1
                    time.sleep(0.5)  # the whole process stands still, heartbeat and all
                return super().decide(state, observation, commands, outcomes, now)

        machine = await create(store, "a")
        async with working(store, Slow(), lease_seconds=0.3):
            await until_done(store, machine)
        assert (await state_of(store, machine)).results == {"a": "succeeded"}

    async def test_an_action_that_takes_long_to_stop_does_not_meet_its_successor(self, store):
        class Slow(Kind):
            together = 0
            most = 0

            async def perform(self, action, state, claim):
                self.together += 1
                self.most = max(self.most, self.together)
                try:
                    return await super().perform(action, state, claim)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.7)
                    raise
                finally:
                    self.together -= 1

        kind = Slow()
        kind.gates["a"] = asyncio.Event()
        machine = await create(store, "a")
        async with working(store, kind, lease_seconds=0.6) as worker:
            await until(lambda: kind.performed == ["a"])
            worker._give_up_all()  # as after the database was away for longer than the lease
            kind.gates.clear()
            await until_done(store, machine)
        assert kind.performed == ["a", "a"]
        assert kind.most == 1

    async def test_its_own_newer_claim_ends_what_a_worker_began_under_the_older(self, store):
        kind = Kind()
        kind.gates["a"] = asyncio.Event()
        machine = await create(store, "a")
        async with working(store, kind, lease_seconds=60) as worker:
            await until(lambda: kind.performed == ["a"])
            kind.gates.clear()
            await store.machines.let_go_all(worker.id)
            await until_done(store, machine)
        assert kind.performed == ["a", "a"]
        assert kind.ended == ["a", "a"]
        assert kind.claims[0].token < kind.claims[1].token

    async def test_a_worker_cut_off_from_the_database_gives_up_within_its_lease(self, store):
        kind = Kind()
        kind.gates["a"] = asyncio.Event()
        machine = await create(store, "a")

        class CutOff(Counting):
            away = False

            def __getattr__(self, name: str) -> Any:
                if self.away:
                    return self._fail
                return super().__getattr__(name)

            async def _fail(self, *_args: Any, **_kwargs: Any) -> None:
                raise DependencyFailed("the network is down")

        original = store.machines
        store.machines = CutOff(original)
        async with working(store, kind, lease_seconds=0.9) as worker:
            await until(lambda: kind.performed == ["a"])
            first = worker.id
            CutOff.away = True
            begin = time.monotonic()
            await until(lambda: kind.ended == ["a"])
            assert time.monotonic() - begin < 0.9 + 0.5
            (intent,) = await store.intents.of(machine)
            assert intent.outcome is None
            kind.gates.clear()
            CutOff.away = False
            await until_done(store, machine)
            assert worker.id != first
        store.machines = original
        assert kind.performed == ["a", "a"]

    async def test_an_expired_workers_work_is_taken_over_within_the_lease(self, store):
        machine = await create(store, "a", "once", "stopping")
        (dead,) = await store.machines.claim("dead", ("run",), 1, 1.0)
        actions = tuple(Kind().action(key) for key in ("a", "once", "stopping"))
        head = msgspec.json.encode(State(todo=("a", "once", "stopping"), asked=("a", "once", "stopping")))
        await store.machines.write(dead, Write(status="running", head=head, actions=actions, start=True))
        await store.machines.write(dead, Write(status="running", head=head, cancel=("stopping",)))
        kind = Kind()
        begin = time.monotonic()
        async with working(store, kind, lease_seconds=1.0):
            await until_done(store, machine)
        assert 0.5 < time.monotonic() - begin < 4
        assert kind.performed == ["a"]
        results = (await state_of(store, machine)).results
        assert results == {"a": "succeeded", "once": "lost", "stopping": "cancelled"}

    async def test_what_was_written_but_not_begun_is_performed_even_if_it_may_not_be_repeated(self, store):
        machine = await create(store, "once")
        (dead,) = await store.machines.claim("dead", ("run",), 1, 0.2)
        head = msgspec.json.encode(State(todo=("once",), asked=("once",)))
        await store.machines.write(dead, Write(status="running", head=head, actions=(Kind().action("once"),)))
        kind = Kind()
        async with working(store, kind):
            await until_done(store, machine)
        assert kind.performed == ["once"]

    async def test_a_jump_of_the_wall_clock_changes_nothing(self, store, monkeypatch):
        class Waking(Kind):
            times: list[float] = []

            def decide(self, state, observation, commands, outcomes, now):
                self.times.append(now)
                decision = super().decide(state, observation, commands, outcomes, now)
                return msgspec.structs.replace(decision, wake_at=now + 0.05)

        kind = Waking()
        kind.gates["a"] = asyncio.Event()
        machine = await create(store, "a")
        real = time.time
        async with working(store, kind, lease_seconds=0.5):
            for jump in (3600.0, -7200.0, 1e9):
                monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
                seen = len(kind.times)
                await asyncio.sleep(0.2)
                assert len(kind.times) > seen
            monkeypatch.undo()
            assert kind.ended == []
            kind.gates["a"].set()
            await until_done(store, machine)
        assert max(kind.times) - min(kind.times) < 60
        assert kind.performed == ["a"]

    async def test_a_free_place_is_not_forgotten_while_the_machine_is_being_given_back(self, store):
        """The news reach the worker just when it has nothing more to do with the machine."""

        class Asking(Kind):
            async def observe(self, state, now):
                return await store.slots.ask("g", f"{machine}/job", 1)

            def decide(self, state, observation, commands, outcomes, now):
                return Decision(msgspec.structs.replace(state, todo=()) if observation == 0 else state)

        class Slow(Counting):
            """Gives the place free, and lets the worker hear of it, in the middle of `let_go`."""

            def __getattr__(self, name: str) -> Any:
                return self._let_go if name == "let_go" else super().__getattr__(name)

            async def _let_go(self, claim: Claim) -> None:
                await store.slots.free("g", "other/job")
                await asyncio.sleep(0.2)
                await self._part.let_go(claim)

        await store.slots.ask("g", "other/job", 1)
        machine = await create(store, "never")
        store.machines = Slow(store.machines)
        async with working(store, Asking()):
            await until_done(store, machine)

    async def test_every_start_has_its_own_id(self, store):
        assert len({Worker(store, [Kind()], name="same").id for _ in range(10)}) == 10
