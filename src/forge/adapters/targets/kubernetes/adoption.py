"""A Deployment that was there before Forge becomes the first stable version: in place, without touching a pod.

Nothing of its pod template changes, so that nothing restarts. Its pods are told apart by the hash that the cluster
put on them, and the version's Service selects them by it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import marked
from forge.adapters.kubernetes.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    DEPLOYMENT,
    REPLICA_SET,
    SECRET,
    Kind,
)
from forge.adapters.kubernetes.naming import (
    ADOPTED,
    CREATED,
    ENVIRONMENT,
    MANAGED_BY,
    TOKEN,
    VERSION,
    VERSION_ID,
    annotation,
    environment_label,
    label,
)
from forge.adapters.kubernetes.objects import Object, Parts, containers, mapping, references
from forge.adapters.kubernetes.sharing import note_written
from forge.adapters.targets.kubernetes.capacity import find_autoscaler
from forge.adapters.targets.kubernetes.counting import POD_HASH, TEMPLATE, WANTED, template_mark
from forge.adapters.targets.kubernetes.versions import (
    adoption_marks,
    hash_of_newest,
    service_of,
    without_cluster_fields,
)
from forge.model.errors import DependencyFailed, UsageError

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}")
_ADDRESSES = ("clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort")


class Found(msgspec.Struct, frozen=True):
    """A Deployment that can be adopted. Release `version_id` with `manifests` as its artifact, and it is taken as it
    is; `replicas` is what it has now, for the version's configuration."""

    version_id: str
    replicas: int
    manifests: tuple[Object, ...]


async def find_adoptable(cluster: Cluster, environment: str, parts: Parts) -> Found | None:
    """Return the Deployment that runs already where these manifests would go; None when there is none.

    Raises UsageError for one that another environment has, or that is in the middle of a change.
    """
    if parts.workload.get("kind") != "Deployment":
        return None
    name = str(parts.workload["metadata"]["name"])
    live = await cluster.get(DEPLOYMENT, name)
    if live is None or annotation(live, ADOPTED) or not mapping(live, "spec").get("replicas", 1):
        return None
    owner = label(live, ENVIRONMENT)
    if owner and owner != environment_label(environment):
        raise UsageError(f"Deployment {name} belongs to environment {owner}", hint="hand it back there first")
    status = mapping(live, "status")
    if status.get("updatedReplicas", 0) != status.get("replicas", 0):
        raise UsageError(f"Deployment {name} is in the middle of a rollout", hint="wait until it is done, then adopt")
    template_hash = hash_of_newest((await cluster.objects(REPLICA_SET))[0], live)
    if not template_hash:
        raise DependencyFailed(f"Deployment {name} has no ReplicaSet yet", hint="it is tried again")
    exported = without_cluster_fields(live)
    annotations = exported["metadata"].setdefault("annotations", {})
    annotations |= {ADOPTED: "true", POD_HASH: template_hash}
    annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    rest = await _exported(cluster, live, parts)
    return Found(_version_id(live, template_hash), int(mapping(live, "spec").get("replicas", 1)), (exported, *rest))


