"""The durable loop: claim what is due, decide, write, perform, record, sleep.

A worker holds a lease on each machine that it tends and prolongs all of them with one heartbeat. It trusts its lease
only for as long as its own steady clock says, counted from before the last heartbeat that was answered: a worker
that was stopped, or cut off from the database, gives everything up before anyone else can have taken it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Sequence

from forge.engine.machine import MachineKind
from forge.engine.tending import Tending
from forge.model.errors import DependencyFailed
from forge.store.clocks import steady
from forge.store.contract import Claim, Store

IDLE_SECONDS = 30.0
"""How long an idle worker sleeps at most; it is woken for everything that it should know."""
RETRY_SECONDS = 0.5
"""How long to wait when the database is away."""


class Worker:
    """Tends the machines of some kinds. Its id is new at each start, so nobody can mistake it for a dead one.

    `max_machines` is how many machines it holds at a time; others wait, or go to other workers."""

    def __init__(
        self,
        store: Store,
        kinds: Sequence[MachineKind],
        *,
        name: str = "",
        lease_seconds: float = 10.0,
        max_machines: int = 200,
    ) -> None:
        self._store = store
        self._kinds = {kind.kind: kind for kind in kinds}
        self._name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._lease_seconds = lease_seconds
        self._max_machines = max_machines
        self._tendings: dict[str, Tending] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Take a new id: what the old one held is given up and will be reaped."""
        self.id = f"{self._name}-{uuid.uuid4().hex[:12]}"
        self._lease_end = float("-inf")
        self._unsure = False

    async def run(self, stop: asyncio.Event, only: tuple[str, ...] = ()) -> None:
        """Work until `stop` is set, on the machines in `only` or on all.

        Then what is under way is cancelled without recording an outcome, and all leases are given back, so that
        another worker carries on at once."""
        heart = asyncio.create_task(self._heartbeat(), name=f"heartbeat of {self.id}")
        stopped = asyncio.create_task(stop.wait())
        self._stopping = False
        try:
            while not stop.is_set():
                await self._look(only, stopped)
        finally:
            stopped.cancel()
            self._stopping = True
            await self._let_go_of_all()
            heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await heart

    async def _look(self, only: tuple[str, ...], stopped: asyncio.Task[bool]) -> None:
        """Claim what is due, tell held machines what they were told, and sleep until there is more."""
        mark = self._store.mark()
        self._changed.clear()
        try:
            if self._unsure:
                await self._make_sure()
            await self._pass_on_news()
            await self._claim(only)
            pause = await self._pause(only)
        except DependencyFailed:
            self._unsure = True
            pause = RETRY_SECONDS
        if pause <= 0:
            await asyncio.sleep(0)
            return
        waits = {
            asyncio.create_task(self._wait_for_store(pause, mark)),
            asyncio.create_task(self._changed.wait()),
        }
        await asyncio.wait({*waits, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _wait_for_store(self, pause: float, mark: int) -> None:
        try:
            await self._store.wait(pause, since=mark)
        except DependencyFailed:
            await asyncio.sleep(min(pause, RETRY_SECONDS))

    async def _claim(self, only: tuple[str, ...]) -> None:
        """Lease what is due and begin to tend it."""
        room = self._max_machines - len(self._tendings)
        if room < 1:
            return
        before, worker = steady(), self.id
        claims = await self._store.machines.claim(worker, tuple(self._kinds), room, self._lease_seconds, only)
        if claims and worker == self.id:
            self._lease_end = max(self._lease_end, before + self._lease_seconds)
        for claim in claims:
            self._tend(claim)

    async def _pass_on_news(self) -> None:
        """Tell the machines that we hold what they were told."""
        for machine in await self._store.machines.told(self.id) if self._tendings else ():
            tending = self._tendings.get(machine)
            if tending is not None and not tending.leaving:
                tending.tell()
            else:
                await self._store.machines.remind(machine)

    async def _make_sure(self) -> None:
        """After a failure of the database: it may have leased us machines, or told us something, in an answer that
        never came. Give back whatever we do not know of, and let all others look."""
        await self._store.machines.let_go_all(self.id, tuple(self._tendings))
        for tending in self._tendings.values():
            tending.tell()
        self._unsure = False

    def _tend(self, claim: Claim) -> None:
        before = self._tendings.get(claim.machine)
        if before is not None:
            before.give_up()  # a newer claim, though our own, ends the one before
        tending = Tending(
            self._store,
            self._kinds[claim.kind],
            claim,
            still_ours=lambda: claim.worker == self.id and steady() < self._lease_end,
            crowded=lambda: len(self._tendings) >= self._max_machines,
            linger=self._lease_seconds,
            after=None if before is None else before.task,
        )
        self._tendings[claim.machine] = tending
        task = asyncio.create_task(tending.run(), name=f"tend {claim.machine}")
        tending.task = task

        def ended(_task: asyncio.Task[None]) -> None:
            if self._tendings.get(claim.machine) is tending:
                del self._tendings[claim.machine]
            # A lease that ran out while this process stood still is in the database still, under our name: nobody
            # else may be there to take the machine over.
            self._unsure = self._unsure or tending.left_behind or (tending.lost and claim.worker == self.id)
            self._changed.set()

        task.add_done_callback(ended)

    async def _pause(self, only: tuple[str, ...]) -> float:
        """Return for how long there is nothing to claim."""
        if len(self._tendings) >= self._max_machines:
            return IDLE_SECONDS
        due = await self._store.machines.next_due(self.id, tuple(self._kinds), only)
        return IDLE_SECONDS if due is None else min(IDLE_SECONDS, due)

    async def _heartbeat(self) -> None:
        """Prolong the leases every third of their length, and give up what was lost."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            if not self._tendings:
                continue
            if steady() >= self._lease_end:
                self._give_up_all()
                continue
            before, worker, known = steady(), self.id, dict(self._tendings)
            try:
                async with asyncio.timeout(max(0.0, self._lease_end - before)):
                    held = await self._store.machines.renew(worker, self._lease_seconds)
            except (DependencyFailed, TimeoutError):
                if steady() >= self._lease_end:
                    self._give_up_all()
                continue
            if worker == self.id:
                self._lease_end = before + self._lease_seconds
            for machine, tending in known.items():
                if machine not in held:
                    tending.give_up()

    def _give_up_all(self) -> None:
        """Stop everything without recording anything: another may have taken over."""
        for tending in self._tendings.values():
            tending.give_up()
        self._begin_anew()

    async def _let_go_of_all(self) -> None:
        """Stop everything that is under way, then give the leases back."""
        tendings = list(self._tendings.values())
        for tending in tendings:
            tending.stop()
        await asyncio.gather(*(tending.task for tending in tendings if tending.task), return_exceptions=True)
        with contextlib.suppress(DependencyFailed):
            await self._store.machines.let_go_all(self.id)
