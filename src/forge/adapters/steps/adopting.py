"""The first deploy to an environment on a cluster takes over what runs there already, so that it can go back to it."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.naming import title
from forge.adapters.steps.base import StepContext
from forge.adapters.steps.deploy_kubernetes import Rendered, keep_manifests
from forge.adapters.targets.kubernetes.adoption import Found, find_adoptable
from forge.adapters.targets.kubernetes.settings import target_config
from forge.model.configs import DeployConfig
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.model.traffic import Version

_RULES_BETWEEN_RELEASES = ("max_arms", "on_overlap")


async def adopt_what_runs(context: StepContext, environment: EnvironmentPlan, rendered: Rendered) -> str:
    """Make a workload of the manifests' name, if one runs already, the environment's first stable version.

    None of its pods is touched. Returns why it could not be, or "": it was, or there is nothing to adopt. Raises
    UsageError for a workload that is somebody else's or in the middle of a change, DependencyFailed.
    """
    config = target_config(rendered.settings)
    if not config.adopt or await _was_released_to(context, environment.name):
        return ""
    cluster = Cluster(config.access)
    try:
        found = await find_adoptable(cluster, environment.name, rendered.parts)
    finally:
        await cluster.close()
    if found is None:
        return ""
    name = title(rendered.parts.workload)
    context.say(f"{name} is there already: it becomes the stable version {found.version_id}")
    release = await _release(context, environment, rendered, found)
    view = await context.releases.wait(environment.name, release, context.say)
    return "" if view["status"] == "promoted" else f"{name} could not be adopted: {view['reason']}"


async def _was_released_to(context: StepContext, environment: str) -> bool:
    try:
        view = await context.releases.view(environment)
    except UsageError:
        return False
    return bool(view["stable"]) or not view["settled"]


async def _release(context: StepContext, environment: EnvironmentPlan, rendered: Rendered, found: Found) -> str:
    """Release what is there as it is: neither judged nor gated, as nothing changes for anybody."""
    artifact = await keep_manifests(context, environment.name, found.manifests)
    version = Version(
        id=found.version_id,
        artifact=artifact.digest,
        artifact_name=artifact.name,
        config={**rendered.settings, "replicas": max(1, found.replicas)},
        run=context.run,
        created_at=context.now(),
    )
    config = DeployConfig(environment.name, version=version.id, strategy=Strategy("rolling", thresholds=()))
    rules = {key: value for key, value in environment.policy.items() if key in _RULES_BETWEEN_RELEASES}
    request = {
        "request": msgspec.to_builtins(config),
        "version": msgspec.to_builtins(version),
        "run": context.run,
    }
    unjudged = replace(environment, judge="none", judge_config={}, policy=rules)
    return await context.releases.deploy(unjudged, request, key=f"{context.key} adopt", actor=context.actor)
