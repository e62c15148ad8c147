"""Forks workers on request, so that tests can kill, stop and continue real processes cheaply.

Reads one JSON object a line: what a worker is to do. Answers `{"forked": pid}`, and `{"ended": pid, "status": n}`
when one is gone (a negative status is the signal that killed it).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from forge.engine.runs import patiently
from forge.engine.worker import Worker
from forge.model.decision import Action, Decision, Event, Outcome
from forge.model.errors import StaleLease
from forge.store.chain import Chain
from forge.store.contract import Claim, Record
from forge.store.database import DatabaseStore, open_store
from forge.store.statements import Statement


class State(msgspec.Struct, frozen=True):
    """A list of stages; the actions of a stage run together, after those of the stage before."""

    stages: tuple[tuple[str, ...], ...]
    group: str = ""
    asked: int = 0
    answered: int = 0
    again: bool = False
    place: int = -1
    results: dict[str, str] = {}
    greetings: tuple[str, ...] = ()


class Staged:
    """Takes a place in `group` first if there is one, performs the stages, gives the place back."""

    kind = "run"

    def __init__(self, store: DatabaseStore, world: Path, seconds: float) -> None:
        self.store = store
        self.world = world
        self.seconds = seconds

    def load(self, record: Record) -> State:
        return msgspec.json.decode(record.head, type=State)

    def dump(self, state: State) -> tuple[str, bytes, dict[str, bytes]]:
        return "done" if "free" in state.results else "running", msgspec.json.encode(state), {}

    async def observe(self, state: State, now: float) -> None:
        return None

    def decide(self, state: State, observation: Any, commands: Any, outcomes: Any, now: float) -> Decision[State]:
        results, place, answered = dict(state.results), state.place, state.answered
        for outcome in outcomes:
            if outcome.key.startswith("ask"):
                place = outcome.data["place"]
                answered += 1
            else:
                results[outcome.key] = outcome.result
        greetings = state.greetings + tuple(command.actor for command in commands)
        # Whoever is told while a question is on its way asks once more when it is answered: two questions at once
        # could take a place after it was given back.
        again = state.again or not outcomes
        state = msgspec.structs.replace(
            state, results=results, place=place, answered=answered, again=again, greetings=greetings
        )
        actions: tuple[Action, ...] = ()
        if state.group and place != 0:
            if again and answered == state.asked:
                state = msgspec.structs.replace(state, asked=state.asked + 1, again=False)
                actions = (Action(f"ask-{state.asked}", "ask"),)
            elif answered < state.asked:
                actions = (Action(f"ask-{state.asked}", "ask"),)
        else:
            stages = (*state.stages, ("free",))
            current = next((stage for stage in stages if not set(stage) <= results.keys()), ())
            actions = tuple(
                Action(key, "work", rerun=not key.startswith("once")) for key in current if key not in results
            )
        events = tuple(Event("outcome", outcome.key) for outcome in outcomes)
        return Decision(state, actions=actions, events=events)

    async def perform(self, action: Action, state: State, claim: Claim) -> Outcome:
        if action.kind == "ask":
            place = await patiently(partial(self.store.slots.ask, state.group, f"{claim.machine}/job", 1))
            return Outcome(action.key, "succeeded", 0.0, data={"place": place})
        if action.key == "free":
            await patiently(partial(self.store.slots.free, state.group, f"{claim.machine}/job"))
            return Outcome(action.key, "succeeded", 0.0)
        self.say("begin", action.key, claim)
        if action.key.startswith("exclusive"):
            await self.alone(state.group, claim)
        elif action.key.startswith("actuate"):
            await self.actuate(claim)
        else:
            await asyncio.sleep(self.seconds)
        self.say("end", action.key, claim)
        return Outcome(action.key, "succeeded", 0.0)

    def say(self, what: str, key: str, claim: Claim) -> None:
        """One line in the world, appended whole."""
        line = f"{what} {claim.machine} {key} {claim.token} {os.getpid()}\n".encode()
        descriptor = os.open(self.world / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line)
        os.close(descriptor)

    async def alone(self, group: str, claim: Claim) -> None:
        """Be alone in the group, or tell the world of the overlap."""
        door = self.world / f"door-{group}"
        try:
            os.close(os.open(door, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            self.say("overlap", group, claim)
            return
        await asyncio.sleep(self.seconds)
        door.unlink()

    async def actuate(self, claim: Claim) -> None:
        """Move something in the world again and again, which refuses a token older than one it has seen."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            with (self.world / "fence").open("a+") as fence:
                fcntl.flock(fence, fcntl.LOCK_EX)
                fence.seek(0)
                newest = int(fence.read() or 0)
                if claim.token < newest:
                    self.say("refused", "actuate", claim)
                    raise StaleLease("the actuator has seen a newer token")
                fence.truncate(0)
                fence.write(str(claim.token))
                fence.flush()
                self.say("moved", "actuate", claim)
            await asyncio.sleep(0.02)


def kill_at(store: DatabaseStore, number: int, phase: str) -> None:
    """Make the process kill itself at its n-th write: `before` it, in the `middle` of the transaction, or `after`."""
    database = store._database
    write = database.write
    count = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def counting(work: Any) -> Any:
        nonlocal count
        count += 1
        mine = count == number

        def in_the_middle(transaction: Any) -> Any:
            result = work(transaction)
            if mine and phase == "middle":
                die()
            return result

        if mine and phase == "before":
            die()
        result = await write(in_the_middle)
        if mine and phase == "after":
            die()
        return result

    database.write = counting


async def work(order: dict[str, Any]) -> None:
    """Work until every machine is done, or for ever."""
    store = await open_store(order["url"])
    if "kill" in order:
        kill_at(store, *order["kill"])
    kind = Staged(store, Path(order["world"]), order.get("seconds", 0.005))
    stop = asyncio.Event()
    worker = Worker(
        store, [kind], name="e2e", lease_seconds=order.get("lease", 0.5), max_machines=order.get("machines", 200)
    )
    working = asyncio.create_task(worker.run(stop))
    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stop.set))
    loop = asyncio.get_running_loop()
    while order.get("until_done") and not working.done() and not stop.is_set():
        if not await store.machines.newest("run", statuses=("queued", "running"), limit=1):
            stop.set()
        await asyncio.sleep(0.02)
    await working
    await store.close()


def child(order: dict[str, Any]) -> None:
    signal.alarm(100)  # whatever happens to the test, this process ends
    code = 1
    try:
        asyncio.run(work(order))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def prepare() -> None:
    """Compile every statement once, before forking: each worker would do it for itself otherwise."""
    import forge.store.postgresql  # noqa: F401

    for name, module in list(sys.modules.items()):
        if name.startswith("forge.store."):
            chains = [vars(value) for value in vars(module).values() if isinstance(value, Chain)]
            for statement in [value for room in (vars(module), *chains) for value in room.values()]:
                if isinstance(statement, Statement):
                    assert statement.sqlite
                    assert statement.postgresql
                    assert statement.constants is not None


def main() -> None:
    """Serve until the input ends, then take all children along."""
    prepare()
    children: set[int] = set()
    buffer = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.02)
        if readable:
            data = os.read(0, 65536)
            if not data:
                break
            buffer += data
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            pid = os.fork()
            if pid == 0:
                child(json.loads(line))
            children.add(pid)
            answer({"forked": pid})
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            children.discard(pid)
            answer({"ended": pid, "status": os.waitstatus_to_exitcode(status)})
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def answer(value: dict[str, int]) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    main()
