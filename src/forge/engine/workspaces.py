"""Workspaces: each attempt of a job has its own, which begins as the run's source."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from forge.adapters import source
from forge.adapters.artifacts.base import ArtifactStore
from forge.core.pipeline.state import STEP_FINAL, JobState
from forge.engine.project import Project
from forge.model.plan import JobPlan, Plan

KEPT_RUNS = 20
"""The newest runs keep their workspaces, to be looked at; older ones keep only their logs."""


class WorkspaceGone(Exception):
    """Earlier steps of this attempt worked in a folder that is not here: another host's, or removed."""


class Workspaces:
    """The workspaces of a project on this host."""

    def __init__(self, project: Project, artifacts: ArtifactStore) -> None:
        self._project = project
        self._artifacts = artifacts

    async def prepare(self, plan: Plan, run: str, job: JobPlan, state: JobState, attempt: int) -> Path:
        """Return the workspace of an attempt, unpacked if it is not yet. Idempotent, also after a crash halfway.

        Raises WorkspaceGone if finished steps left their results in a folder that is not there.
        """
        workspace = self._project.workspace(run, job.name, attempt)
        mark = workspace.parent / "ready"
        if mark.exists() and workspace.is_dir():
            return workspace
        if _has_results(job, state):
            raise WorkspaceGone(
                f"the workspace of attempt {attempt} is not on this host, with what its steps left there"
            )
        mark.unlink(missing_ok=True)
        workspace.mkdir(parents=True, exist_ok=True)
        await source.unpack(plan.source, self._artifacts, workspace, cache=self._project.cache / "sources")
        mark.touch()
        return workspace


def remove_old(project: Project, unfinished: Collection[str], keep: int = KEPT_RUNS) -> int:
    """Remove the workspaces of all but the newest `keep` runs and of those that are not over; return how many.

    Blocks. Logs stay. A folder that cannot be removed is left for the next time.
    """
    folders = [folder for folder in (project.state / "runs").glob("run-*") if folder.name[4:].isdigit()]
    folders.sort(key=lambda folder: int(folder.name[4:]))
    removed = 0
    for folder in folders[:-keep] if keep else folders:
        if folder.name in unfinished:
            continue
        for attempt in folder.glob("*/*/"):
            for name in ("workspace", "workspace.private"):
                place = attempt / name
                if place.is_dir():
                    (attempt / "ready").unlink(missing_ok=True)
                    shutil.rmtree(place, ignore_errors=True)
                    removed += 1
    return removed


def _has_results(job: JobPlan, state: JobState) -> bool:
    gates = {step.id for step in job.steps if step.kind == "approve"}
    return any(
        name not in gates and step.attempt > 0 and step.status in STEP_FINAL for name, step in state.steps.items()
    )
