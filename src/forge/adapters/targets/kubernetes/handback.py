"""Giving an environment back: the stable version runs under the manifests' own names again, without a gap, and
nothing of Forge's is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import Fence, marked
from forge.adapters.kubernetes.kinds import AUTOSCALER, CONFIG_MAP, DEPLOYMENT, POD, SECRET, SERVICE, WORKLOADS, Kind
from forge.adapters.kubernetes.naming import (
    ADOPTED,
    VERSION,
    VERSION_ID,
    annotation,
    environment_label,
    label,
    labels_of,
    selector,
)
from forge.adapters.kubernetes.objects import Object, Parts, in_apply_order, mapping, split_objects
from forge.adapters.targets.kubernetes.adoption import without_marks
from forge.adapters.targets.kubernetes.capacity import SCALE_TARGET, find_autoscaler
from forge.adapters.targets.kubernetes.counting import is_ready
from forge.adapters.targets.kubernetes.progress import why_not_ready
from forge.adapters.targets.kubernetes.shared import SharedObjects
from forge.adapters.targets.kubernetes.stored import all_objects, stored_manifests
from forge.model.errors import DependencyFailed, StillRunning, UsageError

_OWN: tuple[Kind, ...] = (*WORKLOADS.values(), SERVICE, CONFIG_MAP, SECRET)
LOOK_AGAIN = 0.2


async def release_control(
    cluster: Cluster,
    environment: str,
    stable: str,
    token: int,
    *,
    restore_routes: Callable[[], Awaitable[None]] | None = None,
    timeout: float = 600.0,
) -> list[str]:
    """Hand an environment back to whoever deploys next; return what was done, in words.

    The version `stable` gets the manifests' own workload, `restore_routes` sends the traffic to the environment's
    Service again once that is ready, and then Forge's objects and marks go. Nothing is lost when it ends half way:
    called again it goes on. Raises StillRunning when pods are not ready in time, UsageError for an unknown version.
    """
    fence = Fence(cluster, environment)
    await fence.pass_with(token)
    shared = SharedObjects(cluster, environment, fence.name)
    workload_name = (await shared.record()).workload
    objects = await stored_manifests(cluster, environment, stable)
    if objects is None:
        raise UsageError(f"the cluster holds no manifests of version {stable} of {environment}",
                         hint="`forge env show` names the stable version")  # fmt: skip
    parts = split_objects(objects, workload_name)
    done = await _own_name(cluster, environment, stable, parts, timeout)
    if restore_routes is not None:
        await restore_routes()
        done.append("sent the traffic to the environment's own Service")
    done += await _clear(cluster, environment, parts, token)
    await cluster.delete(CONFIG_MAP, fence.name)
    return done


async def _own_name(cluster: Cluster, environment: str, stable: str, parts: Parts, timeout: float) -> list[str]:
    """Have the stable version run under the manifests' own name; one that was adopted does."""
    name = str(parts.workload["metadata"]["name"])
    kind = WORKLOADS[str(parts.workload["kind"])]
    live = await cluster.get(kind, name)
    if kind is not DEPLOYMENT or (live is not None and annotation(live, VERSION_ID) == stable):
        return [f"{kind.name} {name} stays as it is"]
    labels = selector(labels_of(environment))
    ours = [item for item in (await cluster.objects(kind, labels=labels))[0] if annotation(item, VERSION_ID) == stable]
    if not ours:
        raise UsageError(f"version {stable} does not run in {environment}")
    pods = mapping(ours[0], "spec").get("replicas", 1)
    for item in in_apply_order(_plain(parts, live, pods)):
        if item["metadata"]["name"] == name and item["kind"] == kind.name and live is not None:
            # Whole: what an apply does not name would stay of the version that ran under this name before.
            kept = {**live["metadata"], "labels": {**(live["metadata"].get("labels") or {}), **_labels(item)}}
            await cluster.replace({**item, "metadata": kept})
        else:
            await cluster.apply(item)
    await _until_ready(cluster, name, pods, timeout)
    return [f"{kind.name} {name} runs {stable} with {pods} replicas"]


