"""How a strategy goes when it has to go carefully: in small steps, and watched longer at the end."""

from __future__ import annotations

from msgspec.structs import replace

from forge.core.policy.gates import Limits
from forge.model.strategy import Adaptive, Strategy, StrategyStep
from forge.model.units import WHOLE

LOOK = 60.0
"""Seconds at each step that was put in where the strategy itself has no pause before."""


def careful(strategy: Strategy, limits: Limits, *, done: int = 0) -> Strategy:
    """Return the strategy with no step larger than allowed and no shorter bake; the first `done` steps stay.

    A larger step becomes several, each watched as long as the strategy pauses before it. A strategy that moves replicas
    or everything at once becomes a canary. An adaptive canary keeps its own pace: no change of its weight is larger,
    nor the last one to all of the traffic. Applied again, it changes nothing.
    """
    made = replace(strategy, bake=max(strategy.bake, limits.bake))
    if limits.largest_step is None or limits.largest_step >= WHOLE:
        return made
    largest = max(1, limits.largest_step)
    if strategy.adaptive is not None:
        return replace(made, adaptive=_careful_growth(strategy.adaptive, largest))
    if strategy.name != "canary":
        return replace(made, name="canary", steps=tuple(_stairs(0, WHOLE, largest, LOOK, open_end=True)))
    steps = list(strategy.steps[:done])
    here, pause = next((step.weight for step in reversed(steps) if step.weight is not None), 0), LOOK
    for step in strategy.steps[done:]:
        if step.weight is not None:
            steps += _stairs(here, step.weight, largest, pause)
            here, pause = step.weight, LOOK
        elif step.pause:
            pause = step.pause
        if step.weight is None:
            steps.append(step)
    steps += _stairs(here, WHOLE, largest, pause, open_end=True)
    return replace(made, steps=tuple(steps))


def _careful_growth(adaptive: Adaptive, largest: int) -> Adaptive:
    """The weight goes on in steps of at most `largest` until what is left is no larger step either."""
    step = largest if adaptive.largest_step is None else min(largest, adaptive.largest_step)
    return replace(adaptive, largest_step=step, most=max(adaptive.most, WHOLE - step))


def _stairs(here: int, there: int, largest: int, pause: float, *, open_end: bool = False) -> list[StrategyStep]:
    """Steps from one weight to another; with `open_end` the last one is left to the promotion."""
    stairs: list[StrategyStep] = []
    while there - here > largest:
        here += largest
        stairs += [StrategyStep(weight=here), StrategyStep(pause=pause)]
    return stairs if open_end else [*stairs, StrategyStep(weight=there)]
