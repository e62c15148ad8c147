"""Performing one step: workspace, environment, log, and what its result means to the run."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from forge.adapters.artifacts.base import ArtifactStore
from forge.adapters.masking import Masker, StepLog
from forge.adapters.paths import inside
from forge.adapters.runners.base import Runner
from forge.adapters.runners.registry import LOCAL, RemoteRunner, remote_runner
from forge.adapters.steps import registry
from forge.adapters.steps.base import ReleaseClient, Step, StepContext, StepResult, always
from forge.adapters.steps.cache import save_caches
from forge.adapters.steps.migrating import performed
from forge.adapters.steps.private import process_key
from forge.core.pipeline.keys import StepKey
from forge.core.pipeline.state import RunState
from forge.core.pipeline.step_rules import job_runs_elsewhere
from forge.core.pipeline.variables import declared_env, has_expression
from forge.engine import secrets, step_environment
from forge.engine.artifact_index import RunArtifacts
from forge.engine.project import Project
from forge.engine.workspaces import WorkspaceGone, Workspaces
from forge.model.decision import Action, Outcome
from forge.model.errors import ForgeError
from forge.model.migrations import Migration
from forge.model.plan import JobPlan, Plan, StepPlan
from forge.model.units import format_duration
from forge.store.contract import Store

Say = Callable[[str], None]
_AGAIN = "--- Forge was stopped while this step was under way; it is run again ---"
_FOLLOWED = "--- Forge was stopped while this step was under way; it is followed again ---"
_SECRETS_KEPT = 64
GRACE = 10.0
"""Seconds that a command which goes on elsewhere has to end when it is told to."""


class StepPerformer:
    """Performs steps for the machines of runs."""

    def __init__(
        self,
        store: Store,
        project: Project,
        artifacts: ArtifactStore,
        runner: Runner,
        releases: ReleaseClient,
        *,
        step_of_kind: Callable[[str], Step] = registry.step,
        remote: RemoteRunner = remote_runner,
    ) -> None:
        self._store = store
        self._project = project
        self._artifacts = artifacts
        self._runner = runner
        self._releases = releases
        self._step_of_kind = step_of_kind
        self._remote = remote
        self._workspaces = Workspaces(project, artifacts)
        self._secrets: dict[tuple[str, int], tuple[dict[str, str], Masker]] = {}

    async def perform(self, plan: Plan, run: RunState, action: Action) -> Outcome:
        """Perform a `step` action. Cancelling the task ends the step's processes before it is over."""
        payload = action.payload
        key = StepKey(payload["job"], payload["attempt"], payload["step"], payload["step_attempt"])
        job = plan.job(key.job)
        step = next(step for step in job.steps if step.id == key.step)
        log = self._project.step_log(run.id, key.job, key.attempt, key.step)
        begun = log.with_name(f"{log.name}.{key.step_attempt}.begun")
        again = begun.exists()
        if again and not job_runs_elsewhere(job, step):
            await self._runner.kill(process_key(run.id, action.key))
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.touch()
        outcome = await self._with_log(plan, run, action, job, step, key, again=again)
        begun.unlink(missing_ok=True)
        return outcome

    async def end_left(self, plan: Plan, run: RunState, action: Action) -> None:
        """End what goes on elsewhere of a step that no worker performs any more. Raises ForgeError."""
        payload = action.payload
        job = plan.job(payload["job"])
        step = next(step for step in job.steps if step.id == payload["step"])
        key, known = process_key(run.id, action.key), dict(payload.get("variables") or {})
        if step.kind == "job":
            from forge.adapters.steps.job import end_left

            await end_left(plan, _interpolated(step.config, known), key, self._project.root)
        elif job.runner != LOCAL:
            await self._runner_of(job, known, always).kill(key, GRACE)

    async def save_caches(self, run: str, job: str, attempt: int) -> None:
        """Keep what the cache steps of a job that succeeded have marked."""
        workspace = self._project.workspace(run, job, attempt)
        if workspace.is_dir():
            with StepLog(self._project.step_log(run, job, attempt, "caches")) as log:
                await save_caches(workspace, self._project.cache, log.say)

    async def _with_log(
        self, plan: Plan, run: RunState, action: Action, job: JobPlan, step: StepPlan, key: StepKey, *, again: bool
    ) -> Outcome:
        try:
            values, masker = await self._secrets_of(plan, run)
        except ForgeError as error:
            return _error(action, error)
        path = self._project.step_log(run.id, key.job, key.attempt, key.step)
        with StepLog(path, masker) as log:
            if again:
                log.say(_FOLLOWED if job_runs_elsewhere(job, step) else _AGAIN)
            for name in masker.too_short:
                log.say(f"forge: the secret {name} is too short to be hidden in logs")
            try:
                context = await self._context(plan, run, action, job, step, key, values, log)
                work = performed(self._step_of_kind(context.step.kind), context)
                result = await _within(step.timeout, work)
            except WorkspaceGone as gone:
                return Outcome(action.key, "error", 0.0, str(gone), {"workspace_gone": True})
            except ForgeError as error:
                log.say(f"forge: {error.message}" + (f" ({error.hint})" if error.hint else ""))
                return _error(action, error, log.mask)
            except Exception as error:
                log.say("forge: this step could not be performed\n" + traceback.format_exc())
                return _error(action, error, log.mask)
            return _outcome(action, result, log)

    async def _secrets_of(self, plan: Plan, run: RunState) -> tuple[dict[str, str], Masker]:
        """Return the values and what masks them, fetched once an attempt of a run: a thousand steps ask a vault once."""
        if not plan.secrets:
            return {}, Masker()
        known = self._secrets.get((run.id, run.attempt))
        if known is None:
            values = await secrets.resolve(plan.secrets, self._project.root)
            known = self._secrets[run.id, run.attempt] = (values, Masker(values))
            while len(self._secrets) > _SECRETS_KEPT:
                self._secrets.pop(next(iter(self._secrets)))
        return known

    async def _context(
        self,
        plan: Plan,
        run: RunState,
        action: Action,
        job: JobPlan,
        step: StepPlan,
        key: StepKey,
        values: Mapping[str, str],
        log: StepLog,
    ) -> StepContext:
        """Return everything the step may use. Raises WorkspaceGone, ForgeError."""
        workspace = await self._workspaces.prepare(plan, run.id, job, run.jobs[job.name], key.attempt)
        known = dict(action.payload.get("variables") or {})
        declared = declared_env(plan, job, step, known, _interpolate)
        known["env"] = {**known.get("env", {}), **declared}
        config = _interpolated(step.config, known)
        begun = time.monotonic()

        async def told_to_stop() -> bool:
            late = step.timeout is not None and time.monotonic() - begun >= step.timeout
            return late or await self._told(run.id, action.key)

        folder = _interpolate(step.working_directory or job.working_directory, known)
        env = {
            **({} if _in_a_pod(job, step) else step_environment.base()),
            **declared,
            **values,
            **step_environment.of_forge(plan, run, job, step, key),
            "FORGE_WORKSPACE": str(workspace),
        }
        return StepContext(
            key=process_key(run.id, action.key),
            run=run.id,
            plan=plan,
            job=job,
            step=msgspec.structs.replace(step, config=config, migration=_migration(step, known)),
            attempt=key.step_attempt,
            actor=run.actor,
            workspace=workspace,
            cwd=_cwd(workspace, folder),
            env=env,
            output=log,
            say=log.say,
            runner=self._runner_of(job, known, told_to_stop) if _in_a_pod(job, step) else self._runner,
            artifacts=self._artifacts,
            index=RunArtifacts(self._store.documents, key.attempt),
            releases=self._releases,
            project=self._project.root,
            cache=self._project.cache,
            now=time.time,
            told_to_stop=told_to_stop,
        )

    def _runner_of(self, job: JobPlan, known: Mapping[str, Any], told_to_stop: Callable[[], Awaitable[bool]]) -> Runner:
        """Return what runs the job's commands elsewhere. Raises UsageError for settings that cannot be read."""
        config = _interpolated(job.runner_config, known)
        return self._remote(job.runner, config, str(self._project.root), told_to_stop)

    async def _told(self, run: str, action: str) -> bool:
        intents = await self._store.intents.of(run)
        return any(intent.cancel and intent.action.key == action for intent in intents)


