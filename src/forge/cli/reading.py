"""Reading the logs of a run: those that are there, and those that come."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from forge.cli.options import pick
from forge.cli.render.progress import LogLine, log_line
from forge.cli.subjects import RunSubject
from forge.cli.tail import LogTail, Read, last_lines
from forge.model.errors import ExitCode
from forge.service.base import LogPart

if TYPE_CHECKING:
    from forge.cli.session import Session
    from forge.service.base import Service
    from forge.views.run import JobView, RunView, StepView

FOLLOW_EVERY = 0.2
PIECE = 1024 * 1024


def reader(service: Service, run: str, job: str, attempt: int, step: str) -> Read:
    """Return what reads a step's log."""

    async def read(offset: int, limit: int) -> LogPart:
        return await service.runs.log(run, job, attempt, step, offset=offset, limit=limit)

    return read


async def print_logs(
    service: Service, session: Session, run: str, *, job: str, step: str, follow: bool, tail: int
) -> int:
    """Print logs to stdout, each line with its `[job/step]` unless one step was asked for.

    With `follow`, goes on until the run is over or nothing can go on without a person.
    """
    subject = RunSubject(service, run)
    view = await subject.look()
    check_choice(view, job, step)
    tails: dict[tuple[str, int, str], LogTail] = {}
    read: set[tuple[str, int, str]] = set()
    while True:
        settled = await subject.settled(view)
        for one, its_step in chosen_steps(view, job, step):
            key = (one.name, one.attempt, its_step.id)
            if key in read or its_step.state == "pending":
                continue
            if key not in tails:
                tails[key] = LogTail(reader(service, run, *key))
                if tail:
                    texts, tails[key].offset = await last_lines(tails[key].read, tail)
                    _print_all(session, run, key, texts, bare=bool(step))
            ended = settled or its_step.finished_at is not None
            while (texts := await tails[key].lines(at_most=PIECE, ended=ended)) or tails[key].backlog:
                _print_all(session, run, key, texts, bare=bool(step))
            if its_step.finished_at is not None:
                read.add(key)
        sys.stdout.flush()
        if settled or not follow:
            return ExitCode.SUCCEEDED
        await asyncio.sleep(FOLLOW_EVERY)
        view = await subject.look()


def check_choice(view: RunView, job: str, step: str) -> None:
    """Raise UsageError, with a suggestion, for a job or a step that the run has not."""
    if job:
        pick(job, [one.name for one in view.jobs], f"job in {view.id}:")
    if step:
        known = next(one for one in view.jobs if one.name == job)
        pick(step, [one.id for one in known.steps], f"step in {job}:")


def chosen_steps(view: RunView, job: str, step: str) -> list[tuple[JobView, StepView]]:
    """Return the steps to show, in the order of the plan; those that never began have no log."""
    return [
        (one, its_step)
        for one in view.jobs
        for its_step in one.steps
        if (not job or one.name == job) and (not step or its_step.id == step) and one.attempt > 0
    ]


def _print_all(session: Session, run: str, key: tuple[str, int, str], texts: list[str], *, bare: bool) -> None:
    job, _, step = key
    for text in texts:
        _print(session, LogLine(run, job, step, text), bare=bare)


def _print(session: Session, line: LogLine, *, bare: bool) -> None:
    text = log_line(line, session.out)
    if bare:
        text = log_line(LogLine("", "", "", line.text), session.out).split(" ", 1)[1]
    sys.stdout.write(text + "\n")
