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
from forge.core.pipeline.state import JOB_FINAL
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
    beside: tuple[EnvironmentView, ...] = ()
    """The environments that the runs release to."""


WARNINGS = {"engine_error", "command_refused", "command_without_effect"}
"""Kinds of events that a person must see, wherever they come from."""


class Progress(Protocol):
    """A way of showing."""

    def show(self, changes: Changes) -> None:
        """Show what is new."""

    def note(self, text: str) -> None:
        """Show words of Forge's own."""

    def aside(self) -> AbstractContextManager[None]:
        """A context in which the terminal belongs to somebody else, for a question."""

    def close(self, *, settled: bool = False) -> None:
        """Leave the terminal as it was. `settled`: the end was reached, and its result will be printed."""


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

    def close(self, *, settled: bool = False) -> None:
        """Nothing."""


class JsonLines(Quiet):
    """JSON lines with a `type` each: `run`, `environment`, `event`, `log`, `note`. For programs."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._written: dict[str, object] = {}

    def show(self, changes: Changes) -> None:
        """Write one line for each change; that time passes is none."""
        for event in changes.events:
            self._write("event", event)
        for line in changes.lines:
            self._write("log", line)
        for view in (*changes.views, *changes.beside):
            kind, name = ("run", view.id) if isinstance(view, RunView) else ("environment", view.name)
            timeless = _without_durations(msgspec.to_builtins(view))
            if self._written.get(name) != timeless:
                self._written[name] = timeless
                self._write(kind, view)
        self.stream.flush()

    def note(self, text: str) -> None:
        """Write a note."""
        self._write("note", {"text": text})
        self.stream.flush()

    def _write(self, kind: str, value: object) -> None:
        self.stream.write(json.dumps({"type": kind, **msgspec.to_builtins(value)}, ensure_ascii=False) + "\n")


def _without_durations(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_durations(inner) for name, inner in value.items() if name != "duration"}
    return [_without_durations(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def warnings(changes: Changes, paint: Paint) -> list[str]:
    """Return the events that a person must see, in words."""
    return [
        f"{paint.yellow('⚠')} {event.machine}: {strip_ansi(event.message)}"
        for event in changes.events
        if event.kind in WARNINGS
    ]


class Plain(Quiet):
    """`[job/step] line` for each line of a log, `[job] state` for each change of a job or a release."""

    def __init__(self, stream: TextIO, paint: Paint) -> None:
        self.stream = stream
        self.paint = paint
        self._told: dict[tuple[str, str], str] = {}
        self._views: dict[str, View] = {}

    def show(self, changes: Changes) -> None:
        """Write what changed, job by job: its beginning, its lines, its end."""
        for view in changes.views:
            self._views[view.id if isinstance(view, RunView) else view.name] = view
        lines: dict[tuple[str, str], list[LogLine]] = {}
        for line in changes.lines:
            lines.setdefault((line.run, line.job), []).append(line)
        for text in warnings(changes, self.paint):
            self.stream.write(text + "\n")
        for view in self._views.values():
            texts = self._of_run(view, lines) if isinstance(view, RunView) else self._of_environment(view)
            for text in texts:
                self.stream.write(text + "\n")
        self.stream.flush()

    def note(self, text: str) -> None:
        """Write a line."""
        self.stream.write(text + "\n")
        self.stream.flush()

    def _of_run(self, view: RunView, lines: dict[tuple[str, str], list[LogLine]]) -> Iterator[str]:
        many = len(self._views) > 1
        known = any(run == view.id for run, _ in self._told)
        for job in view.jobs:
            text = f"{self._label(view, job)} {self.paint.icon(job.state)} {_job_words(job, self.paint)}"
            mark = f"{job.state} {job.attempt} {job.waits_for}"
            begins = job.state in {"running", "queued", "retrying"}
            told = self._told.setdefault((view.id, job.name), mark if not known and job.state in JOB_FINAL else "")
            if begins and told != mark:
                yield text
            for line in lines.get((view.id, job.name), ()):
                yield log_line(line, self.paint, many=many)
            if not begins and job.state != "pending" and told != mark:
                yield text
            self._told[view.id, job.name] = mark
        mark = "" if view.state in {"queued", "running"} else view.state
        if mark and self._told.get((view.id, "")) != mark:
            explained = any(job.message and job.message in view.message for job in view.jobs)
            message = f": {view.message}" if view.message and not explained else ""
            yield f"{self.paint.bold(view.id)} {self.paint.state(view.state)}{message}"
        self._told[view.id, ""] = mark

    def _label(self, view: RunView, job: JobView) -> str:
        prefix = f"{view.id}/" if len(self._views) > 1 else ""
        return self.paint.bold(f"[{prefix}{job.name}]")

    def _of_environment(self, view: EnvironmentView) -> Iterator[str]:
        known = any(name == view.name for name, _ in self._told)
        for release in reversed(view.releases):
            text = release_line(release, self.paint)
            told = self._told.get((view.name, release.id))
            self._told[view.name, release.id] = text
            if told != text and (known or not release.final):
                yield text
        self._told[view.name, ""] = view.state


def _job_words(job: JobView, paint: Paint) -> str:
    return "running" if job.state == "running" and job.attempt <= 1 else job_info(job, paint)


def release_line(release: ReleaseView, paint: Paint) -> str:
    """Return a release in one line that changes only when something of it changed."""
    parts = [f"{paint.bold(release.id)} {paint.state(release.state)}  {release.version}"]
    if not release.final:
        parts += [release.progress and f"step {release.progress}", f"weight {format_weight(release.set_weight)}"]
        parts.append(release.waits_for and f"waits for {release.waits_for.removeprefix('waits for ')}")
    else:
        parts += [f"{release.requests} requests, {release.failed_requests} failed", release.reason]
    return "  ".join(part for part in parts if part)


def log_line(line: LogLine, paint: Paint, *, many: bool = False, limit: int = 0) -> str:
    """Return a log line with where it comes from; its own colours are kept where colours are wanted."""
    where = "/".join(part for part in (line.run if many else "", line.job, line.step) if part)
    last = line.text.rsplit("\r", 1)[-1]  # a progress bar draws over itself: what it drew last is what counts
    reset = "\x1b[0m" if "\x1b" in last else ""
    text = tame_ansi(last) + reset if paint.colour else strip_ansi(last)
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

        return LiveTree(stream, Paint(terminal.colour_err), result_follows=terminal.out_is_terminal)
    return Plain(stream, Paint(terminal.colour_err))
