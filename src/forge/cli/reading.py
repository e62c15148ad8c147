"""Reading the logs of a run: those that are there, and those that come."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from forge.cli.options import pick
from forge.cli.render.progress import LogLine, log_line
from forge.cli.subjects import RunSubject
from forge.cli.tail import LogTail, last_lines
from forge.model.errors import ExitCode

if TYPE_CHECKING:
    from forge.cli.session import Session
    from forge.engine.engine import Engine
    from forge.views.run import JobView, RunView, StepView

FOLLOW_EVERY = 0.2


async def print_logs(
    engine: Engine, session: Session, run: str, *, job: str, step: str, follow: bool, tail: int
) -> int:
    """Print logs to stdout, each line with its `[job/step]` unless one step was asked for.

    With `follow`, goes on until the run is over or nothing can go on without a person.
    """
    subject = RunSubject(engine, run)
    view = await subject.look()
    check_choice(view, job, step)
    tails: dict[tuple[str, int, str], LogTail] = {}
    while True:
        settled = await subject.settled(view)
        for one, its_step in chosen_steps(view, job, step):
            key = (one.name, one.attempt, its_step.id)
            if key not in tails:
                path = engine.project.step_log(run, *key)
                tails[key] = LogTail(path)
                if tail:
                    for text in last_lines(path, tail):
                        _print(session, LogLine(run, one.name, its_step.id, text), bare=bool(step))
                    tails[key].offset = path.stat().st_size if path.exists() else 0
            while lines := tails[key].lines(ended=settled or its_step.finished_at is not None):
                for text in lines:
                    _print(session, LogLine(run, one.name, its_step.id, text), bare=bool(step))
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


def _print(session: Session, line: LogLine, *, bare: bool) -> None:
    text = log_line(line, session.out)
    if bare:
        text = log_line(LogLine("", "", "", line.text), session.out).split(" ", 1)[1]
    sys.stdout.write(text + "\n")