def _plain(parts: Parts, live: Object | None, pods: int) -> list[Object]:
    """Return the manifests as they are to be applied by hand: their own names, no marks of Forge's."""
    spec = {**mapping(parts.workload, "spec"), "replicas": pods}
    metadata = mapping(parts.workload, "metadata")
    kept = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if not key.startswith("forge.dev/")
    }
    workload = {**parts.workload, "metadata": {**metadata, "annotations": kept}, "spec": spec}
    if live is not None:
        chosen = mapping(live, "spec", "selector")
        if chosen != mapping(spec, "selector"):
            raise UsageError(f"Deployment {metadata.get('name')} selects other pods than the manifests of the version",
                             hint="a Deployment's selector cannot change: delete it first")  # fmt: skip
    away = (parts.workload, parts.autoscaler, *parts.routes)
    return [workload, *(item for item in all_objects(parts) if all(item is not other for other in away))]


def _labels(item: Object) -> dict[str, str]:
    return mapping(item, "metadata", "labels")


async def _until_ready(cluster: Cluster, name: str, pods: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        live = await cluster.get(DEPLOYMENT, name)
        if live is None:
            raise DependencyFailed(f"Deployment {name} was deleted while it was handed back", hint="try again")
        status = mapping(live, "status")
        if status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0):
            counts = [status.get(key, 0) for key in ("updatedReplicas", "availableReplicas")]
            if min(counts) >= pods and status.get("replicas", 0) == pods:
                return
        if time.monotonic() >= deadline:
            found, _ = await cluster.objects(POD, labels=selector(mapping(live, "spec", "selector", "matchLabels")))
            mine = [pod for pod in found if not label(pod, VERSION)]
            why = why_not_ready(live, mine, pods)
            ready = sum(1 for pod in mine if is_ready(pod))
            raise StillRunning(f"Deployment {name} has {ready} of {pods} replicas ready: {why}",
                               hint="nothing was taken away; hand it back again when they are ready")  # fmt: skip
        await asyncio.sleep(LOOK_AGAIN)


async def _clear(cluster: Cluster, environment: str, parts: Parts, token: int) -> list[str]:
    """Point autoscalers back, delete the versions' own objects, take the marks off everything else."""
    name = str(parts.workload["metadata"]["name"])
    done: list[str] = []
    labels = selector(labels_of(environment))
    found = {kind: (await cluster.objects(kind, labels=labels))[0] for kind in _OWN}
    names = [name, *(str(item["metadata"]["name"]) for item in found[DEPLOYMENT])]
    autoscaler = find_autoscaler((await cluster.objects(AUTOSCALER))[0], DEPLOYMENT.name, names)
    if autoscaler is not None:
        change = {
            "metadata": {**without_marks(), "resourceVersion": autoscaler["metadata"]["resourceVersion"]},
            "spec": {"scaleTargetRef": {"name": name}},
        }
        change["metadata"]["annotations"][SCALE_TARGET] = None
        await cluster.patch(AUTOSCALER, autoscaler["metadata"]["name"], change)
        done.append(f"HorizontalPodAutoscaler {autoscaler['metadata']['name']} scales Deployment {name} again")
    for kind, items in found.items():
        for item in items:
            done += await _let_go(cluster, kind, item, token)
    for item in (*parts.shared, *parts.budgets):
        done += await _unmark(cluster, await cluster.kind_of(item), item, environment)
    return done


async def _let_go(cluster: Cluster, kind: Kind, item: Object, token: int) -> list[str]:
    metadata = item["metadata"]
    marked(item, token)
    own = bool(label(item, VERSION)) and not annotation(item, ADOPTED)
    if own:
        await cluster.delete(kind, metadata["name"], uid=metadata["uid"])
        return [f"deleted {kind.name} {metadata['name']}"]
    await cluster.patch(kind, metadata["name"], {"metadata": without_marks()})
    return []


async def _unmark(cluster: Cluster, kind: Kind, item: Object, environment: str) -> list[str]:
    metadata = item["metadata"]
    namespace = str(metadata.get("namespace") or "")
    live = await cluster.get(kind, metadata["name"], namespace)
    marks: dict[str, Any] = without_marks()
    if live is not None and label(live, "forge.dev/environment") == environment_label(environment):
        await cluster.patch(kind, metadata["name"], {"metadata": marks}, namespace=namespace)
    return []
