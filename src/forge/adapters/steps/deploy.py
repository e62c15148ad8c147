"""`deploy:` asks for a release of a version and waits until it is promoted or rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from forge.adapters.steps.base import StepContext, StepResult
from forge.model.configs import DeployConfig
from forge.model.decision import digest as content_digest
from forge.model.errors import InvalidConfiguration, UsageError
from forge.model.traffic import Version
from forge.model.units import format_duration

VERSION_DIGITS = 12


class DeployStep:
    """Succeeds when the release was promoted; fails with the release's own reason when it was not."""

    kind = "deploy"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, DeployConfig)
        environment = context.plan.environment(config.environment)
        artifact = await context.index.find(context.run, config.artifact) if config.artifact else None
        if config.artifact and artifact is None:
            return StepResult("failed", f"no job of this run published `{config.artifact}`")
        settings = {**environment.target_config, **config.target}
        if environment.target == "kubernetes":
            from forge.adapters.steps.adopting import adopt_what_runs
            from forge.adapters.steps.deploy_kubernetes import render_version

            try:
                rendered = await render_version(context, environment, config, artifact)
                refused = await adopt_what_runs(context, environment, rendered)
            except (UsageError, InvalidConfiguration) as wrong:
                return StepResult("failed", _told(wrong, context.say))
            if refused:
                return StepResult("failed", refused)
            artifact, settings = rendered.artifact, rendered.settings
        digest = artifact.digest if artifact else ""
        version = Version(
            id=config.version or _identity(digest, settings),
            artifact=digest,
            artifact_name=artifact.name if artifact else "",
            config=settings,
            run=context.run,
            created_at=context.now(),
        )
        # A route without a version is for the one that is being deployed.
        routes = tuple(route if route.version else replace(route, version=version.id) for route in config.routes)
        request = {
            "request": msgspec.to_builtins(replace(config, version=version.id, routes=routes)),
            "version": msgspec.to_builtins(version),
            "run": context.run,
        }
        release = await context.releases.deploy(environment, request, key=context.key, actor=context.actor)
        context.say(f"release {release}: {version.id} to {environment.name} by {config.strategy.name}")
        outputs = {"release": release, "version": version.id, "environment": environment.name}
        if not config.wait:
            context.say(f"not waiting; watch it with: forge release watch {environment.name}")
            return StepResult("succeeded", f"{release} is under way", outputs=outputs)
        result = await _wait(context, config, release, outputs)
        return replace(result, outputs={**result.outputs, "address": await context.releases.address(environment.name)})


def _told(wrong: UsageError | InvalidConfiguration, say: Callable[[str], None]) -> str:
    """Say everything that is wrong, each with its place, and return the first of it."""
    if isinstance(wrong, UsageError):
        return f"{wrong.message}; {wrong.hint}" if wrong.hint else wrong.message
    for diagnostic in wrong.diagnostics:
        for line in diagnostic.render().splitlines():
            say(line)
    first = wrong.diagnostics[0]
    more = f", and {len(wrong.diagnostics) - 1} more" if len(wrong.diagnostics) > 1 else ""
    return f"{first.file}:{first.line}:{first.column}: {first.message}{more}"


def _identity(artifact: str, settings: dict[str, Any]) -> str:
    """Return the name of a version that was given none: the same build with the same configuration, or another."""
    return content_digest({"artifact": artifact, "config": settings})[:VERSION_DIGITS]


async def _wait(context: StepContext, config: DeployConfig, release: str, outputs: dict[str, Any]) -> StepResult:
    name = config.environment
    try:
        async with asyncio.timeout(config.timeout) as limit:
            view = await context.releases.wait(name, release, context.say)
    except TimeoutError:
        if not limit.expired():
            raise
        late = f"{release} was not over within {format_duration(config.timeout or 0.0)}"
        payload = {"release": release, "comment": late}
        await context.releases.command(name, "abort", payload, key=f"{context.key} timeout", actor=context.actor)
        view = await context.releases.wait(name, release, context.say)
        if view["status"] != "promoted":
            return StepResult("timed_out", f"{late}; it was {view['status'].replace('_', ' ')}", outputs=outputs | view)
    except asyncio.CancelledError:
        ending = context.releases.withdraw(context.run, context.key, name, release, context.actor)
        await asyncio.shield(ending)
        raise
    outputs |= view
    counted = f"{view['failed_requests']} of {view['requests']} requests failed"
    if view["status"] == "promoted":
        return StepResult("succeeded", f"{release} was promoted; {counted}", outputs=outputs)
    message = f"{release} was {view['status'].replace('_', ' ')}: {view['reason']}; {counted}"
    return StepResult("failed", message, outputs=outputs)
