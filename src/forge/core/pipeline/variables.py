"""What expressions can see: built only for those that look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from forge.core.pipeline.state import JobState, RunState, StepState
from forge.model.plan import JobPlan, Plan, StepPlan

Interpolate = Callable[[str, Mapping[str, Any]], str]


def variables(
    plan: Plan, run: RunState, jobs: Mapping[str, JobState], job: JobPlan | None, step: StepPlan | None = None
) -> dict[str, Any]:
    """Return `params`, `env`, `matrix`, `inputs`, `jobs`, `steps` and `run` as plain data.

    `job` None: for what belongs to the run as a whole. `env` holds the texts of the plan as they are written.
    """
    state = jobs[job.name] if job else JobState("")
    return {
        "params": dict(plan.parameters),
        "env": {**plan.env, **(job.env if job else {}), **(step.env if step else {})},
        "matrix": dict(job.matrix) if job else {},
        "inputs": dict(state.inputs),
        "jobs": _jobs(plan, jobs),
        "steps": _steps(job, state.steps) if job else {},
        "run": {
            "id": run.id,
            "actor": run.actor,
            "commit": plan.source.commit,
            "ref": plan.source.ref,
            "attempt": run.attempt,
        },
    }


def declared_env(
    plan: Plan, job: JobPlan, step: StepPlan | None, known: Mapping[str, Any], interpolate: Interpolate
) -> dict[str, str]:
    """Return pipeline, job and step env with their expressions replaced, the later over the earlier.

    Each may refer to the ones before it as `env`. Raises what `interpolate` raises (ExpressionError).
    """
    values: dict[str, str] = {}
    for env in (plan.env, job.env, step.env if step else {}):
        seen = {**known, "env": {**known.get("env", {}), **values}}
        values.update({name: interpolate(text, seen) if has_expression(text) else text for name, text in env.items()})
    return values


def job_outputs(state: JobState) -> dict[str, Any]:
    """Return what a job's steps handed over, a later step's value over an earlier one's."""
    merged: dict[str, Any] = {}
    for step in state.steps.values():
        if step.outputs:
            merged.update(step.outputs)
    return merged


def has_expression(value: object) -> bool:
    """Tell whether a text, or any text inside plain data, holds `${{ … }}`."""
    if isinstance(value, str):
        return "${{" in value
    if isinstance(value, Mapping):
        return any(has_expression(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_expression(inner) for inner in value)
    return False


def _jobs(plan: Plan, jobs: Mapping[str, JobState]) -> dict[str, Any]:
    """Return every job under its name, and those of a matrix together under the name in the file."""
    seen: dict[str, Any] = {}
    families: dict[str, list[JobState]] = {}
    for job in plan.jobs:
        state = jobs[job.name]
        seen[job.name] = {"status": state.status, "outputs": job_outputs(state)}
        if job.base != job.name:
            families.setdefault(job.base, []).append(state)
    for base, states in families.items():
        outputs: dict[str, Any] = {}
        for state in states:
            outputs.update(job_outputs(state))
        seen.setdefault(base, {"status": _together(state.status for state in states), "outputs": outputs})
    return seen


def _together(statuses: Iterable[str]) -> str:
    """Return `succeeded` if all did (or were skipped), else the first other status."""
    found = list(statuses)
    others = [status for status in found if status not in {"succeeded", "skipped"}]
    if others:
        return others[0]
    return "succeeded" if "succeeded" in found else "skipped"


def _steps(job: JobPlan, states: Mapping[str, StepState]) -> dict[str, Any]:
    """Return the job's steps by id, and by name where a name is no other step's id."""
    seen: dict[str, Any] = {}
    for step in job.steps:
        state = states.get(step.id, StepState())
        seen[step.id] = {"status": state.status, "outputs": dict(state.outputs)}
    for step in job.steps:
        seen.setdefault(step.name, seen[step.id])
    return seen
