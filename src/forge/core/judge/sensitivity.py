"""What a step can see, said before it starts: the smallest increase of errors that it finds, and with what chance.

A normal approximation of the log evidence at the step's end: at the alternative, the bet nearest to it grows by
its mean less the quantile of its spread. Tested against the evidence itself by simulation.
"""

from __future__ import annotations

import math

from forge.core.judge.evidence import RATIOS, CountSettings, multiples
from forge.model.units import format_duration, format_weight

ALPHA = 0.01
EXACT = 1e-4
"""Relative: people are told two digits."""
_QUANTILES = {0.5: 0.0, 0.8: 0.8416, 0.9: 1.2816, 0.95: 1.6449, 0.99: 2.3263}


def detectable(
    stable_rate: float,
    requests_per_second: float,
    weight: float,
    seconds: float,
    settings: CountSettings,
    power: float = 0.9,
    *,
    share: float = 1.0,
    alpha: float = ALPHA,
) -> float:
    """Return the least absolute increase of the error rate that is found with that power, 1 if there is none.

    `weight` is the arm's fraction of the traffic; `share` is the metric's part of the whole evidence.
    Raises ValueError for a power that is not one of 0.5, 0.8, 0.9, 0.95, 0.99.
    """
    if power not in _QUANTILES:
        raise ValueError(f"the power is one of {', '.join(map(str, _QUANTILES))}")
    arm, stable = requests_per_second * weight * seconds, requests_per_second * (1 - weight) * seconds
    if arm <= 0 or stable <= 0:
        return 1.0
    low, high = 0.0, 1.0 - stable_rate
    if not _found(stable_rate + high, stable_rate, arm, stable, settings, power, share, alpha, seconds):
        return 1.0
    while high - low > EXACT * high:
        middle = (low + high) / 2
        if _found(stable_rate + middle, stable_rate, arm, stable, settings, power, share, alpha, seconds):
            high = middle
        else:
            low = middle
    return high


def sentence(weight: int, seconds: float, increase: float, power: float = 0.9) -> str:
    """Say it for people: `weight` in basis points, `increase` as a fraction."""
    where = f"at {format_weight(weight)} for {format_duration(seconds)}"
    if increase >= 1:
        return f"{where} this step proves nothing: too few requests to find any increase of errors"
    return f"{where} this finds +{increase * 100:.2g} points of errors with {power * 100:.0f} % probability"


def _found(
    rate: float, stable_rate: float, arm: float, stable: float, settings: CountSettings, power: float, share: float,
    alpha: float, seconds: float,
) -> bool:  # fmt: skip
    quantile = _QUANTILES[power]
    blocks = max(1.0, seconds / max(settings.block, 1.0))
    # 2: the channel's half of the metric; 2: the stake placed from the start; then its part among the bets.
    needed = math.log(4 * len(RATIOS) / (alpha * share))
    if all(_relative(rate, stable_rate, arm, stable, settings, quantile, worse, blocks) < needed for worse in RATIOS):
        return False
    bets = multiples(settings.rate)
    needed = math.log(4 * len(bets) / (alpha * share))
    return any(_absolute(rate, arm, settings, quantile, bet, blocks) >= needed for bet in bets)


def _relative(
    rate: float, stable_rate: float, arm: float, stable: float, settings: CountSettings, quantile: float,
    worse: float, blocks: float,
) -> float:  # fmt: skip
    weighed = arm * settings.ratio
    tolerated, supposed = weighed / (weighed + stable), weighed * worse / (weighed * worse + stable)
    own, other = math.log(supposed / tolerated), math.log((1 - supposed) / (1 - tolerated))
    bad, good = arm * rate, stable * stable_rate
    clump = _bounded((bad + good) / blocks, settings.clump)
    return (bad * own + good * other) / clump - quantile * math.sqrt(bad * own**2 + good * other**2) / clump


def _absolute(
    rate: float, arm: float, settings: CountSettings, quantile: float, multiple: float, blocks: float
) -> float:
    bad, good = arm * rate, arm * (1 - rate)
    own = math.log(multiple)
    other = math.log((1 - settings.rate * multiple) / (1 - settings.rate))
    clump = _bounded(bad / blocks, settings.clump)
    return (bad * own + good * other) / clump - quantile * math.sqrt(bad) * (own - other) / clump


def _bounded(errors: float, clump: float) -> float:
    return max(1.0, min(errors, clump))
