"""What a deploy to a cluster is made of: manifests are rendered in the job's workspace, and the result is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from forge.adapters.kubernetes.objects import Object, Parts, key_of, mapping, split_objects
from forge.adapters.kubernetes.rendering import ARTIFACT_NAME, canonical, check_front, objects_in, rendered, replicas_of
from forge.adapters.kubernetes.sources import render
from forge.adapters.steps.base import PublishedArtifact, StepContext
from forge.adapters.steps.private import private_file
from forge.adapters.targets.kubernetes.settings import target_config
from forge.model.configs import DeployConfig, KubernetesTargetConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import EnvironmentPlan

_LARGEST = 16_000_000
_SHOWN_DIGITS = 12


class Rendered(NamedTuple):
    """A version's manifests as they are kept, its configuration as it is pinned, and its objects."""

    artifact: PublishedArtifact
    settings: dict[str, Any]
    parts: Parts


async def render_version(
    context: StepContext, environment: EnvironmentPlan, config: DeployConfig, given: PublishedArtifact | None
) -> Rendered:
    """Render the manifests in the step's folder (or take those that a job published), and store what they came to.

    Raises UsageError and InvalidConfiguration for what is wrong with them, DependencyFailed for a missing tool.
    """
    target = target_config({**environment.target_config, **config.target})
    if given is not None:
        objects = rendered(
            await _published(context, given),
            workload=target.workload, service=target.service, images=target.images,
        )  # fmt: skip
    else:
        objects = await render(target, base=context.cwd, root=context.workspace, env=context.env, say=context.say)
    parts = split_objects(objects, target.workload, target.service)
    check_strategy(parts.workload, config)
    check_front(parts.workload, parts.service, environment.router)
    artifact = await keep_manifests(context, environment.name, objects)
    context.say(f"rendered {_counted(objects)} for {key_of(parts.workload).title} (sha256 {artifact.digest})")
    return Rendered(artifact, _pinned(target, parts), parts)


def check_strategy(workload: Object, config: DeployConfig) -> None:
    """Raise UsageError for a strategy that needs two versions of pods that cannot be there twice."""
    kind, name = key_of(workload).kind, config.strategy.name
    if kind != "Deployment" and name != "rolling":
        raise UsageError(
            f"{key_of(workload).title} cannot run two versions beside each other, which `{name}` needs",
            hint="write `strategy: rolling`: it goes pod by pod, and pauses at a partition",
        )


def full_size(target: KubernetesTargetConfig, parts: Parts) -> int:
    """Return how many replicas carry all of the traffic: as configured, as the manifest says, or the least that the
    autoscaler keeps."""
    least = mapping(parts.autoscaler, "spec").get("minReplicas") if parts.autoscaler else None
    for count in (target.replicas, replicas_of(parts.workload), least):
        if isinstance(count, int) and count > 0:
            return count
    return 1


def _pinned(target: KubernetesTargetConfig, parts: Parts) -> dict[str, Any]:
    """Return the configuration without what the kept manifests say already: where they came from does not matter."""
    pinned = replace(target, manifests=(), kustomize="", helm=None, images={}, replicas=full_size(target, parts))
    settings: dict[str, Any] = msgspec.to_builtins(pinned)
    return settings


async def _published(context: StepContext, artifact: PublishedArtifact) -> tuple[Object, ...]:
    if artifact.is_directory:
        raise UsageError(
            f"the artifact `{artifact.name}` is a folder", hint="publish one file of manifests, or set `manifests`"
        )
    if artifact.size > _LARGEST:
        raise UsageError(f"the artifact `{artifact.name}` is {artifact.size / 1e6:.0f} MB, which no manifests are")
    path = private_file(context, ".published.yaml")
    try:
        await context.artifacts.get(artifact.digest, path)
        return objects_in(await asyncio.to_thread(path.read_bytes), artifact.name)
    except KeyError:
        raise DependencyFailed(f"the artifact `{artifact.name}` is not stored any more") from None
    finally:
        path.unlink(missing_ok=True)


async def keep_manifests(context: StepContext, environment: str, objects: Iterable[Object]) -> PublishedArtifact:
    """Keep manifests as an artifact of the run, named by what they hold: an environment may be deployed twice."""
    text = canonical(objects)
    path = private_file(context, ".manifests.yaml")
    try:
        await asyncio.to_thread(_write, path, text)
        digest = await context.artifacts.put(path)
    except OSError as error:
        raise DependencyFailed(f"the rendered manifests could not be written: {error}") from error
    finally:
        path.unlink(missing_ok=True)
    artifact = PublishedArtifact(
        name=f"{environment}-{digest[:_SHOWN_DIGITS]}/{ARTIFACT_NAME}",
        digest=digest,
        size=len(text.encode()),
        run=context.run,
        job=context.job.name,
        step=context.step.id,
        plan=context.plan.digest,
        commit=context.plan.source.commit,
        created_at=context.now(),
    )
    await context.index.publish(artifact)
    return artifact


def _write(path: Path, text: str) -> None:
    """Write what may hold secrets so that only this user can read it."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _counted(objects: tuple[Object, ...]) -> str:
    return "1 object" if len(objects) == 1 else f"{len(objects)} objects"
