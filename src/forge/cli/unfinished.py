"""What is unfinished in a project: runs that are not over, environments with a release under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.cli.subjects import EnvironmentSubject, RunSubject, Subject
from forge.core.pipeline.state import RUN_FINAL, RunStatus

if TYPE_CHECKING:
    from forge.engine.engine import Engine

NOT_OVER = tuple(status for status in RunStatus.__args__ if status not in RUN_FINAL)  # type: ignore[attr-defined]


async def unfinished(engine: Engine) -> list[Subject]:
    """Return what `forge resume` works on, oldest run first."""
    runs = await engine.store.machines.newest("run", statuses=NOT_OVER, limit=1000)
    subjects: list[Subject] = [RunSubject(engine, record.id) for record in reversed(runs)]
    for record in await engine.store.machines.newest("environment", limit=1000):
        subject = EnvironmentSubject(engine, record.id)
        if (await subject.look()).under_way:
            subjects.append(subject)
    return subjects
