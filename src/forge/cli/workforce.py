"""The work that a command does itself while it watches: in a project at hand nobody else may be there to do it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge.cli.subjects import Subject
    from forge.engine.engine import Engine

LOOK_EVERY = 0.1
TELLING = 3.0
"""Seconds at most that those who are told of releases may keep a settled process; the next worker tells the rest."""
SETTLE = 10.0
"""Seconds that a stopped worker may take to end what it does before this process stops waiting for it."""


class Workforce:
    """Workers in this process, one for each machine that belongs to what is watched, or one for `everything`."""

    def __init__(self, engine: Engine, subjects: Sequence[Subject], *, everything: bool = False) -> None:
        self.engine = engine
        self.subjects = subjects
        self.everything = everything
        self._machines: dict[str, str] = {}
        """Machines by name of run or environment, as far as they exist."""
        self._notifiers: dict[str, str | None] = {}
        """Machine of an environment -> the one that tells of it, once there is one."""
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()

    async def employ(self) -> None:
        """Have a worker for each machine that belongs to the subjects, or one for everything that is due.

        A run's environments come into being while it goes on; other people's unfinished runs are left alone.
        """
        wanted: set[str] = set()
        for subject in self.subjects:
            wanted.update(await self._found({subject.name, *await subject.environments()}))
        telling = {notifier for notifier in await self._telling(wanted) if notifier}
        for machine in {""} if self.everything else wanted | telling:
            if machine not in self._workers:
                only = (machine,) if machine else ()
                self._workers[machine] = asyncio.create_task(self.engine.work(self._stopping, only=only))
        for worker in self._workers.values():
            if worker.done():
                worker.result()

    async def tell_the_rest(self, stop: asyncio.Event) -> None:
        """Give those who are told a short chance to hear how it ended, while they answer."""
        from forge.engine.notifying import all_told

        notifiers = [notifier for notifier in await self._telling(set(self._notifiers)) if notifier]
        for notifier in notifiers:
            await self.engine.store.machines.remind(notifier)
        end = time.monotonic() + TELLING
        while notifiers and not stop.is_set() and time.monotonic() < end:
            notifiers = [notifier for notifier in notifiers if not await all_told(self.engine.store, notifier)]
            await asyncio.sleep(LOOK_EVERY if notifiers else 0)

    async def dismiss(self) -> None:
        """Let every worker end by itself, then make it end."""
        self._stop.set()
        for worker in self._workers.values():
            done, _ = await asyncio.wait({worker}, timeout=SETTLE)
            if not done:
                worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker

    async def _found(self, names: Iterable[str]) -> list[str]:
        from forge.service.locating import find_machine

        for name in names:
            if name not in self._machines:
                self._machines[name] = await find_machine(self.engine, name)
        return [self._machines[name] for name in names]

    async def _telling(self, machines: set[str]) -> list[str | None]:
        """Return the machines that tell of these environments; one comes into being with the first release."""
        from forge.engine.notifying import notifier_of

        for machine in machines:
            if machine.startswith("env-") and not self._notifiers.get(machine):
                self._notifiers[machine] = await notifier_of(self.engine.store, machine)
        return [*self._notifiers.values()]

    async def _stopping(self) -> bool:
        return self._stop.is_set()
