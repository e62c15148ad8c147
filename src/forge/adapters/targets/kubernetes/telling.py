"""What an environment is told of its versions: replicas in its own units, and why some are not ready. Pure but for
the questions that go on beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from forge.adapters.kubernetes.objects import Object, mapping
from forge.adapters.targets.kubernetes.capacity import find_autoscaler, in_replicas, pods_for, scaled_workload, unit_of
from forge.adapters.targets.kubernetes.counting import VersionSeen, is_ending, is_ready, restarts
from forge.adapters.targets.kubernetes.edits import told_edits
from forge.adapters.targets.kubernetes.inquiring import Inquiry
from forge.adapters.targets.kubernetes.progress import why_not_ready
from forge.model.traffic import ReplicaCount


def told(
    versions: Mapping[str, VersionSeen], autoscalers: Sequence[Object], inquiry: Inquiry | None = None
) -> dict[str, ReplicaCount]:
    """Return the count of each version; `inquiry` finds out more about pods that are not ready."""
    holder = holder_of(versions, autoscalers)
    unit = unit_of(holder)
    counts: dict[str, ReplicaCount] = {}
    for version_id, seen in versions.items():
        if seen.workload is None:
            counts[version_id] = _leaving(seen)
            continue
        by_autoscaler = holder is not None and seen.version_id == holder.version_id
        in_place = seen.workload.get("kind") == "DaemonSet"  # its view asks for what it should
        expected = seen.asked if by_autoscaler or in_place else pods_for(seen.wanted, unit)
        count = in_replicas(seen, expected)
        waiting = [pod for pod in seen.alive if not is_ready(pod)]
        details = inquiry.details(waiting) if inquiry is not None and waiting else {}
        why = why_not_ready(seen.workload, seen.alive, seen.asked, details)
        edits = told_edits(seen.workload, wanted=None if by_autoscaler else expected)
        message = "; ".join(text for text in (edits, why) if text)
        counts[version_id] = replace(count, message=message, restarts=restarts(seen.pods))
    return counts


def holder_of(versions: Mapping[str, VersionSeen], autoscalers: Sequence[Object]) -> VersionSeen | None:
    """Return the version whose workload an autoscaler scales; None: there is no autoscaler."""
    workloads = {
        str(mapping(seen.workload, "metadata").get("name")): seen for seen in versions.values() if seen.workload
    }
    kind = next((str(seen.workload.get("kind")) for seen in workloads.values() if seen.workload), "Deployment")
    return workloads.get(scaled_workload(find_autoscaler(autoscalers, kind, workloads)))


def _leaving(seen: VersionSeen) -> ReplicaCount:
    """A version whose workload is gone runs until its last pod has ended."""
    running = sum(1 for pod in seen.pods if is_ending(pod)) + len(seen.alive)
    return ReplicaCount(0, running, sum(1 for pod in seen.pods if is_ready(pod)), "", restarts(seen.pods))
