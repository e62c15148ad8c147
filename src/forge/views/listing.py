"""What lists show: runs, environments, artifacts; one flat row each, newest or first in the file first."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from forge.adapters.steps.base import PublishedArtifact
from forge.core.pipeline.state import RunState
from forge.model.plan import Plan
from forge.views.run import elapsed


class JobState(msgspec.Struct, frozen=True):
    """A job of a listed run: only its name and state."""

    name: str
    state: str


class RunRow(msgspec.Struct, frozen=True):
    """A run in a list."""

    id: str
    state: str
    jobs: tuple[JobState, ...]
    pipeline: str = ""
    actor: str = ""
    commit: str = ""
    ref: str = ""
    attempt: int = 1
    created_at: float = 0.0
    finished_at: float | None = None
    duration: float | None = None
    message: str = ""

    @property
    def done(self) -> str:
        """How many of its jobs are behind it: `3/5`."""
        behind = {"succeeded", "skipped"}
        return f"{sum(job.state in behind for job in self.jobs)}/{len(self.jobs)}"


class ArtifactRow(msgspec.Struct, frozen=True):
    """A published artifact in a list."""

    name: str
    digest: str
    size: int
    run: str
    job: str
    created_at: float
    is_directory: bool = False


def run_row(state: RunState, plan: Plan, now: float) -> RunRow:
    """Return a run as a row of a list."""
    return RunRow(
        id=state.id,
        state=state.status,
        jobs=tuple(
            JobState(job.name, state.jobs[job.name].status if job.name in state.jobs else "pending")
            for job in plan.jobs
        ),
        pipeline=plan.name,
        actor=state.actor,
        commit=plan.source.commit,
        ref=plan.source.ref,
        attempt=state.attempt,
        created_at=state.created_at,
        finished_at=state.finished_at,
        duration=elapsed(state.started_at, state.finished_at, now),
        message=state.message,
    )


def run_rows(runs: Iterable[tuple[RunState, Plan]], now: float) -> list[RunRow]:
    """Return rows, newest first; of runs that began at the same moment the higher number is the newer."""
    rows = [run_row(state, plan, now) for state, plan in runs]
    return sorted(rows, key=lambda row: (row.created_at, _number(row.id)), reverse=True)


def artifact_row(artifact: PublishedArtifact) -> ArtifactRow:
    """Return an artifact as a row of a list."""
    return ArtifactRow(
        name=artifact.name,
        digest=artifact.digest,
        size=artifact.size,
        run=artifact.run,
        job=artifact.job,
        created_at=artifact.created_at,
        is_directory=artifact.is_directory,
    )


def _number(run: str) -> int:
    digits = run.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0
