"""The live tree: log lines scroll by above, the state of everything stands below, redrawn at most 5 times/s."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from forge.cli.render.paint import Paint, shorten, strip_ansi
from forge.cli.render.progress import Changes, LogLine, View, log_line, warnings
from forge.cli.render.tree import Node, draw, environment_tree, job_info, release_tree
from forge.model.units import format_duration
from forge.views.environment import EnvironmentView
from forge.views.run import JobView, RunView

REDRAW = 0.2
CALM = frozenset({"pending", "succeeded", "skipped", "blocked", "cancelled"})


class LiveTree:
    """Shows runs and environments on a terminal. Needs a terminal that can move the cursor."""

    def __init__(self, stream: TextIO, paint: Paint, *, result_follows: bool = False) -> None:
        """`result_follows`: the result is printed to the same terminal afterwards, so the tree need not stay."""
        self.paint = paint
        self.result_follows = result_follows
        self.console = Console(
            file=stream, force_terminal=True, no_color=not paint.colour, highlight=False, markup=False, soft_wrap=False
        )
        self.views: dict[str, View] = {}
        self.beside: tuple[EnvironmentView, ...] = ()
        self.last_lines: dict[tuple[str, str], LogLine] = {}
        self._live: Live | None = None
        self._drawn_at = 0.0

    def show(self, changes: Changes) -> None:
        """Let log lines scroll by, then redraw the tree when it is time."""
        for view in changes.views:
            self.views[view.id if isinstance(view, RunView) else view.name] = view
        self.beside = changes.beside
        live = self._live or self._start()
        for text in warnings(changes, self.paint):
            live.console.print(Text.from_ansi(text), soft_wrap=True)
        if changes.lines:
            many = len(self.views) > 1
            text = "\n".join(log_line(line, self.paint, many=many) for line in changes.lines)
            live.console.print(Text.from_ansi(text), soft_wrap=True)
            for line in changes.lines:
                self.last_lines[line.run, line.job] = line
        if changes.views and all(_settled(view) for view in self.views.values()):
            self._drawn_at = 0.0
        if time.monotonic() - self._drawn_at >= REDRAW:
            self._drawn_at = time.monotonic()
            live.update(self.picture(), refresh=True)

    def note(self, text: str) -> None:
        """Print a line above the tree."""
        if self._live is not None:
            self._live.console.print(Text.from_ansi(text), soft_wrap=True)
        else:
            self.console.print(Text.from_ansi(text), soft_wrap=True)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the tree away while somebody else writes."""
        self.close()
        yield

    def close(self, *, settled: bool = False) -> None:
        """Draw a last time and give the cursor back; the tree goes when its result takes its place."""
        if self._live is not None:
            self._live.transient = settled and self.result_follows
            self._live.update(self.picture(), refresh=True)
            self._live.stop()
            self._live = None

    def picture(self) -> Text:
        """Return the tree as it is now, cut to the terminal's size."""
        width, height = self.console.size
        lines: list[str] = []
        for view in self.views.values():
            lines += self._lines_of(view, max(6, (height - 2) // max(1, len(self.views))))
        for environment in self.beside:
            if environment.under_way:
                lines += ["", *release_tree(environment, self.paint)]
        shown = [shorten(line, width - 1) for line in lines[: max(3, height - 2)]]
        return Text.from_ansi("\n".join(shown))

    def _start(self) -> Live:
        self._live = Live(self.picture(), console=self.console, auto_refresh=False, vertical_overflow="crop")
        self._live.start(refresh=True)
        return self._live

    def _lines_of(self, view: View, room: int) -> list[str]:
        if isinstance(view, EnvironmentView):
            return environment_tree(view, self.paint)[:room]
        duration = format_duration(view.duration) if view.duration is not None else ""
        parts = [
            f"{self.paint.icon(view.state)} {self.paint.bold(view.id)}",
            view.pipeline,
            view.state.replace("_", " "),
        ]
        title = "  ".join(part for part in (*parts, duration) if part)
        return [title, *draw(self._job_nodes(view, room - 1))]

    def _job_nodes(self, view: RunView, room: int) -> list[Node]:
        """The jobs, each with its current step and last log line; calm ones are folded when there is no room."""
        busy = sum(1 + bool(job.current_step) + ((view.id, job.name) in self.last_lines) for job in view.jobs)
        fold = busy > room
        nodes = []
        for job in view.jobs:
            if fold and job.state in CALM:
                continue
            nodes.append(self._job_node(view, job))
        if fold:
            folded = Counter(job.state for job in view.jobs if job.state in CALM)
            nodes += [Node(f"{self.paint.icon(state)} {count} {state}") for state, count in sorted(folded.items())]
        return nodes

    def _job_node(self, view: RunView, job: JobView) -> Node:
        node = Node(f"{self.paint.icon(job.state)} {job.name}", job_info(job, self.paint))
        step = job.current_step
        if step is not None:
            name = shorten(strip_ansi(step.name.strip().split("\n", 1)[0]), 48)
            duration = format_duration(step.duration) if step.duration is not None else ""
            node.below.append(Node(f"{self.paint.icon(step.state)} {name}", duration))
            last = self.last_lines.get((view.id, job.name))
            if last is not None:
                node.below[-1].below.append(Node(self.paint.dim(strip_ansi(last.text))))
        return node


def _settled(view: View) -> bool:
    return view.final if isinstance(view, RunView) else not view.under_way
