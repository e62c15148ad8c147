"""What is wrong with where commands run, with Jobs as steps and with migrations, before anything starts."""

from __future__ import annotations

from collections.abc import Iterator

from forge.core.pipeline.assemble import Assembly
from forge.core.pipeline.draft import JobDraft, Place
from forge.core.pipeline.instances import Instance
from forge.model.diagnostics import Diagnostic
from forge.model.plan import StepPlan


def check_runner(draft: JobDraft) -> Iterator[Diagnostic]:
    """Yield what keeps a job's commands from running where it says."""
    plan = draft.plan
    place = draft.place / "runner"
    if plan.runner == "kubernetes" and not plan.runner_config.get("image"):
        hint = "write `runner: {kubernetes: {image: debian:12}}`, here or under `defaults:`"
        yield place.problem("runner", f"`{draft.name}` runs in pods, but of no image", hint=hint)


def environments_named(row: Instance) -> list[tuple[str, str, Place]]:
    """Return the environments that Jobs and migrations name, as resolved and as written, with their places."""
    named = []
    for step, original, place in zip(row.plan.steps, row.draft.plan.steps, row.draft.steps, strict=True):
        if step.kind == "job" and step.config["environment"]:
            named.append((step.config["environment"], original.config["environment"], place / "job" / "environment"))
        if step.migration is not None and step.migration.environment:
            name = step.migration.environment
            named.append((name, name, place / "migration" / "environment"))
    return named


def check_jobs_and_migrations(row: Instance, assembly: Assembly) -> Iterator[Diagnostic]:
    """Yield migrations of no environment, and Jobs in environments that are no cluster."""
    for step, place in zip(row.plan.steps, row.draft.steps, strict=True):
        if step.kind == "job":
            yield from _not_a_cluster(step, place, assembly)
        if step.migration is not None and not environment_of(step, row.plan.environment):
            hint = "write `migration: {…, environment: production}`, or give the job an `environment`"
            yield (place / "migration").problem("migration", "this migration is of no environment", hint=hint)


def environment_of(step: StepPlan, job_environment: str) -> str:
    """Return the environment whose versions a migration is about: its own, its Job's, or the pipeline job's."""
    own = step.migration.environment if step.migration else ""
    return own or (str(step.config["environment"]) if step.kind == "job" else "") or job_environment


def _not_a_cluster(step: StepPlan, place: Place, assembly: Assembly) -> Iterator[Diagnostic]:
    name = str(step.config["environment"])
    if name not in assembly.environments:
        return
    model, _ = assembly.environments[name]
    target = model.plan(name).target
    if target != "kubernetes":
        hint = "name one with a `kubernetes` target, or a `context`"
        message = f"`{name}` is no cluster but a {target} target, so no Job can run in it"
        yield (place / "job").problem("runner", message, hint=hint)
