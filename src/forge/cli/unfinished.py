"""What is unfinished in a project: runs that are not over, environments with a release under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.cli.subjects import EnvironmentSubject, RunSubject, Subject
from forge.service.local import LocalService

if TYPE_CHECKING:
    from forge.engine.engine import Engine


async def unfinished(engine: Engine) -> list[Subject]:
    """Return what `forge resume` works on, oldest run first."""
    service = LocalService(engine)
    subjects: list[Subject] = [RunSubject(service, run) for run in await engine.unfinished()]
    for record in await engine.store.machines.newest("environment", limit=1000):
        subject = EnvironmentSubject(service, record.key)
        if (await subject.look()).under_way:
            subjects.append(subject)
    return subjects
