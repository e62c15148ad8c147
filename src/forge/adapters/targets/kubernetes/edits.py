"""Who else wrote to what Forge keeps: read from the managed fields of an object. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge.adapters.kubernetes.naming import ADOPTED, MANAGER, annotation
from forge.adapters.kubernetes.objects import Object, mapping
from forge.adapters.targets.kubernetes.counting import TEMPLATE, template_mark

_OF_THE_CLUSTER = frozenset({"kube-controller-manager", "kube-scheduler", "kubelet", "kube-apiserver"})
_EDITS = "forgeEdits"


def edits_of(item: Mapping[str, Any]) -> dict[str, str]:
    """Return what others than Forge and the cluster itself manage of an object's spec: `scaled` or `edited`, by who."""
    kept = mapping(item, "metadata").get(_EDITS)
    if isinstance(kept, dict):
        return kept
    found: dict[str, str] = {}
    for entry in mapping(item, "metadata").get("managedFields") or ():
        manager = str(entry.get("manager", ""))
        fields = mapping(entry, "fieldsV1", "f:spec")
        if not fields or manager in {MANAGER, *_OF_THE_CLUSTER} or entry.get("subresource") == "status":
            continue
        found[manager] = "scaled" if set(fields) == {"f:replicas"} and found.get(manager) != "edited" else "edited"
    return found


def trimmed_workload(item: Object) -> Object:
    """Return a workload with what is read of its managed fields in their place: they are most of its size."""
    metadata = {key: value for key, value in mapping(item, "metadata").items() if key != "managedFields"}
    return {**item, "metadata": {**metadata, _EDITS: edits_of(item)}}


def told_edits(item: Mapping[str, Any], *, wanted: int | None) -> str:
    """Return in words what somebody did to a workload; empty when nobody did.

    `wanted`: how many pods Forge asked for; None: that is an autoscaler's business.
    """
    title = f"{item.get('kind', 'Deployment')} {mapping(item, 'metadata').get('name', '')}"
    edits = edits_of(item)
    if annotation(item, ADOPTED):
        # Others made it, so that they manage its fields; what counts is that its pods stay what they were.
        changed = annotation(item, TEMPLATE) not in {"", template_mark(item)}
        told = [f"somebody changed the pods of {title} since it was adopted"] if changed else []
    else:
        told = [f"somebody edited {title} ({who})" for who, what in sorted(edits.items()) if what == "edited"]
    replicas = mapping(item, "spec").get("replicas")
    if wanted is not None and isinstance(replicas, int) and replicas != wanted:
        who = ", ".join(sorted(who for who, what in edits.items() if what == "scaled"))
        told.append(f"somebody scaled {title} to {replicas} where {wanted} are wanted" + (f" ({who})" if who else ""))
    return "; ".join(told)
