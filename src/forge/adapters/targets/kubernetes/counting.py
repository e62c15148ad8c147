"""What runs of each version, counted from the cluster's workloads and pods. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from forge.adapters.kubernetes.naming import ADOPTED, ENVIRONMENT, VERSION, VERSION_ID, annotation, label
from forge.adapters.kubernetes.objects import Object, mapping

WANTED = "forge.dev/replicas"
"""Annotation of a version's workload: how many replicas the environment wants of it, in its own units."""
POD_HASH = "forge.dev/pod-template-hash"
"""Annotation of an adopted workload: tells its pods, which have no labels of Forge's."""
TEMPLATE = "forge.dev/template"
"""Annotation of an adopted workload: what its pod template was, as a hash."""
_HASH_LABEL = "pod-template-hash"
_OVER = frozenset({"Succeeded", "Failed"})


class VersionSeen(msgspec.Struct, frozen=True):
    """A version as the cluster has it. `workload` None: only pods that are ending are left of it."""

    version_id: str
    workload: Object | None
    pods: tuple[Object, ...] = ()

    @property
    def wanted(self) -> int:
        """How many replicas Forge asked for last, in the environment's units."""
        text = annotation(self.workload or {}, WANTED)
        return int(text) if text.isdigit() else self.asked

    @property
    def asked(self) -> int:
        """How many pods the workload asks for now, whoever said so."""
        number = mapping(self.workload, "spec").get("replicas", 1)
        return number if self.workload is not None and isinstance(number, int) else 0

    @property
    def alive(self) -> tuple[Object, ...]:
        """Pods that run or come up; those that end are not counted."""
        return tuple(pod for pod in self.pods if not is_ending(pod) and phase(pod) not in _OVER)


def seen_versions(workloads: Iterable[Object], pods: Iterable[Object], environment: str) -> dict[str, VersionSeen]:
    """Return what there is of each version of an environment, by id. `environment` is the label's value."""
    ours = {
        annotation(item, VERSION_ID): item
        for item in workloads
        if label(item, ENVIRONMENT) == environment and annotation(item, VERSION_ID)
    }
    grouped: dict[str, list[Object]] = {version: [] for version in ours}
    adopted = [item for item in ours.values() if annotation(item, ADOPTED)]
    slugs = {label(item, VERSION): version for version, item in ours.items()}
    for pod in pods:
        if label(pod, ENVIRONMENT) == environment and label(pod, VERSION):
            version = annotation(pod, VERSION_ID) or slugs.get(label(pod, VERSION), label(pod, VERSION))
            grouped.setdefault(version, []).append(pod)
        else:
            for item in adopted:
                if is_of_adopted(pod, item):
                    grouped[annotation(item, VERSION_ID)].append(pod)
    return {
        version: VersionSeen(version, ours.get(version), tuple(sorted(found, key=_age)))
        for version, found in grouped.items()
        if version in ours or any(phase(pod) not in _OVER for pod in found)
    }


def is_of_adopted(pod: Object, workload: Object) -> bool:
    """Tell whether a pod belongs to an adopted workload: by its labels, of the template that was adopted."""
    chosen = mapping(workload, "spec", "selector", "matchLabels")
    return (
        bool(chosen)
        and not label(pod, VERSION)
        and all(label(pod, key) == value for key, value in chosen.items())
        and label(pod, _HASH_LABEL) == annotation(workload, POD_HASH)
    )


def template_mark(workload: Mapping[str, Any]) -> str:
    """Return a short hash of a workload's pod template as the cluster has it."""
    text = json.dumps(mapping(workload, "spec", "template"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Tell whether a pod takes requests."""
    return not is_ending(pod) and condition(pod, "Ready").get("status") == "True"


def is_ending(pod: Mapping[str, Any]) -> bool:
    """Tell whether a pod was asked to end."""
    return bool(mapping(pod, "metadata").get("deletionTimestamp"))


def phase(pod: Mapping[str, Any]) -> str:
    """Return the pod's phase, `Pending` where it has none yet."""
    return str(mapping(pod, "status").get("phase") or "Pending")


def condition(item: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return an object's condition of that type, empty where it has none."""
    for each in mapping(item, "status").get("conditions") or ():
        if isinstance(each, dict) and each.get("type") == kind:
            return each
    return {}


def restarts(pods: Iterable[Object]) -> int:
    """Return how often containers were started again."""
    return sum(
        int(status.get("restartCount") or 0)
        for pod in pods
        for status in mapping(pod, "status").get("containerStatuses") or ()
    )


def trimmed_pod(pod: Object) -> Object:
    """Return what is read of a pod: thousands of them are kept in memory."""
    metadata = mapping(pod, "metadata")
    kept = {"name", "namespace", "uid", "resourceVersion", "labels", "creationTimestamp", "deletionTimestamp"}
    small = {key: value for key, value in metadata.items() if key in kept}
    if annotation(pod, VERSION_ID):
        small["annotations"] = {VERSION_ID: annotation(pod, VERSION_ID)}
    spec = mapping(pod, "spec")
    containers = [
        {key: each[key] for key in ("name", "image", "readinessProbe") if key in each}
        for each in spec.get("containers") or ()
    ]
    return {
        "metadata": small,
        "spec": {"nodeName": spec.get("nodeName", ""), "containers": containers},
        "status": mapping(pod, "status"),
    }


def _age(pod: Object) -> tuple[str, str]:
    metadata = mapping(pod, "metadata")
    return str(metadata.get("creationTimestamp", "")), str(metadata.get("name", ""))
