"""The foreground: show what happens to runs and releases until they are settled, and work on them here if need be."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from forge.cli.gates import Gatekeeper
from forge.cli.pace import pace_of
from forge.cli.reading import reader
from forge.cli.render.progress import Changes, Happening, LogLine, Progress, View
from forge.cli.subjects import EnvironmentSubject, Subject, worst
from forge.cli.tail import LogTail
from forge.cli.workforce import Workforce
from forge.model.errors import ExitCode
from forge.views.run import RunView

if TYPE_CHECKING:
    from forge.service.base import Service
    from forge.store.contract import StoredEvent


def workforce_of(service: Service, subjects: Sequence[Subject], *, everything: bool) -> Workforce | None:
    """Return who works on the subjects in this process; None: the workers of a server do."""
    from forge.service.local import LocalService

    return Workforce(service.engine, subjects, everything=everything) if isinstance(service, LocalService) else None


class Foreground:
    """Watches subjects, and works on those of a project at hand unless `work` is False."""

    def __init__(
        self,
        service: Service,
        subjects: Sequence[Subject],
        progress: Progress,
        *,
        gatekeeper: Gatekeeper | None = None,
        logs: bool = True,
        everything: bool = False,
    ) -> None:
        self.service = service
        self.subjects = list(subjects)
        self.progress = progress
        self.gatekeeper = gatekeeper
        self.logs = logs
        self.views: dict[str, View] = {}
        self._after: dict[str, int] = {}
        self._tails: dict[tuple[str, str, int, str], LogTail] = {}
        self._drained: set[tuple[str, str, int, str]] = set()
        self._beside: dict[str, EnvironmentSubject] = {}
        """The environments that the runs release to: shown beside them, but not waited for."""
        self._workforce = workforce_of(service, self.subjects, everything=everything)
        self._pace = pace_of(service)
        self._stop = asyncio.Event()
        self._signal = 0

    async def carry_on(self, *, work: bool = True, timeout: float | None = None) -> int:
        """Work and watch until every subject is settled; return the exit code of what became of them.

        A timeout returns STILL_RUNNING, Ctrl-C (and TERM, HUP) INTERRUPTED; the state on disk is whole in every case.
        """
        with self._signals():
            try:
                settled = await self._watch(timeout, work=work)
                if settled and work and self._workforce is not None:
                    await self._workforce.tell_the_rest(self._stop)
            finally:
                self._stop.set()
                if self._workforce is not None:
                    await self._workforce.dismiss()
                await self._pace.close()
            if self._signal:
                return ExitCode.INTERRUPTED
            if not settled:
                return ExitCode.STILL_RUNNING
            return worst(subject.exit_code(self.views[subject.name]) for subject in self.subjects)

    async def _watch(self, timeout: float | None, *, work: bool) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        settled = False
        try:
            await self._begin()
            while not self._stop.is_set():
                if work and self._workforce is not None:
                    await self._workforce.employ()
                if work:
                    await self._look_beside()
                began = time.monotonic()
                settled = await self._look()
                if settled:
                    return True
                if deadline is not None and began > deadline:
                    return False
                await self._pace.rest(self._stop, looked=time.monotonic() - began, busy=self._busy())
            return False
        finally:
            await asyncio.to_thread(self.progress.close, settled=settled)

    async def _begin(self) -> None:
        """Take what was there before as known: steps that were over have shown their logs to somebody."""
        for subject in self.subjects:
            before = await subject.before()
            for job in before.run.jobs if before.run is not None else ():
                over = (step.id for step in job.steps if step.finished_at is not None)
                self._drained.update((subject.name, job.name, job.attempt, step) for step in over)
            self._after[subject.name] = before.event
        self._pace.begin(min(self._after.values(), default=0))

    async def _look_beside(self) -> None:
        """Watch the environments of the runs too, from when something is released to them."""
        own = {subject.name for subject in self.subjects}
        for subject in self.subjects:
            for name in await subject.environments():
                if name not in own and name not in self._beside:
                    self._after[name] = await self.service.records.last()
                    self._beside[name] = EnvironmentSubject(self.service, name)

    def _busy(self) -> bool:
        """Tell whether a step may be writing a log, of which no event tells."""
        runs = (view for view in self.views.values() if isinstance(view, RunView))
        return self.logs and any(job.current_step is not None for view in runs for job in view.jobs)

    async def _look(self) -> bool:
        """Look at everything once, show it, attend to gates; return whether all is settled."""
        changed: list[View] = []
        settled = True
        for subject in self.subjects:
            # Asked before looking: a command that is taken in between the two is not yet to be seen in the look.
            told = bool(await self.service.records.waiting(subject.name))
            view = await subject.look()
            if self.views.get(subject.name) != view:
                self.views[subject.name] = view
                changed.append(view)
            settled &= not told and await subject.settled(view)
        beside = tuple([await subject.look() for subject in self._beside.values()])
        events = [event for machine in self._after for event in await self._events(machine)]
        lines = await self._new_lines(final=False)
        await asyncio.to_thread(self.progress.show, Changes(tuple(changed), tuple(events), tuple(lines), beside))
        while settled and (rest := await self._new_lines(final=True)):
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
        subject = next(subject for subject in self.subjects if subject.name == view.id)
        now = await subject.look()
        return isinstance(now, RunView) and not {job.name for job in view.waiting_jobs()} <= {
            job.name for job in now.waiting_jobs()
        }

    async def _events(self, machine: str) -> list[Happening]:
        stored: list[StoredEvent] = []
        while page := await self.service.records.events(machine, after=self._after[machine]):
            self._after[machine] = page[-1].seq
            stored += page
        return [Happening(one.machine, one.at, one.event.kind, one.event.message, one.event.data) for one in stored]

    async def _new_lines(self, *, final: bool) -> list[LogLine]:
        if not self.logs:
            return []
        lines: list[LogLine] = []
        for view in self.views.values():
            if isinstance(view, RunView):
                lines += [line async for line in self._lines_of_run(view, final=final)]
        return lines

    async def _lines_of_run(self, view: RunView, *, final: bool) -> AsyncIterator[LogLine]:
        for job in view.jobs:
            for step in job.steps:
                key = (view.id, job.name, job.attempt, step.id)
                if step.state == "pending" or key in self._drained:
                    continue
                if key not in self._tails:
                    self._tails[key] = LogTail(reader(self.service, *key))
                tail = self._tails[key]
                ended = final or step.state not in {"running", "retrying"}
                for text in await tail.lines(ended=ended):
                    yield LogLine(view.id, job.name, step.id, text)
                if ended and step.state not in {"running", "retrying"} and tail.backlog == 0:
                    self._drained.add(key)
                    del self._tails[key]

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