class Adoption:
    """Takes and leaves the workload that was there before."""

    def __init__(self, cluster: Cluster, environment: str) -> None:
        self._cluster, self._environment = cluster, environment

    async def applies(self, parts: Parts, live: Object | None) -> bool:
        """Tell whether a version is one that was adopted, and whether what it was is still there as it was."""
        if not annotation(parts.workload, ADOPTED):
            return False
        if live is not None:
            return bool(annotation(live, ADOPTED))
        there = await self._cluster.get(DEPLOYMENT, str(parts.workload["metadata"]["name"]))
        if there is None or label(there, ENVIRONMENT) not in {"", environment_label(self._environment)}:
            return False
        newest = hash_of_newest((await self._cluster.objects(REPLICA_SET))[0], there)
        return newest == annotation(parts.workload, POD_HASH)

    async def take(self, parts: Parts, version_id: str, replicas: int, token: int) -> str:
        """Mark the workload as this version and size it; return its name."""
        name = str(parts.workload["metadata"]["name"])
        there = await self._cluster.get(DEPLOYMENT, name)
        if there is None:
            raise DependencyFailed(f"Deployment {name} was deleted while it was adopted", hint="it is tried again")
        marked(there, token)
        marks = adoption_marks(self._environment, version_id, token)
        template_hash = annotation(parts.workload, POD_HASH)
        marks["annotations"] |= {WANTED: str(replicas), POD_HASH: template_hash, TEMPLATE: template_mark(there)}
        marks["resourceVersion"] = there["metadata"]["resourceVersion"]
        change: dict[str, Any] = {"metadata": marks}
        autoscalers, _ = await self._cluster.objects(AUTOSCALER)
        scaled = find_autoscaler(autoscalers, "Deployment", [name]) is not None
        asked = mapping(there, "spec").get("replicas", 1)
        if asked != replicas and not (scaled and replicas and asked):
            change["spec"] = {"replicas": replicas}
        note_written(self._cluster, DEPLOYMENT, await self._cluster.patch(DEPLOYMENT, name, change))
        if parts.service is not None:
            only = {"pod-template-hash": template_hash}
            await self._cluster.apply(service_of(parts.service, self._environment, version_id, token, only))
        return name

    async def leave(self, workload: Object, token: int) -> None:
        """Scale it to nothing and take the version's marks off. It stays: Forge did not make it."""
        current = marked(workload, token)
        change = {
            "metadata": {
                "resourceVersion": current["metadata"]["resourceVersion"],
                "labels": {VERSION: None},
                "annotations": {VERSION_ID: None, WANTED: None, TOKEN: str(token)},
            },
            "spec": {"replicas": 0},
        }
        left = await self._cluster.patch(DEPLOYMENT, str(workload["metadata"]["name"]), change)
        note_written(self._cluster, DEPLOYMENT, left)


def without_marks() -> dict[str, Any]:
    """Return the metadata patch that takes everything of Forge's off an object."""
    gone = dict.fromkeys((ADOPTED, CREATED, VERSION_ID, WANTED, TOKEN, POD_HASH, TEMPLATE))
    return {"labels": dict.fromkeys((VERSION, ENVIRONMENT, MANAGED_BY)), "annotations": gone}


async def _exported(cluster: Cluster, live: Object, parts: Parts) -> Sequence[Object]:
    """Return what belongs to the workload as it is now: what its pods read, and what the manifests have around it."""
    found: list[Object] = []
    kinds: dict[str, Kind] = {"ConfigMap": CONFIG_MAP, "Secret": SECRET}
    for kind, name in sorted(references(live)):
        item = await cluster.get(kinds[kind], name)
        if item is not None:
            found.append({**item, "apiVersion": "v1", "kind": kind})
    around = [parts.service, parts.autoscaler, *parts.budgets, *parts.shared]
    known = {(item["kind"], item["metadata"]["name"]) for item in found}
    for item in around:
        if item is None or (item["kind"], item["metadata"]["name"]) in known:
            continue
        kind_of = await cluster.kind_of(item)
        there = await cluster.get(kind_of, item["metadata"]["name"], str(item["metadata"].get("namespace") or ""))
        if there is not None:
            found.append(there)
    return [_clean(item) for item in found]


def _clean(item: Object) -> Object:
    fresh = without_cluster_fields(item)
    spec = mapping(fresh, "spec")
    if fresh.get("kind") == "Service":
        for key in _ADDRESSES:
            spec.pop(key, None)
        if spec.get("clusterIP") != "None":
            spec.pop("clusterIP", None)
    (fresh["metadata"].get("annotations") or {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
    return fresh


def _version_id(live: Object, template_hash: str) -> str:
    """Return what people call it: the tag of its first image, where it has one that says something."""
    for container in containers(live):
        image = str(container.get("image", "")).partition("@")[0]
        tag = image.rpartition("/")[2].partition(":")[2]
        if _TAG.fullmatch(tag) and tag != "latest":
            return tag
        break
    return f"adopted-{template_hash}"
