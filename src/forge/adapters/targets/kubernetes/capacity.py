"""How many pods each version gets where a HorizontalPodAutoscaler or a PodDisruptionBudget has a say. Pure.

An environment thinks in replicas of its own configuration. An autoscaler decides how many pods these are today: it
is pointed at the workload of the version that carries the most (the holder), whose replicas Forge then never writes,
and every other version gets pods in the same proportion. Nobody scales against anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from forge.adapters.kubernetes.objects import Object, entries, mapping
from forge.adapters.targets.kubernetes.counting import VersionSeen, is_ready
from forge.model.traffic import ReplicaCount

SCALE_TARGET = "forge.dev/scale-target"
"""Annotation of an autoscaler: the workload that it scaled before Forge pointed it elsewhere."""

SCALER_HINT = "scale it by a HorizontalPodAutoscaler of its own, or by `replicas`"


def find_autoscaler(autoscalers: Iterable[Object], kind: str, names: Iterable[str]) -> Object | None:
    """Return the autoscaler that scales one of the workloads called `names`, the first by its own name."""
    wanted = set(names)
    for item in sorted(autoscalers, key=_name):
        target = mapping(item, "spec", "scaleTargetRef")
        if target.get("kind") == kind and target.get("name") in wanted:
            return item
    return None


def scaled_workload(autoscaler: Object | None) -> str:
    """Return the name of the workload that an autoscaler scales; empty without one."""
    return str(mapping(autoscaler, "spec", "scaleTargetRef").get("name", ""))


def choose_holder(wanted: Mapping[str, int], current: str) -> str:
    """Return the workload that the autoscaler should scale: the one of which most is wanted.

    `wanted` is by the workload's name; `current` keeps it while nothing beats it. Empty: nothing is wanted.
    """
    most = max(wanted.values(), default=0)
    if most <= 0:
        return ""
    if wanted.get(current, 0) == most:
        return current
    return min(name for name, number in wanted.items() if number == most)


def pointed_at(autoscaler: Object, workload: str) -> dict[str, object]:
    """Return the merge patch that points an autoscaler at another workload and remembers the first one."""
    metadata = mapping(autoscaler, "metadata")
    annotations = metadata.get("annotations") or {}
    return {
        "metadata": {
            "resourceVersion": metadata.get("resourceVersion"),
            "annotations": {SCALE_TARGET: annotations.get(SCALE_TARGET) or scaled_workload(autoscaler)},
        },
        "spec": {"scaleTargetRef": {"name": workload}},
    }


def pointed_by(autoscaler: Object) -> str:
    """Return who made an autoscaler and would point it back (`ScaledObject shop`); empty: a person did."""
    for owner in mapping(autoscaler, "metadata").get("ownerReferences") or ():
        if isinstance(owner, dict) and owner.get("controller"):
            return f"{owner.get('kind', '')} {owner.get('name', '')}"
    return ""


def followed_only(scaler: str) -> str:
    """Return why a workload that something else scales cannot be released."""
    return f"{scaler} scales the workload, and would scale against Forge: only a HorizontalPodAutoscaler is followed"


def unit_of(holder: VersionSeen | None) -> Fraction:
    """Return how many pods one replica of the configuration is today; 1 where no autoscaler says otherwise."""
    if holder is None or holder.wanted <= 0 or holder.asked <= 0:
        return Fraction(1)
    return Fraction(holder.asked, holder.wanted)


def daemon_unit(workload: Object, size: int) -> Fraction:
    """Return how many pods one of `size` replicas of a DaemonSet is: it has one on each node, however many there are.

    1 for every other kind.
    """
    nodes = mapping(workload, "status").get("desiredNumberScheduled", 0)
    if workload.get("kind") != "DaemonSet" or size <= 0 or not isinstance(nodes, int) or nodes <= 0:
        return Fraction(1)
    return Fraction(nodes, size)


def pods_for(replicas: int, unit: Fraction) -> int:
    """Return how many pods `replicas` of the configuration are today."""
    return max(1, -(-replicas * unit.numerator // unit.denominator)) if replicas > 0 else 0


def in_replicas(version: VersionSeen, expected: int) -> ReplicaCount:
    """Return a version's pods as replicas of the configuration; `expected` is how many pods it should ask for.

    Each is what it is where these are the same; else in proportion, and all of it only when every pod is there.
    """
    ready = sum(1 for pod in version.pods if is_ready(pod))
    alive, wanted = len(version.alive), version.wanted
    if expected == wanted or wanted <= 0:
        return ReplicaCount(version.asked, alive, ready)
    expected = max(1, expected)
    return ReplicaCount(
        wanted if version.asked == expected else version.asked * wanted // expected,
        -(-alive * wanted // expected),
        min(wanted, ready * wanted // expected),
    )


def kept_available(budgets: Iterable[Object], labels: Mapping[str, str]) -> tuple[int, str]:
    """Return how many pods with these labels must stay ready, and the budget that says so; only absolute numbers:
    a percentage is of the pods that are asked for, and shrinks with them."""
    most, name = 0, ""
    for budget in budgets:
        least = mapping(budget, "spec").get("minAvailable")
        if isinstance(least, int) and least > most and matches(mapping(budget, "spec", "selector"), labels):
            most, name = least, _name(budget)
    return most, name


def matches(selector: Mapping[str, object], labels: Mapping[str, str]) -> bool:
    """Tell whether labels fit a label selector; an empty one fits everything."""
    wanted = mapping(selector, "matchLabels")
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for each in entries(selector, "matchExpressions"):
        key, values = str(each.get("key", "")), each.get("values") or ()
        fits = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not fits.get(str(each.get("operator")), False):
            return False
    return True


def refused_by_budget(
    budgets: Sequence[Object], versions: Mapping[str, VersionSeen], version_id: str, pods_after: int
) -> str:
    """Return why a version may not shrink to `pods_after` now; empty when it may.

    Where less is ready than the budget wants already, or no other version is there to take over, shrinking is
    not what breaks it.
    """
    shrinking = versions.get(version_id)
    if shrinking is None or not any(other.wanted for key, other in versions.items() if key != version_id):
        return ""
    labels = next((dict(mapping(pod, "metadata", "labels")) for pod in shrinking.pods), {})
    least, name = kept_available(budgets, labels)
    ready = {key: sum(1 for pod in seen.pods if is_ready(pod)) for key, seen in versions.items()}
    before = sum(ready.values())
    after = before - max(0, ready[version_id] - pods_after)
    if not labels or after >= least or before < least:
        return ""
    return f"PodDisruptionBudget {name} wants {least} pods ready, and {after} would be left"


def _name(item: Object) -> str:
    return str(mapping(item, "metadata").get("name", ""))
