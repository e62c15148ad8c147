"""What each strategy wants now (wishes), as pure functions of the release's state.

A wish is only a wish: `arms.allocate` bounds its weight by ready capacity, and `fulfil` bounds how far replicas
go down by the observed split. So a strategy cannot break an invariant; it can only want too much.

- rolling: replicas of new and old move by `max_surge` and `max_unavailable`; the weight follows ready replicas.
- canary: the weight of the step it stands at, on as many replicas as carry it; stable keeps its full size.
- an adaptive canary: the same with the weight that the evidence allows (`growing.py`).
- blue_green: the full size beside stable at weight 0, then everything in one step.
- a first version: everything, once all of it is ready; there is nothing beside it.
- a rollback: everything, as fast as ready capacity comes.
"""

from __future__ import annotations

import msgspec

from forge.core.release.arms import Goal
from forge.core.release.capacity import replicas_for
from forge.core.release.judging import in_doubt
from forge.core.release.policing import held_growth
from forge.core.release.state import ReleaseState
from forge.core.release.tick import MOVERS, Tick, takes_over
from forge.model.strategy import Strategy


class Wish(msgspec.Struct, frozen=True):
    """What a release wants: a share of the traffic, replicas of its version, and of stable (None: all of it).

    `slack` is how many of stable's replicas may go before its traffic does (max_unavailable).
    """

    goal: Goal
    replicas: int
    stable_replicas: int | None = None
    slack: int = 0


def wish(tick: Tick, release: ReleaseState, *, hold: bool) -> Wish:
    """Return what the release wants in its present status; `hold`: nothing may grow while data is missing."""
    if release.status == "rolling_back":
        return Wish(Goal(release.version), 0 if tick.split_by_replicas else _wanted(tick, release))
    if release.kind == "rollback":
        return _everything(tick, release)
    if release.status == "paused" and release.paused_from not in {"baking", "starting"}:
        return _still(tick, release, release.held_weight)
    phase = phase_of(release)
    moving = phase in MOVERS
    if not tick.state.stable or tick.state.stable == release.version:
        return Wish(Goal(release.version, everything=moving, at_once=True), tick.full(release.version))
    if hold and phase != "baking":
        return _still(tick, release, kept_weight(tick, release))
    if release.strategy.name == "rolling":
        return _rolling(tick, release)
    if moving:
        return _everything(tick, release, at_once=release.strategy.name == "blue_green" and phase == "promoting")
    if release.strategy.name == "blue_green":
        return Wish(Goal(release.version), tick.full(release.version))
    return _canary(tick, release)


def phase_of(release: ReleaseState) -> str:
    """Return what the release is doing, or was doing when it was paused."""
    return (release.paused_from or "progressing") if release.status == "paused" else release.status


def weight_at(strategy: Strategy, step: int) -> int:
    """Return the weight that a canary has while it stands at `step`: that of the last weight step so far."""
    weights = [each.weight for each in strategy.steps[: step + 1] if each.weight is not None]
    return weights[-1] if weights else 0


def kept_weight(tick: Tick, release: ReleaseState) -> int:
    """Return the weight that a release keeps while nothing may grow: what it has, or less where that was too much."""
    asked = tick.asked.get(release.version, 0)
    return asked if release.growth is None or takes_over(release) else min(asked, release.growth.weight)


def needed_to_start(tick: Tick, release: ReleaseState) -> int:
    """Return how many replicas must be ready before the release gives its version traffic."""
    full = tick.full(release.version)
    if release.strategy.name == "rolling" and tick.state.stable:
        return 1
    if release.strategy.name == "canary" and tick.state.stable:
        return _canary(tick, release).replicas
    return full


def _canary(tick: Tick, release: ReleaseState) -> Wish:
    """The step's weight; before the first weight, the replicas of the first one."""
    full = tick.full(release.version)
    if phase_of(release) == "starting":
        first = _first_weight(release.strategy)
        return Wish(Goal(release.version), full if first is None else max(1, replicas_for(first, full)))
    weight = weight_at(release.strategy, release.step)
    if release.strategy.adaptive is not None:
        weight = release.growth.weight if release.growth is not None else 0
    if held_growth(tick, release) or in_doubt(release):
        weight = min(weight, tick.asked.get(release.version, 0))
    return Wish(Goal(release.version, weight), max(1, replicas_for(weight, full), _wanted(tick, release)))


def _first_weight(strategy: Strategy) -> int | None:
    """Return the weight that a canary begins with, or at most begins with; None: it has none."""
    if strategy.adaptive is not None:
        return min(strategy.adaptive.start, strategy.adaptive.most)
    return next((step.weight for step in strategy.steps if step.weight is not None), None)


def _rolling(tick: Tick, release: ReleaseState) -> Wish:
    """New replicas fill the surge, old ones leave as new ones are ready; sizes may differ between versions."""
    surge, slack = release.strategy.max_surge, release.strategy.max_unavailable
    if surge == 0 and slack == 0:
        surge = 1
    full, old_full = tick.full(release.version), tick.full(tick.state.stable)
    old = tick.version(tick.state.stable)
    old_there = max(old.seen.running, old.seen.desired) if old and old.seen else old_full
    ready = tick.ready(release.version)
    room = max(full, old_full) + surge - old_there
    replicas = min(full, max(_wanted(tick, release), room))
    left = _left(old_full, ready, full)
    stable_replicas = max(0, min(old_full, left - slack)) if ready < full else 0
    starting = phase_of(release) == "starting"
    return Wish(Goal(release.version, everything=not starting), replicas, stable_replicas, slack)


def _everything(tick: Tick, release: ReleaseState, *, at_once: bool = False) -> Wish:
    """All of the traffic. Stable keeps its size until the router has taken its traffic away; where no router does,
    stable's replicas leave as new ones are ready."""
    full, stable = tick.full(release.version), tick.state.stable
    leaving = None
    if tick.split_by_replicas and stable not in {"", release.version}:
        leaving = _left(tick.full(stable), tick.ready(release.version), full)
    return Wish(Goal(release.version, everything=True, at_once=at_once), full, leaving)


def _left(old_full: int, ready: int, full: int) -> int:
    """Return what the new version's ready replicas leave to carry, in old replicas."""
    return -(-old_full * (full - min(ready, full)) // full)


def _still(tick: Tick, release: ReleaseState, weight: int) -> Wish:
    """Keep what there is: no more weight, no other number of replicas. Where replicas make the split, stable gets back
    what the version's ready replicas cannot carry any more."""
    stable = None
    if tick.stable is not None and (tick.split_by_replicas or release.strategy.name == "rolling"):
        stable = tick.stable.wanted
        if tick.split_by_replicas:
            lost = _left(tick.full(tick.state.stable), tick.ready(release.version), tick.full(release.version))
            stable = max(stable, lost)
    return Wish(Goal(release.version, weight), max(1, _wanted(tick, release)), stable)


def _wanted(tick: Tick, release: ReleaseState) -> int:
    known = tick.version(release.version)
    return known.wanted if known else 0
