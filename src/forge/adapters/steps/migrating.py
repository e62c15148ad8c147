"""Steps that are migrations: what a contract takes away is on record before it begins."""

from __future__ import annotations

from forge.adapters.steps.base import Step, StepContext, StepResult
from forge.model.errors import ForgeError
from forge.model.migrations import Contract, Migration


async def performed(step: Step, context: StepContext) -> StepResult:
    """Perform a step; one that is a contract migration only if its environment can do without what it takes away."""
    migration = context.step.migration
    if migration is None:
        return await step.run(context)
    return await migrated(step, context, migration)


async def migrated(step: Step, context: StepContext, migration: Migration) -> StepResult:
    """Perform a migration. The environment is told before a contract begins and after it has ended."""
    name = environment_name(context, migration)
    if migration.kind == "expand" or not name:
        return await step.run(context)
    environment = context.plan.environment(name)
    contract = Contract(
        key=context.key, step=context.step.name, since=migration.since, since_at=0.0, begun_at=0.0, run=context.run
    )
    refusal = await context.releases.begin_contract(environment, contract, actor=context.actor)
    if refusal:
        return StepResult("failed", f"this migration was not begun: {refusal}")
    context.say(f"forge: from now on versions of {name} older than {migration.since} are not released any more")
    try:
        result = await step.run(context)
    except ForgeError as error:
        await _end(context, name, error.message)
        raise
    failed = "" if result.outcome == "succeeded" else result.message or result.outcome
    await _end(context, name, failed)
    return result


async def _end(context: StepContext, environment: str, failed: str) -> None:
    ended = {"contract": context.key, "failed": failed}
    await context.releases.command(environment, "end_contract", ended, key=f"{context.key} over", actor=context.actor)


def environment_name(context: StepContext, migration: Migration) -> str:
    """Return the environment whose versions a migration is about: its own, its Job's, or the pipeline job's."""
    own = str(context.step.config.get("environment") or "") if context.step.kind == "job" else ""
    return migration.environment or own or context.job.environment
