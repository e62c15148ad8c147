"""`rollback:` takes an environment back to the version that was stable before, or to the one that is named."""

from __future__ import annotations

import asyncio

import msgspec

from forge.adapters.steps.base import StepContext, StepResult
from forge.model.configs import RollbackConfig

LOOK = 0.1


class RollbackStep:
    """Succeeds when the environment serves the version that it was to go back to."""

    kind = "rollback"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, RollbackConfig)
        if config.workload is not None:
            from forge.adapters.steps.workload import roll_back_workload

            return await roll_back_workload(context, config, config.workload)
        name = config.environment
        payload = {"to": config.to} if config.to else {}
        refusal = await context.releases.command(name, "rollback", payload, key=context.key, actor=context.actor)
        if refusal:
            return StepResult("failed", refusal)
        told = ""
        while not (view := await context.releases.view(name))["settled"]:
            if view["waits_for"] != told:
                told = view["waits_for"]
                context.say(told)
            await asyncio.sleep(LOOK)
        if config.to and view["stable"] != config.to:
            return StepResult("failed", f"{name} is at {view['stable']}, not at {config.to}")
        message = f"{name} is at {view['stable']}"
        context.say(message)
        return StepResult("succeeded", message, outputs={"stable": view["stable"]})
