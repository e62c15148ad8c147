"""One machine in a worker's hands, from the claim until the lease is given back or lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from forge.engine.machine import ELSEWHERE, Ending, MachineKind, Recording
from forge.model.decision import Action, Command, Decision, Event, Outcome
from forge.model.errors import DependencyFailed, ForgeError, StaleLease
from forge.store.clocks import steady
from forge.store.contract import Claim, Intent, Record, Store, Write

QUICK_LOOK_SECONDS = 0.02
"""An observation that takes longer does not hold back the recording of outcomes."""
DATABASE_PAUSE_SECONDS = 0.5
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
NO_PROGRESS_SECONDS = 0.05


class BrainFailed(Exception):
    """The kind's own code raised; its machine is tried again later, others are not concerned."""


class Tending:
    """Ticks one machine and performs its actions.

    `still_ours` says whether the lease can be relied on; `crowded` whether others wait for this machine's seat;
    a machine with nothing to do for more than `linger` seconds is given back. `after` is the end of an earlier
    tending of the same machine, whose actions may still be cleaning up."""

    def __init__(
        self,
        store: Store,
        kind: MachineKind,
        claim: Claim,
        *,
        still_ours: Callable[[], bool],
        crowded: Callable[[], bool],
        linger: float,
        after: asyncio.Task[None] | None = None,
    ) -> None:
        self.claim = claim
        self.task: asyncio.Task[None] | None = None
        self.leaving = False
        """It looks at no more news: whoever has some reminds the database of them."""
        self.left_behind = False
        """The database could not be told that the machine is given back."""
        self.lost = False
        """The lease could not be relied on any more; nothing was given back."""
        self._store = store
        self._kind = kind
        self._still_ours = still_ours
        self._crowded = crowded
        self._linger = linger
        self._after = after
        self._poke = asyncio.Event()
        self._stopping = False
        self._told = True
        self._record: Record | None = None
        self._state: Any = None
        self._wake_at: float | None = None
        self._parts: dict[str, bytes] = {}
        self._running: dict[str, asyncio.Task[Outcome]] = {}
        self._cancelled: set[str] = set()
        self._ending: set[str] = set()
        self._leftover: dict[str, Action] = {}
        self._fresh: list[Outcome] = []
        self._recorded: list[Outcome] = []
        self._failures = 0
        self._failure = ""
        self._seen_at = (0.0, 0.0)

    def tell(self) -> None:
        """Something waits for the machine in the database."""
        self._told = True
        self._poke.set()

    def give_up(self) -> None:
        """The lease is lost: stop what is under way and record nothing."""
        self.lost = True
        self._cancel_running()
        self._poke.set()

    def stop(self) -> None:
        """End in good order: what is under way is stopped and left for the next worker."""
        self._stopping = True
        self._poke.set()

    @property
    def _over(self) -> bool:
        return self.lost or self._stopping

    async def run(self) -> None:
        """Tend the machine until there is nothing to do for a while, or the lease is given up."""
        try:
            if self._after is not None:
                await asyncio.wait({self._after})
            await self._tend()
        except StaleLease:
            self.lost = True
        finally:
            await self._end_actions()
        self.lost = self.lost or not self._still_ours()
        if self.lost:
            return
        try:
            if self._fresh:
                await self._store.intents.finish_all(self.claim, tuple(self._fresh))
            if not self._stopping:  # else the worker gives back all at once
                await self._store.machines.let_go(self.claim)
        except DependencyFailed:
            self.left_behind = True

    async def _tend(self) -> None:
        while not self._over:
            if not self._still_ours():
                self.lost = True
                return
            try:
                pause = await self._turn()
            except StaleLease:
                raise
            except DependencyFailed:
                self._record = None  # what the database has now is not known
                pause = DATABASE_PAUSE_SECONDS
            except BrainFailed as failed:
                pause = await self._report(failed)
            except Exception as error:  # as of a row that cannot be read: others are not concerned
                pause = await self._report(BrainFailed(_words(error)))
            if pause is not None:
                await self._sleep(pause)
            elif not self._told:
                self.leaving = True
                return

    async def _turn(self) -> float | None:
        """Tick once; return how long to sleep, or None when the machine can be given back."""
        self._poke.clear()  # before anything can fail, or a database that is away is asked without a pause
        if self._record is None and not await self._load():
            return None
        told, self._told = self._told, False
        commands = tuple(await self._store.inbox.of(self.claim.machine)) if told else ()
        # News without words (a place became free) came after the outcomes at hand: it gets a tick of its own.
        again = told and not commands and bool(self._fresh or self._recorded)
        progressed = await self._tick(commands)
        self._told = self._told or again
        self._failures, self._failure = 0, ""
        if self._told or self._fresh:
            return 0.0
        now = self._now()
        sleep = float("inf") if self._wake_at is None else self._wake_at - now
        if not self._running and (sleep > self._linger or (sleep > 0 and self._crowded())):
            await self._note_wake()
            return None
        return max(sleep, 0.0 if progressed else NO_PROGRESS_SECONDS)

    async def _sleep(self, seconds: float) -> None:
        """Sleep until poked; after a failure, only the end is worth waking for."""
        end = steady() + seconds
        while not self._over and (left := end - steady()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if left == float("inf") else left):
                    await self._poke.wait()
                    if not self._failures:
                        return
                    self._poke.clear()

    async def _load(self) -> bool:
        """Read the machine and what is left of its intents; False if there is no such machine."""
        record = await self._store.machines.load(self.claim.machine)
        if record is None:
            return False
        intents = await self._store.intents.of(self.claim.machine)
        self._wake_at, self._parts, self._told = record.wake_at, dict(record.parts), True
        self._sort(intents, await self._look_at_clock())
        self._record = record
        try:
            self._state = self._kind.load(record)
        except Exception as error:
            self._state = None
            raise BrainFailed(f"its stored state cannot be read: {_words(error)}") from error
        return True

    def _sort(self, intents: list[Intent], now: float) -> None:
        """Tell apart what has an outcome, what runs here, and what a worker before us left behind."""
        unfinished = {intent.action.key for intent in intents if intent.outcome is None}
        self._recorded = [intent.outcome for intent in intents if intent.outcome is not None]
        self._fresh = [outcome for outcome in self._fresh if outcome.key in unfinished]
        known = {outcome.key for outcome in self._fresh} | self._running.keys()
        self._leftover = {}
        for intent in intents:
            key = intent.action.key
            if key not in unfinished or key in known:
                continue
            ours = (intent.worker, intent.token) == (self.claim.worker, self.claim.token)
            if intent.cancel:
                self._settle_left(intent.action, "cancelled", "its worker ended while it was being stopped", now)
            elif intent.state == "started" and not intent.action.rerun and not ours:
                self._settle_left(intent.action, "lost", "its worker ended while it was under way", now)
            else:
                self._leftover[key] = intent.action

    async def _tick(self, commands: tuple[Command, ...]) -> bool:
        """Observe, decide, write, act; return whether anything changed."""
        now = await self._look_at_clock()
        if self._state is None:
            raise BrainFailed(self._failure or "its stored state cannot be read")
        try:
            observation = await self._observe(now)
            fresh, recorded = tuple(self._fresh), tuple(self._recorded)
            outcomes = recorded + fresh
            decision = self._kind.decide(self._state, observation, commands, outcomes, now)
            status, head, parts = self._kind.dump(decision.state)
        except (DependencyFailed, asyncio.CancelledError) as error:
            if isinstance(error, StaleLease | asyncio.CancelledError):
                raise
            raise BrainFailed(_words(error)) from error
        except Exception as error:
            raise BrainFailed(_words(error)) from error
        if self._over or not self._still_ours():
            self.lost = self.lost or not self._stopping
            self._told = True
            return False
        record = self._on_record(observation, commands, outcomes, now, decision)
        write = Write(
            status=status,
            head=head,
            parts={name: value for name, value in parts.items() if self._parts.get(name) != value},
            actions=decision.actions,
            events=decision.events,
            consumed=tuple(command.id for command in commands),
            settled=tuple(outcome.key for outcome in recorded),
            outcomes=fresh,
            wake_at=decision.wake_at,
            cancel=tuple(key for key in decision.cancel if key not in self._cancelled),
            start=True,
            decision=record,
        )
        return await self._write(write, decision)

    def _on_record(
        self,
        observation: Any,
        commands: tuple[Command, ...],
        outcomes: tuple[Outcome, ...],
        now: float,
        decision: Decision[Any],
    ) -> bytes:
        """Return what goes into the chain of decisions: nothing is done that is not on record."""
        if not isinstance(self._kind, Recording):
            return b""
        try:
            return self._kind.record(self._state, observation, commands, outcomes, now, decision)
        except Exception as error:
            raise BrainFailed(f"the decision cannot be put on record: {_words(error)}") from error

    async def _write(self, write: Write, decision: Decision[Any]) -> bool:
        """Write the decision if it changes anything, then act on it."""
        new: tuple[str, ...] = ()
        changed = self._changes(write)
        if changed:
            new = await self._store.machines.write(self.claim, write)
            self._remember(write)
        self._state, self._wake_at = decision.state, decision.wake_at
        await self._act(decision, new)
        return changed

    def _changes(self, write: Write) -> bool:
        """Return whether a write is worth it. A later `wake_at` alone is not, while this worker keeps the machine:
        should it die, its machines are due at once anyway."""
        record = self._record
        return (
            record is None
            or (record.status, record.head) != (write.status, write.head)
            or bool(write.parts or write.actions or write.events or write.consumed)
            or bool(write.settled or write.outcomes or write.cancel or write.decision)
        )

    def _remember(self, write: Write) -> None:
        """Keep what the database has now."""
        if self._record is None:
            return
        self._record = Record(
            id=self._record.id,
            kind=self._record.kind,
            key=self._record.key,
            status=write.status,
            head=write.head,
            parts={},
            created_at=self._record.created_at,
            updated_at=self._record.updated_at,
            wake_at=write.wake_at,
        )
        self._parts |= write.parts
        told = set(write.settled) | {outcome.key for outcome in write.outcomes}
        self._recorded = [outcome for outcome in self._recorded if outcome.key not in told]
        self._fresh = [outcome for outcome in self._fresh if outcome.key not in told]

    async def _note_wake(self) -> None:
        """Before the machine is given back, put on disk when it is to wake."""
        if self._record is not None and self._record.wake_at != self._wake_at:
            write = Write(status=self._record.status, head=self._record.head, wake_at=self._wake_at)
            await self._store.machines.write(self.claim, write)

    async def _observe(self, now: float) -> Any:
        """Look at the world; if that takes long, record meanwhile what has finished."""
        looking = asyncio.ensure_future(self._kind.observe(self._state, now))
        try:
            if self._fresh:
                await asyncio.wait({looking}, timeout=QUICK_LOOK_SECONDS)
                if not looking.done():
                    await self._record_fresh()
            return await looking
        finally:
            looking.cancel()

    async def _record_fresh(self) -> None:
        """Put outcomes on disk before a tick takes them into account."""
        fresh, self._fresh = tuple(self._fresh), []
        try:
            await self._store.intents.finish_all(self.claim, fresh)
        except DependencyFailed:
            self._fresh = [*fresh, *self._fresh]
            raise
        self._recorded += fresh

    async def _act(self, decision: Decision[Any], new: tuple[str, ...]) -> None:
        """Perform the new actions and what was left behind; stop what is to be stopped."""
        leftover, self._leftover = self._leftover, {}
        for key, action in leftover.items():
            if key in decision.cancel:
                self._settle_left(action, "cancelled", "it was not under way any more", self._now())
            elif not self._over:
                await self._store.intents.start(self.claim, key)
                self._perform(action)
        for action in decision.actions:
            if action.key in new and not self._over:
                self._perform(action)
        for key in decision.cancel:
            if key in self._running and key not in self._cancelled | self._ending:
                self._cancelled.add(key)
                self._running[key].cancel()

    def _perform(self, action: Action) -> None:
        if not self._still_ours():
            self.lost = True
            return
        task = asyncio.create_task(self._perform_one(action, self._state), name=f"{self.claim.machine} {action.key}")
        self._running[action.key] = task
        task.add_done_callback(lambda done: self._performed(action.key, done))

    def _settle_left(self, action: Action, result: str, words: str, now: float) -> None:
        """Give an action that nobody performs any more its outcome; what of it goes on elsewhere is ended first."""
        outcome = Outcome(action.key, result, now, words)
        if not action.payload.get(ELSEWHERE) or not isinstance(self._kind, Ending):
            self._fresh.append(outcome)
            return
        ending = self._end_left(self._kind, action, outcome)
        task = asyncio.create_task(ending, name=f"{self.claim.machine} ends {action.key}")
        self._running[action.key] = task
        self._ending.add(action.key)  # it is being stopped: no decision has to tell it again
        task.add_done_callback(lambda done: self._performed(action.key, done))

    async def _end_left(self, kind: Ending, action: Action, outcome: Outcome) -> Outcome:
        try:
            await kind.end_left(action, self._state)
        except ForgeError as problem:  # the outcome stands; what could not be ended is told with it
            return replace(outcome, message=f"{outcome.message}; {problem.message}")
        return outcome

    async def _perform_one(self, action: Action, state: Any) -> Outcome:
        """Perform. Who is refused as stale though the database says that the machine is ours has met what another
        database worked on: giving up the lease would not help, so that is the action's outcome."""
        try:
            return await self._kind.perform(action, state, self.claim)
        except StaleLease as refused:
            try:
                ours = await self._store.machines.holds(self.claim)
            except DependencyFailed:
                ours = False
            if not ours:
                raise
            raise DependencyFailed(refused.message, hint=refused.hint) from refused

    def _performed(self, key: str, task: asyncio.Task[Outcome]) -> None:
        """Keep the outcome for the next tick. Cancelled by us for another reason than a decision: none."""
        self._running.pop(key, None)
        self._ending.discard(key)
        wanted = key in self._cancelled
        self._cancelled.discard(key)
        now = self._now()
        if task.cancelled():
            if not wanted or self.lost:
                return
            outcome = Outcome(key, "cancelled", now)
        elif (error := task.exception()) is not None:
            if isinstance(error, StaleLease):
                self.give_up()
                return
            outcome = Outcome(key, "error", now, _words(error))
        else:
            result = task.result()
            outcome = Outcome(key, result.result, result.at or now, result.message, result.data)
        if not self.lost and (wanted or not task.cancelling()):
            self._fresh.append(outcome)
            self._poke.set()

    def _cancel_running(self) -> None:
        for key, task in self._running.items():
            if key not in self._cancelled and not task.cancelling():
                task.cancel()

    async def _end_actions(self) -> None:
        """Stop everything that is under way and wait until it has really ended."""
        self._cancel_running()
        if self._running:
            await asyncio.wait(set(self._running.values()))
            await asyncio.sleep(0)  # let the callbacks of those tasks run

    async def _report(self, failed: BrainFailed) -> float:
        """Tell of a failure once, and return how long to wait before trying again."""
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**self._failures)
        self._failures += 1
        self._told = True  # the commands of this tick were not taken into account
        message = str(failed)
        record = self._record
        if record is None:
            return pause
        try:
            if self._fresh:
                await self._record_fresh()
            if message != self._failure:
                event = Event("engine_error", f"Forge could not decide what to do next: {message}", {"again_in": pause})
                write = Write(status=record.status, head=record.head, events=(event,), wake_at=self._now() + pause)
                await self._store.machines.write(self.claim, write)
                self._failure = message
        except StaleLease:
            raise
        except DependencyFailed:
            return max(pause, DATABASE_PAUSE_SECONDS)
        return pause

    async def _look_at_clock(self) -> float:
        """Return the database's time."""
        now = await self._store.now()
        self._seen_at = (now, steady())
        return now

    def _now(self) -> float:
        """Return the database's time as carried on from the last look."""
        now, seen = self._seen_at
        return now + steady() - seen


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
