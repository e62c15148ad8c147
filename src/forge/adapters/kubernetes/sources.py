"""Where the objects of a version come from: plain manifests, Kustomize or a chart, all with one result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from forge.adapters.kubernetes import helm, kustomize
from forge.adapters.kubernetes.objects import Object
from forge.adapters.kubernetes.rendering import objects_in, read_manifests, rendered
from forge.model.configs import KubernetesTargetConfig
from forge.model.errors import UsageError


async def render(
    config: KubernetesTargetConfig, *, base: Path, root: Path, env: Mapping[str, str], say: Callable[[str], None]
) -> tuple[Object, ...]:
    """Return the objects of the version that is described in a folder: checked, in order, with their images.

    Paths are relative to `base` and stay inside of `root`; `env` is that of the tools; `say` is told what they warn
    of. Raises UsageError and InvalidConfiguration for what is wrong there, DependencyFailed for a missing tool.
    """
    objects = await _objects(config, base=base, root=root, env=env, say=say)
    return rendered(objects, workload=config.workload, service=config.service, images=config.images)


async def _objects(
    config: KubernetesTargetConfig, *, base: Path, root: Path, env: Mapping[str, str], say: Callable[[str], None]
) -> tuple[Object, ...]:
    if config.kustomize:
        output = await kustomize.build(config.kustomize, base=base, root=root, env=env)
        _tell(output.complaints, say)
        return objects_in(output.text, f"(output of kubectl kustomize {config.kustomize})")
    if config.helm is not None:
        namespace = config.access.namespace
        output = await helm.template(config.helm, namespace=namespace, base=base, root=root, env=env)
        _tell(output.complaints, say)
        kept, left = helm.without_hooks(objects_in(output.text, f"(output of helm template {config.helm.chart})"))
        for name in left:
            say(f"left out: {name} is a hook of the chart; what it does belongs into a step")
        return kept
    if config.manifests:
        manifests = await asyncio.to_thread(read_manifests, config.manifests, base, root)
        return tuple(manifest.item for manifest in manifests)
    raise UsageError("there are no manifests", hint="add `manifests: k8s/` to the environment's target")


def _tell(complaints: str, say: Callable[[str], None]) -> None:
    for line in complaints.splitlines():
        if line.strip():
            say(line.strip())
