"""How much traffic ready replicas can carry, in basis points.

A version that is configured with N replicas carries all of the traffic with N ready ones, so each carries
1/N. Shares are rounded up, so that N thirds make a whole: the bound is exact to one basis point.
"""

from __future__ import annotations

from collections.abc import Mapping

from forge.model.traffic import ReplicaCount, Version
from forge.model.units import WHOLE

DEFAULT_REPLICAS = 2
"""Of a version whose configuration names no number (the target's own default)."""


def full_size(version: Version) -> int:
    """Return how many replicas the version needs to carry all of the traffic; at least 1."""
    replicas = version.config.get("replicas", DEFAULT_REPLICAS)
    return max(1, replicas) if isinstance(replicas, int) else DEFAULT_REPLICAS


def capacity(ready: int, full: int) -> int:
    """Return the basis points that `ready` of `full` replicas can carry."""
    return min(WHOLE, -(-max(0, ready) * WHOLE // full))


def replicas_for(weight: int, full: int) -> int:
    """Return the fewest replicas whose capacity is at least `weight` basis points."""
    return min(full, (weight - 1) * full // WHOLE + 1) if weight > 0 else 0


def ready_capacity(version: Version, seen: ReplicaCount | None) -> int:
    """Return what the version's ready replicas can carry."""
    return capacity(seen.ready if seen else 0, full_size(version))


def spread_shortage(capacities: Mapping[str, int]) -> dict[str, int]:
    """Return the bounds on weights: the capacities, or, when together they cannot carry everything,
    everything in proportion to them (each replica is then overloaded alike)."""
    total = sum(capacities.values())
    if total >= WHOLE or total == 0:
        return dict(capacities)
    return {version: -(-WHOLE * share // total) for version, share in capacities.items()}