async def _within(timeout: float | None, work: Awaitable[StepResult]) -> StepResult:
    """Await the step, at most for its timeout; it is cancelled like by a person, so that nothing survives."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
        return StepResult("timed_out", f"did not end within {format_duration(timeout or 0.0)} and was stopped")


def _cwd(workspace: Path, folder: str) -> Path:
    return inside(workspace, folder) if folder else workspace


def _interpolate(text: str, known: Mapping[str, Any]) -> str:
    if not has_expression(text):
        return text
    from forge.core.pipeline.expressions import interpolate

    return interpolate(text, known)


def _interpolated(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return _interpolate(value, known)
    if isinstance(value, dict):
        return {name: _interpolated(inner, known) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_interpolated(inner, known) for inner in value]
    return value


def _in_a_pod(job: JobPlan, step: StepPlan) -> bool:
    """Tell whether the step is a command elsewhere; all other kinds of steps work where the workspace is."""
    return step.kind == "run" and job.runner != LOCAL


def _migration(step: StepPlan, known: Mapping[str, Any]) -> Migration | None:
    if step.migration is None:
        return None
    return msgspec.structs.replace(step.migration, since=_interpolate(step.migration.since, known))


def _outcome(action: Action, result: StepResult, log: StepLog) -> Outcome:
    message = log.mask(result.message)
    if log.problem:
        message = f"{message}; {log.problem}" if message else log.problem
    data: dict[str, Any] = {}
    if result.exit_code is not None:
        data["exit_code"] = result.exit_code
    if result.peak_memory is not None:
        data["peak_memory"] = result.peak_memory
    if result.outputs:
        data["outputs"] = _masked(result.outputs, log.mask)
    return Outcome(action.key, result.outcome, 0.0, message, data)


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    """Return outputs as plain JSON data without secrets: they go into the database."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {str(name): _masked(inner, mask) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(inner, mask) for inner in value]
    return value


def _error(action: Action, error: Exception, mask: Callable[[str], str] = str) -> Outcome:
    text = error.message if isinstance(error, ForgeError) else f"{type(error).__name__}: {error}"
    if isinstance(error, ForgeError) and error.hint:
        text = f"{text}; {error.hint}"
    return Outcome(action.key, "error", 0.0, mask(text))
