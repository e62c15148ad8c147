"""Runs of a project whose database is at hand. See `forge.service.base.Runs`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.core.pipeline.state import RUN_FINAL
from forge.model.diagnostics import did_you_mean
from forge.model.errors import Rejected, UsageError
from forge.model.plan import Plan
from forge.service.base import Accepted, LogPart, Page
from forge.service.commands import RUN_COMMANDS
from forge.service.gates import check_inputs, refusal, waiting_job
from forge.service.locating import find_run
from forge.service.starting import start
from forge.views.listing import ArtifactRow, RunRow, artifact_row, run_row
from forge.views.run import JobView, RunView, StepView, run_view

if TYPE_CHECKING:
    from forge.engine.engine import Engine

MOST_ROWS = 200
MOST_BYTES = 1024 * 1024


class LocalRuns:
    """See `forge.service.base.Runs`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start(self, parameters: Mapping[str, str], *, actor: str, key: str = "", ref: str = "") -> str:
        """Start a run of the working tree as it is now. Raises UsageError for a `ref`: a folder has none."""
        if ref:
            raise UsageError("this project is a folder, not a Git repository: there is nothing to check out")
        return await start(self._engine, parameters, actor, key=key)

    async def get(self, run: str) -> RunView:
        """Return a run. Raises UsageError."""
        state, plan = await self._engine.run_state(run)
        return run_view(state, plan, time.time())

    async def plan(self, run: str) -> Plan:
        """Return the plan that a run is pinned to. Raises UsageError."""
        _, plan = await self._engine.run_state(run)
        return plan

    async def page(self, *, statuses: tuple[str, ...] = (), limit: int = 50, cursor: str = "") -> Page[RunRow]:
        """Return runs, newest first; a cursor is the last run of the page before."""
        if cursor and await self._engine.store.machines.load(cursor) is None:
            raise UsageError(f"there is no page after `{cursor}`", hint="ask for the first page again")
        limit = max(1, min(limit, MOST_ROWS))
        records = await self._engine.store.machines.newest("run", statuses=statuses, limit=limit + 1, before=cursor)
        now = time.time()
        rows = [run_row(*await self._engine.run_state(record.id), now) for record in records[:limit]]
        return Page(tuple(rows), rows[-1].id if len(records) > limit else "")

    async def command(self, run: str, kind: str, payload: Mapping[str, Any], *, actor: str, key: str = "") -> Accepted:
        """Send a command. Raises UsageError, Rejected. See Runs."""
        if kind not in RUN_COMMANDS:
            raise UsageError(f"a run knows no `{kind}`", hint=did_you_mean(kind, RUN_COMMANDS))
        view = await self.get(run)
        known = await self._engine.store.inbox.sent(view.id, key)
        if known is not None:  # what it asks for may make no sense any more, now that it was done
            return Accepted(view.id, known, 0)
        given = await self._checked(view, kind, dict(payload), actor)
        after = await self._engine.store.log.last(view.id)
        sent = await self._engine.store.inbox.send(view.id, kind, actor, given, key=key)
        return Accepted(view.id, sent, after)

    async def artifacts(self, run: str) -> tuple[ArtifactRow, ...]:
        """Return what the run published, oldest first."""
        found = await self._engine.artifacts_of(await find_run(self._engine, run))
        return tuple(artifact_row(one) for one in found)

    async def fetch(self, run: str, name: str, destination: Path) -> str:
        """Write the bytes of an artifact to a file, checked against their digest; return that. Raises UsageError."""
        known = {one.name: one for one in await self._engine.artifacts_of(await find_run(self._engine, run))}
        if (found := known.get(name)) is None:
            hint = did_you_mean(name, list(known)) or f"{run} has published nothing"
            raise UsageError(f"there is no artifact in {run}: `{name}`", hint=hint)
        try:
            await self._engine.artifacts.get(found.digest, destination)
        except KeyError:
            again = f"; `forge run` from commit {found.commit[:12]} makes it anew" if found.commit else ""
            raise UsageError(f"{name} of {run} is not stored any more", hint=f"it was pruned{again}") from None
        return found.digest

    async def log(self, run: str, job: str, attempt: int, step: str, *, offset: int = 0, limit: int = 65536) -> LogPart:
        """Return a piece of a step's log. Raises UsageError for a job, attempt or step that the run has not."""
        its_job, its_step = _find_step(await self.get(run), job, attempt, step)
        ended = attempt < its_job.attempt or its_step.finished_at is not None or its_step.state == "skipped"
        path = self._engine.project.step_log(run, job, attempt, step)
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                begin = max(0, size + offset) if offset < 0 else min(offset, size)
                file.seek(begin)
                return LogPart(file.read(max(0, min(limit, MOST_BYTES))), begin, size, ended)
        except FileNotFoundError:
            return LogPart(b"", 0, 0, ended)

    async def _checked(self, view: RunView, kind: str, payload: dict[str, Any], actor: str) -> dict[str, Any]:
        """Return the payload, made whole, of what makes sense now. Raises UsageError, Rejected."""
        if kind == "retry":
            if not view.final:
                raise UsageError(f"{view.id} is still {view.state}", hint=f"or stop it with `forge cancel {view.id}`")
            if view.state == "succeeded":
                raise UsageError(f"every job of {view.id} succeeded; there is nothing to do again")
            return {}
        if kind == "cancel":
            if view.state in RUN_FINAL:
                raise UsageError(f"{view.id} is over already: {view.state}")
            given = {"comment": str(payload.get("comment", "")), "force": bool(payload.get("force", False))}
            if job := str(payload.get("job", "")):
                given["job"] = _find_job(view, job).name
            return given
        gate = waiting_job(view.id, str(payload.get("job", "")), view.jobs)
        vote: dict[str, Any] = {"job": gate.name, "comment": str(payload.get("comment", ""))}
        if kind == "approve":
            vote["inputs"] = check_inputs(gate, payload.get("inputs") or {})
        refused = await refusal(self._engine, view.id, kind, vote, actor)
        if refused:
            raise Rejected(f"{view.id}: {refused}")
        return vote


def _find_job(view: RunView, name: str) -> JobView:
    for job in view.jobs:
        if job.name == name:
            return job
    hint = did_you_mean(name, [job.name for job in view.jobs])
    raise UsageError(f"{view.id} has no job `{name}`", hint=hint)


def _find_step(view: RunView, job: str, attempt: int, step: str) -> tuple[JobView, StepView]:
    its_job = _find_job(view, job)
    if not 1 <= attempt <= max(1, its_job.attempt):
        raise UsageError(f"{job} of {view.id} has no attempt {attempt}", hint=f"it had {its_job.attempt}")
    for one in its_job.steps:
        if one.id == step:
            return its_job, one
    hint = did_you_mean(step, [one.id for one in its_job.steps])
    raise UsageError(f"{job} of {view.id} has no step `{step}`", hint=hint)
