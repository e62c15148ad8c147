"""Random numbers that the standard library of Python 3.11 does not have. The source of randomness is passed in."""

from __future__ import annotations

import math
from random import Random

_EXACT = 40.0
"""Up to this mean a draw is exact; beyond it the normal approximation is closer than anybody can see."""


def poisson(rng: Random, mean: float) -> int:
    """Return how many independent arrivals there were when `mean` are expected."""
    if mean <= 0:
        return 0
    if mean > _EXACT:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def binomial(rng: Random, trials: int, chance: float) -> int:
    """Return how many of `trials` come true, each with probability `chance` (held to 0 to 1)."""
    if trials <= 0 or chance <= 0:
        return 0
    if chance >= 1:
        return trials
    if chance > 0.5:
        return trials - binomial(rng, trials, 1 - chance)
    mean = trials * chance
    if mean > _EXACT:
        drawn = round(rng.gauss(mean, math.sqrt(mean * (1 - chance))))
        return min(trials, max(0, drawn))
    return _by_gaps(rng, trials, chance)


def clumped(rng: Random, trials: int, chance: float, clump: float) -> int:
    """Return how many of `trials` come true when they come in geometric clumps of `clump` in the mean.

    The mean is that of `binomial`; the spread is wider, as with retry storms and clients that stick to a replica.
    """
    if clump <= 1:
        return binomial(rng, trials, chance)
    total, end = 0, math.log(1 - 1 / clump)
    for _ in range(poisson(rng, trials * chance / clump)):
        total += 1 + int(math.log(1 - rng.random()) / end)
    return min(trials, total)


def spread(rng: Random, trials: int, shares: tuple[float, ...]) -> list[int]:
    """Return how `trials` fall into bins with these shares, which sum to 1."""
    counts, left, rest = [], trials, 1.0
    for share in shares[:-1]:
        drawn = binomial(rng, left, share / rest if rest > 0 else 1.0) if left else 0
        counts.append(drawn)
        left -= drawn
        rest -= share
    return [*counts, left]


def _by_gaps(rng: Random, trials: int, chance: float) -> int:
    """Jump from success to success: as many steps as there are successes, whatever the number of trials."""
    step = math.log1p(-chance)
    count, at = 0, -1.0
    while True:
        gap = math.log1p(-rng.random()) / step if step else math.inf
        at += 1 + gap // 1
        if not at < trials:
            return count
        count += 1
