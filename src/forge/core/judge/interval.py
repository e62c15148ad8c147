"""For people: how many times as often the arm fails as stable, as an interval that holds at every time at once.

Like the evidence, it conditions on each block's total of errors; see docs/judge.md 3.1. The upper bound of a rate
is the Beta(1/2, 1/2) mixture of Robbins (1970), valid at every number of requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from forge.core.judge.evidence import Counts

POINTS = 160
LOWEST, HIGHEST = math.log(1 / 20), math.log(1000)
GRID = tuple(LOWEST + (HIGHEST - LOWEST) * index / (POINTS - 1) for index in range(POINTS))
WEIGHTS = tuple(math.exp(point) for point in GRID)


class RatioInterval(msgspec.Struct, frozen=True):
    """The log likelihood at each point of the grid of log ratios, up to a common constant."""

    likelihood: tuple[float, ...] = ()


def fresh_interval() -> RatioInterval:
    """Return the state before anything was seen: every ratio is possible."""
    return RatioInterval()


def update_interval(state: RatioInterval, arm: Counts, stable: Counts, clump: float = 1.0) -> RatioInterval:
    """Take in one block. A block without an error, or that one of the two did not see, changes nothing."""
    total = arm.errors + stable.errors
    if not total or not arm.requests or not stable.requests:
        return state
    votes = min(total, max(1.0, clump))
    before = state.likelihood or (0.0,) * POINTS
    grown = [
        old + (arm.errors * point - total * math.log(arm.requests * weight + stable.requests)) / votes
        for old, point, weight in zip(before, GRID, WEIGHTS, strict=True)
    ]
    top = max(grown)
    # Relative to the top and to four digits: the state stays small, and no interval is that fine.
    return RatioInterval(tuple(round(max(value - top, -999.0), 4) for value in grown))


def ratio_interval(state: RatioInterval, level: float = 0.95) -> tuple[float, float]:
    """Return the smallest and the largest ratio that the data do not exclude, at every time at once."""
    if not state.likelihood:
        return 0.0, math.inf
    mean = math.log(math.fsum(math.exp(value) for value in state.likelihood) / POINTS)
    bound = math.log(1 / (1 - level))
    inside = [index for index, value in enumerate(state.likelihood) if mean - value < bound]
    if not inside:
        inside = [max(range(POINTS), key=state.likelihood.__getitem__)]
    low = 0.0 if inside[0] == 0 else WEIGHTS[inside[0]]
    high = math.inf if inside[-1] == POINTS - 1 else WEIGHTS[inside[-1]]
    return low, high


def upper_rate(errors: int, requests: int, level: float = 0.95) -> float:
    """Return the largest error rate that `errors` of `requests` do not exclude, at every number of requests."""
    if requests <= 0:
        return 1.0
    good = requests - errors
    mixture = math.lgamma(errors + 0.5) + math.lgamma(good + 0.5) - math.lgamma(requests + 1.0) - math.log(math.pi)
    target = mixture - math.log(1 / (1 - level))
    low, high = errors / requests, 1.0
    if good == 0:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        fits = errors * math.log(middle) if errors else 0.0
        if middle < 1 and fits + good * math.log1p(-middle) > target:
            low = middle
        else:
            high = middle
    return high


def interval_of(blocks: Sequence[tuple[Counts, Counts]], clump: float = 1.0) -> RatioInterval:
    """Return the state after all of `blocks` (arm, stable) at once: what `update_interval` says one by one."""
    terms = [
        (arm.errors, arm.requests, stable.requests, arm.errors + stable.errors)
        for arm, stable in blocks
        if arm.errors + stable.errors and arm.requests and stable.requests
    ]
    if not terms:
        return RatioInterval()
    votes = [min(total, max(1.0, clump)) for _, _, _, total in terms]
    slope = math.fsum(errors / vote for (errors, *_), vote in zip(terms, votes, strict=True))
    flat = [(own, other, total / vote) for (_, own, other, total), vote in zip(terms, votes, strict=True)]
    log = math.log
    grown = [
        point * slope - sum([part * log(own * weight + other) for own, other, part in flat])
        for point, weight in zip(GRID, WEIGHTS, strict=True)
    ]
    top = max(grown)
    return RatioInterval(tuple(round(max(value - top, -999.0), 4) for value in grown))


def excluded(errors: int, requests: int, rate: float, level: float = 0.95) -> bool:
    """Whether `errors` of `requests` exclude `rate` and all above it: `upper_rate` below it, in one step."""
    if requests <= 0 or not errors / requests < rate < 1:
        return requests > 0 and rate >= 1
    good = requests - errors
    mixture = math.lgamma(errors + 0.5) + math.lgamma(good + 0.5) - math.lgamma(requests + 1.0) - math.log(math.pi)
    told = (errors * math.log(rate) if errors else 0.0) + good * math.log1p(-rate)
    return told <= mixture - math.log(1 / (1 - level))
