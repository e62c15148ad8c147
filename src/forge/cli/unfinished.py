"""What is unfinished in a project: runs that are not over, environments with a release under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.cli.subjects import EnvironmentSubject, RunSubject, Subject

if TYPE_CHECKING:
    from forge.engine.engine import Engine


async def unfinished(engine: Engine) -> list[Subject]:
    """Return what `forge resume` works on, oldest run first."""
    subjects: list[Subject] = [RunSubject(engine, run) for run in await engine.unfinished()]
    for record in await engine.store.machines.newest("environment", limit=1000):
        subject = EnvironmentSubject(engine, record.id)
        if (await subject.look()).under_way:
            subjects.append(subject)
    return subjects
