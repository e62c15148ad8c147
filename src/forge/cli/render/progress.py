"""One stream of changes, shown in one of four ways: a live tree, plain lines, JSON lines, or not at all.

A renderer is called from one thread at a time and may block (a pager that does not read): the work goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

import msgspec

from forge.cli.render.paint import Paint, shorten, strip_ansi, tame_ansi
from forge.cli.render.tree import job_info
from forge.model.units import format_weight
from forge.views.environment import EnvironmentView
from forge.views.release import ReleaseView
from forge.views.run import JobView, RunView

if TYPE_CHECKING:
    from forge.cli.terminal import Terminal

View = RunView | EnvironmentView


class LogLine(msgspec.Struct, frozen=True):
    """A line that a step wrote."""

    run: str
    job: str
    step: str
    text: str


class Happening(msgspec.Struct, frozen=True):
    """An event of the log."""

    machine: str
    at: float
    kind: str
    message: str
    data: dict[str, object] = {}


class Changes(msgspec.Struct, frozen=True):
    """What is new since the last call."""

    views: tuple[View, ...] = ()
    events: tuple[Happening, ...] = ()
    lines: tuple[LogLine, ...] = ()


class Progress(Protocol):
    """A way of showing."""

    def show(self, changes: Changes) -> None:
        """Show what is new."""

    def note(self, text: str) -> None:
        """Show words of Forge's own."""

    def aside(self) -> AbstractContextManager[None]:
        """A context in which the terminal belongs to somebody else, for a question."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Quiet:
    """Shows nothing."""

    def show(self, changes: Changes) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Nothing is in the way."""
        yield

    def close(self) -> None:
        """Nothing."""


class JsonLines(Quiet):
    """JSON lines with a `type` each: `run`, `environment`, `event`, `log`, `note`. For programs."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, changes: Changes) -> None:
        """Write one line for each change."""
        for event in changes.events:
            self._write("event", event)
        for line in changes.lines:
            self._write("log", line)
        for view in changes.views:
            self._write("run" if isinstance(view, RunView) else "environment", view)
        self.stream.flush()

    def note(self, text: str) -> None:
        """Write a note."""
        self._write("note", {"text": text})
        self.stream.flush()

    def _write(self, kind: str, value: object) -> None:
        self.stream.write(json.dumps({"type": kind, **msgspec.to_builtins(value)}, ensure_ascii=False) + "\n")


class Plain(Quiet):
    """`[job/step] line` for each line of a log, `[job] state` for each change of a job or a release."""

    def __init__(self, stream: TextIO, paint: Paint) -> None:
        self.stream = stream
        self.paint = paint
        self._told: dict[tuple[str, str], str] = {}
        self._machines: set[str] = set()

    def show(self, changes: Changes) -> None:
        """Write what changed. Log lines come before the end of their job, and after its beginning."""
        begun = [line for view in changes.views for line in self._changed(view, ends=False)]
        ended = [line for view in changes.views for line in self._changed(view, ends=True)]
        logged = [log_line(line, self.paint, many=len(self._machines) > 1) for line in changes.lines]
        for text in (*begun, *logged, *ended):
            self.stream.write(text + "\n")
        self.stream.flush()

    def note(self, text: str) -> None:
        """Write a line."""
        self.stream.write(text + "\n")
        self.stream.flush()

    def _changed(self, view: View, *, ends: bool) -> Iterator[str]:
        machine = view.id if isinstance(view, RunView) else view.name
        self._machines.add(machine)
        if isinstance(view, RunView):
            yield from self._run_changed(view, ends=ends)
        elif ends:
            for release in reversed(view.releases):
                yield from self._told_anew((machine, release.id), release_line(release, self.paint))

    def _run_changed(self, view: RunView, *, ends: bool) -> Iterator[str]:
        prefix = f"{view.id}/" if len(self._machines) > 1 else ""
        for job in view.jobs:
            under_way = job.state in {"running", "queued"}
            if job.state == "pending" or under_way == ends:
                continue
            mark = f"{job.state} {job.attempt} {job.waits_for}"
            text = (
                f"{self.paint.bold(f'[{prefix}{job.name}]')} {self.paint.icon(job.state)} {_job_words(job, self.paint)}"
            )
            yield from self._told_anew((view.id, job.name), text, mark)
        if ends and view.state not in {"queued", "running"}:
            text = f"{self.paint.bold(view.id)} {self.paint.state(view.state)}"
            yield from self._told_anew((view.id, ""), text + (f": {view.message}" if view.message else ""))

    def _told_anew(self, key: tuple[str, str], text: str, mark: str = "") -> Iterator[str]:
        if self._told.get(key) != (mark or text):
            self._told[key] = mark or text
            yield text


def _job_words(job: JobView, paint: Paint) -> str:
    return "running" if job.state == "running" and job.attempt <= 1 else job_info(job, paint)


def release_line(release: ReleaseView, paint: Paint) -> str:
    """Return a release in one line that changes only when something of it changed."""
    parts = [f"{paint.bold(release.id)} {paint.state(release.state)} {release.version}"]
    if not release.final:
        parts += [release.progress and f"step {release.progress}", f"weight {format_weight(release.set_weight)}"]
        parts.append(release.waits_for and f"waits for {release.waits_for.removeprefix('waits for ')}")
    else:
        parts += [f"{release.requests} requests, {release.failed_requests} failed", release.reason]
    return "  ".join(part for part in parts if part)


def log_line(line: LogLine, paint: Paint, *, many: bool = False, limit: int = 0) -> str:
    """Return a log line with where it comes from; its own colours are kept where colours are wanted."""
    where = "/".join(part for part in (line.run if many else "", line.job, line.step) if part)
    if not paint.colour:
        text = strip_ansi(line.text)
    else:
        text = tame_ansi(line.text) + ("\x1b[0m" if "\x1b" in line.text else "")
    shown = f"{paint.dim(f'[{where}]')} {text}"
    return shorten(shown, limit) if limit else shown


def progress_for(terminal: Terminal, stream: TextIO | None = None) -> Progress:
    """Return the renderer that the terminal asks for, writing to stderr."""
    stream = stream or sys.stderr
    if terminal.progress == "quiet":
        return Quiet()
    if terminal.progress == "json":
        return JsonLines(stream)
    if terminal.progress == "tty":
        from forge.cli.render.live import LiveTree

        return LiveTree(stream, Paint(terminal.colour_err))
    return Plain(stream, Paint(terminal.colour_err))
