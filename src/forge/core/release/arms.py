"""The arithmetic of the traffic table: goals of the arms, bounded by ready capacity, with stable taking the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from forge.core.release.capacity import spread_shortage
from forge.model.units import WHOLE


class Goal(msgspec.Struct, frozen=True):
    """What a release wants for its version: `weight` basis points, or `everything` that other arms leave.

    `at_once`: nothing changes until all of it can be carried (blue-green switches in one step).
    """

    version: str
    weight: int = 0
    everything: bool = False
    at_once: bool = False


def allocate(
    goals: Sequence[Goal], stable: str, capacities: Mapping[str, int], current: Mapping[str, int]
) -> dict[str, int]:
    """Return the weights that come nearest to the goals now; they sum to 10,000.

    `stable` (empty: there is none) takes what the arms leave. An arm that gives traffic back keeps as much
    of it as stable's ready capacity cannot take yet. With no ready replica anywhere, or no stable and no
    arm that can start, the current table stays (empty: no table yet).
    """
    names = [stable, *(goal.version for goal in goals)] if stable else [goal.version for goal in goals]
    bounds = spread_shortage({name: capacities.get(name, 0) for name in names})
    if not any(bounds.values()):
        return dict(current)
    arms = _grant(goals, bounds, current)
    if not stable:
        return _without_stable(arms, bounds, current)
    _hold_back(arms, bounds, current, shortage=WHOLE - sum(arms.values()) - bounds[stable])
    weights = {stable: WHOLE - sum(arms.values()), **arms}
    return {version: weight for version, weight in weights.items() if weight > 0}


def _grant(goals: Sequence[Goal], bounds: Mapping[str, int], current: Mapping[str, int]) -> dict[str, int]:
    """Give fixed weights first, oldest release first; what is left goes to the arms that want everything."""
    left = WHOLE
    arms: dict[str, int] = {}
    for goal in sorted(goals, key=lambda goal: goal.everything):
        wanted = left if goal.everything else min(goal.weight, left)
        granted = min(wanted, bounds[goal.version])
        if goal.at_once and granted < wanted:
            granted = min(current.get(goal.version, 0), granted)
        arms[goal.version] = granted
        left -= granted
    return arms


def _hold_back(arms: dict[str, int], bounds: Mapping[str, int], current: Mapping[str, int], *, shortage: int) -> None:
    """Let arms that give traffic back keep what stable cannot carry yet, within their own bounds."""
    for version, granted in list(arms.items()):
        if shortage <= 0:
            return
        kept = min(current.get(version, 0), bounds[version]) - granted
        kept = max(0, min(kept, shortage))
        arms[version] += kept
        shortage -= kept


def _without_stable(arms: dict[str, int], bounds: Mapping[str, int], current: Mapping[str, int]) -> dict[str, int]:
    """The first version ever takes all of the traffic or none: nobody else can."""
    serving = [version for version, weight in arms.items() if weight > 0 and bounds[version] > 0]
    return {serving[0]: WHOLE} if serving else dict(current)
