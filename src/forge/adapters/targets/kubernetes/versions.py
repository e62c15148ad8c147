"""The objects of one version, made from its manifests: a workload, a Service and what it mounts, all its own. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from forge.adapters.kubernetes.naming import (
    ADOPTED,
    ENVIRONMENT,
    FRONT,
    TOKEN,
    VERSION,
    VERSION_ID,
    labels_of,
    name_for_version,
    version_slug,
)
from forge.adapters.kubernetes.objects import Object, Parts, with_references

_OF_THE_CLUSTER = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
    "ownerReferences",
)
_HASH = "pod-template-hash"


class VersionObjects(msgspec.Struct, frozen=True):
    """What a version consists of: `mounted` first, then the workload, then its Service."""

    workload: Object
    service: Object | None
    mounted: tuple[Object, ...] = ()

    def every(self) -> tuple[Object, ...]:
        """All of them, in the order to create them."""
        return (*self.mounted, self.workload, *((self.service,) if self.service else ()))


def objects_of(
    parts: Parts, environment: str, version_id: str, *, replicas: int | None, token: int,
    progress_deadline: float = 600.0,
) -> VersionObjects:  # fmt: skip
    """Return the objects of a version. `replicas` None: somebody else (an autoscaler) says how many."""
    slug = version_slug(version_id)
    copies = {
        (item["kind"], item["metadata"]["name"]): name_for_version(item["metadata"]["name"], slug)
        for item in parts.mounted
    }
    labels = labels_of(environment, slug)
    annotations = {VERSION_ID: version_id, TOKEN: str(token)}
    workload = _own(with_references(parts.workload, copies), slug, labels, annotations)
    spec = workload["spec"]
    metadata = spec["template"].setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), VERSION_ID: version_id}
    chosen = (spec.get("selector") or {}).get("matchLabels") or {}
    spec["selector"] = {"matchLabels": {**chosen, ENVIRONMENT: labels[ENVIRONMENT], VERSION: slug}}
    spec.pop("replicas", None)
    if replicas is not None:
        spec["replicas"] = replicas
    spec.setdefault("progressDeadlineSeconds", max(1, round(progress_deadline)))
    spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    service = None if parts.service is None else service_of(parts.service, environment, version_id, token)
    mounted = tuple({**_own(item, slug, labels, annotations), "immutable": True} for item in parts.mounted)
    return VersionObjects(workload, service, mounted)


def service_of(
    service: Mapping[str, Any], environment: str, version_id: str, token: int, only: Mapping[str, str] | None = None
) -> Object:
    """Return a Service like the environment's that asks one version alone.

    `only`: labels that tell the version's pods apart; by default those that Forge puts on them.
    """
    slug = version_slug(version_id)
    labels = labels_of(environment, slug)
    chosen = only if only is not None else {ENVIRONMENT: labels[ENVIRONMENT], VERSION: slug}
    spec = service.get("spec") or {}
    ports = [{key: value for key, value in port.items() if key != "nodePort"} for port in spec.get("ports") or ()]
    fresh: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name_for_version(service["metadata"]["name"], slug),
            "labels": {**(service["metadata"].get("labels") or {}), **labels},
            "annotations": {VERSION_ID: version_id, TOKEN: str(token), FRONT: service["metadata"]["name"]},
        },
        "spec": {"type": "ClusterIP", "selector": {**(spec.get("selector") or {}), **chosen}, "ports": ports},
    }
    if service["metadata"].get("namespace"):
        fresh["metadata"]["namespace"] = service["metadata"]["namespace"]
    for key in ("sessionAffinity", "sessionAffinityConfig", "internalTrafficPolicy", "trafficDistribution"):
        if key in spec:
            fresh["spec"][key] = spec[key]
    return fresh


def without_cluster_fields(item: Mapping[str, Any]) -> Object:
    """Return an object that was read as a manifest: without what only the cluster writes."""
    fresh: Object = json.loads(json.dumps(item))
    fresh.pop("status", None)
    metadata = fresh.get("metadata") or {}
    for key in _OF_THE_CLUSTER:
        metadata.pop(key, None)
    (metadata.get("annotations") or {}).pop("deployment.kubernetes.io/revision", None)
    return fresh


def adoption_marks(environment: str, version_id: str, token: int) -> Object:
    """Return the metadata that makes an existing workload the environment's version, and touches none of its pods."""
    return {
        "labels": labels_of(environment, version_slug(version_id)),
        "annotations": {VERSION_ID: version_id, TOKEN: str(token), ADOPTED: "true"},
    }


def hash_of_newest(replica_sets: list[Object], deployment: Mapping[str, Any]) -> str:
    """Return the label value that the pods of a Deployment's present template have; empty before there are any."""
    uid = deployment["metadata"].get("uid")
    revision = (deployment["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision")
    for replica_set in replica_sets:
        metadata = replica_set["metadata"]
        owners = [owner.get("uid") for owner in metadata.get("ownerReferences") or ()]
        if uid in owners and (metadata.get("annotations") or {}).get("deployment.kubernetes.io/revision") == revision:
            return str((metadata.get("labels") or {}).get(_HASH, ""))
    return ""


def _own(item: Object, slug: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Object:
    """Return an object under the version's own name and marks."""
    fresh: Object = without_cluster_fields(item)
    metadata = fresh["metadata"]
    metadata["name"] = name_for_version(metadata["name"], slug)
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return fresh
