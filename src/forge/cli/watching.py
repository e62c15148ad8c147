"""The foreground: work on machines in this process, show what happens, and stop when they are settled."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from forge.cli.gates import Gatekeeper
from forge.cli.render.progress import Changes, Happening, LogLine, Progress, View
from forge.cli.subjects import EnvironmentSubject, Subject, worst
from forge.cli.tail import CHUNK, LogTail
from forge.model.errors import ExitCode
from forge.views.run import RunView

if TYPE_CHECKING:
    from forge.engine.engine import Engine

LOOK_EVERY = 0.1
TELLING = 3.0
"""Seconds at most that those who are told of releases may keep a settled process; the next worker tells the rest."""
SETTLE = 10.0
"""Seconds that a stopped worker may take to end what it does before this process stops waiting for it."""


class Foreground:
    """Watches subjects, and works on them unless `work` is False."""

    def __init__(
        self,
        engine: Engine,
        subjects: Sequence[Subject],
        progress: Progress,
        *,
        gatekeeper: Gatekeeper | None = None,
        logs: bool = True,
        everything: bool = False,
    ) -> None:
        self.engine = engine
        self.subjects = list(subjects)
        self.progress = progress
        self.gatekeeper = gatekeeper
        self.logs = logs
        self.everything = everything
        self.views: dict[str, View] = {}
        self._after: dict[str, int] = {}
        self._tails: dict[tuple[str, str, int, str], LogTail] = {}
        self._drained: set[tuple[str, str, int, str]] = set()
        self._beside: dict[str, EnvironmentSubject] = {}
        """The environments that the runs release to: shown beside them, but not waited for."""
        self._notifiers: dict[str, str | None] = {}
        """Machine of an environment -> the one that tells of it, once there is one."""
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()
        self._signal = 0

    async def carry_on(self, *, work: bool = True, timeout: float | None = None) -> int:
        """Work and watch until every subject is settled; return the exit code of what became of them.

        A timeout returns STILL_RUNNING, Ctrl-C (and TERM, HUP) INTERRUPTED; the state on disk is whole in every case.
        """
        with self._signals():
            try:
                settled = await self._watch(timeout, work=work)
                if settled and work:
                    await self._tell_the_rest()
            finally:
                self._stop.set()
                for worker in self._workers.values():
                    await self._end(worker)
            if self._signal:
                return ExitCode.INTERRUPTED
            if not settled:
                return ExitCode.STILL_RUNNING
            return worst(subject.exit_code(self.views[subject.machine]) for subject in self.subjects)

    async def _watch(self, timeout: float | None, *, work: bool) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        settled = False
        try:
            await self._begin()
            while not self._stop.is_set():
                if work:
                    await self._employ()
                began = time.monotonic()
                settled = await self._look()
                if settled:
                    return True
                if deadline is not None and began > deadline:
                    return False
                pause = max(LOOK_EVERY, 9 * (time.monotonic() - began))  # looking takes at most a tenth of the time
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)
            return False
        finally:
            await asyncio.to_thread(self.progress.close, settled=settled)

    async def _employ(self) -> None:
        """Have a worker for each machine that belongs to the subjects, or one for everything that is due.

        A run's environments come into being while it goes on; other people's unfinished runs are left alone.
        """
        wanted = {machine for subject in self.subjects for machine in await subject.machines()}
        telling = {notifier for notifier in await self._telling(wanted) if notifier}
        for machine in {""} if self.everything else wanted | telling:
            if machine not in self._workers:
                only = (machine,) if machine else ()
                self._workers[machine] = asyncio.create_task(self.engine.work(self._stopping, only=only))
        for worker in self._workers.values():
            if worker.done():
                worker.result()
        own = {subject.machine for subject in self.subjects}
        for machine in wanted - own - self._beside.keys():
            self._beside[machine] = EnvironmentSubject(self.engine, machine)
            self._after[machine] = await self._newest_event(machine)

    async def _telling(self, machines: set[str]) -> list[str | None]:
        """Return the machines that tell of these environments; one comes into being with the first release."""
        from forge.engine.notifying import notifier_of

        for machine in machines:
            if machine.startswith("env-") and not self._notifiers.get(machine):
                self._notifiers[machine] = await notifier_of(self.engine.store, machine)
        return [*self._notifiers.values()]

    async def _tell_the_rest(self) -> None:
        """Give those who are told a short chance to hear how it ended, while they answer."""
        from forge.engine.notifying import all_told

        notifiers = [notifier for notifier in await self._telling(set(self._notifiers)) if notifier]
        for notifier in notifiers:
            await self.engine.store.machines.remind(notifier)
        end = time.monotonic() + TELLING
        while notifiers and not self._stop.is_set() and time.monotonic() < end:
            notifiers = [notifier for notifier in notifiers if not await all_told(self.engine.store, notifier)]
            await asyncio.sleep(LOOK_EVERY if notifiers else 0)

    async def _begin(self) -> None:
        """Take what is there now as known: steps that are over already have shown their logs to somebody before."""
        for subject in self.subjects:
            view = await subject.look()
            for job in view.jobs if isinstance(view, RunView) else ():
                over = (step.id for step in job.steps if step.finished_at is not None)
                self._drained.update((subject.machine, job.name, job.attempt, step) for step in over)
            self._after[subject.machine] = await self._newest_event(subject.machine)

    async def _newest_event(self, machine: str) -> int:
        after = 0
        while events := await self.engine.store.log.read(machine, after=after):
            after = events[-1].seq
        return after

    async def _look(self) -> bool:
        """Look at everything once, show it, attend to gates; return whether all is settled."""
        changed: list[View] = []
        settled = True
        for subject in self.subjects:
            view = await subject.look()
            if self.views.get(subject.machine) != view:
                self.views[subject.machine] = view
                changed.append(view)
            settled &= await subject.settled(view)
        beside = tuple([await subject.look() for subject in self._beside.values()])
        events = [event for machine in self._after for event in await self._events(machine)]
        lines = self._new_lines(final=False)
        await asyncio.to_thread(self.progress.show, Changes(tuple(changed), tuple(events), tuple(lines), beside))
        while settled and (rest := self._new_lines(final=True)):
            await asyncio.to_thread(self.progress.show, Changes(lines=tuple(rest)))
        if self.gatekeeper is not None:
            for view in list(self.views.values()):
                if isinstance(view, RunView) and await self._attend(self.gatekeeper, view):
                    settled = False
        return settled

    async def _attend(self, gatekeeper: Gatekeeper, view: RunView) -> bool:
        """A question must not outlive Ctrl-C, nor a gate that somebody else opened."""
        asking = asyncio.create_task(gatekeeper.attend(view, self.progress))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            while True:
                done, _ = await asyncio.wait({asking, stopping}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
                if asking in done:
                    return asking.result()
                if stopping in done or await self._moved_on(view):
                    return True
        finally:
            for task in (asking, stopping):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _moved_on(self, view: RunView) -> bool:
        subject = next(subject for subject in self.subjects if subject.machine == view.id)
        now = await subject.look()
        return isinstance(now, RunView) and not {job.name for job in view.waiting_jobs()} <= {
            job.name for job in now.waiting_jobs()
        }

    async def _events(self, machine: str) -> list[Happening]:
        stored = await self.engine.store.log.read(machine, after=self._after[machine])
        if stored:
            self._after[machine] = stored[-1].seq
        return [Happening(one.machine, one.at, one.event.kind, one.event.message, one.event.data) for one in stored]

    def _new_lines(self, *, final: bool) -> list[LogLine]:
        if not self.logs:
            return []
        lines: list[LogLine] = []
        for view in self.views.values():
            if isinstance(view, RunView):
                lines += self._lines_of_run(view, final=final)
        return lines

    def _lines_of_run(self, view: RunView, *, final: bool) -> Iterator[LogLine]:
        for job in view.jobs:
            for step in job.steps:
                key = (view.id, job.name, job.attempt, step.id)
                if step.state == "pending" or key in self._drained:
                    continue
                if key not in self._tails:
                    self._tails[key] = LogTail(self.engine.project.step_log(*key))
                tail = self._tails[key]
                ended = final or step.state not in {"running", "retrying"}
                for text in tail.lines(at_most=CHUNK, ended=ended):
                    yield LogLine(view.id, job.name, step.id, text)
                if ended and step.state not in {"running", "retrying"} and tail.backlog() == 0:
                    self._drained.add(key)
                    del self._tails[key]

    async def _stopping(self) -> bool:
        return self._stop.is_set()

    async def _end(self, worker: asyncio.Task[None]) -> None:
        """Let the worker end by itself, then make it end."""
        done, _ = await asyncio.wait({worker}, timeout=SETTLE)
        if not done:
            worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in handled:
            loop.add_signal_handler(number, self._interrupt, number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _interrupt(self, number: int) -> None:
        if self._signal:
            sys.stderr.write("\x1b[?25h" if sys.stderr.isatty() else "")  # the cursor, hidden by the live tree
            sys.stderr.flush()
            os._exit(ExitCode.INTERRUPTED)
        self._signal = number
        self._stop.set()
