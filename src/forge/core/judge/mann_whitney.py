"""The Mann-Whitney test of two samples, its confidence interval, and the Hodges-Lehmann estimate of the shift.

Exact for small samples without ties, else by the normal approximation with corrections for ties and continuity,
as textbooks have it (Hollander & Wolfe, Nonparametric Statistical Methods, chapter 4).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, median

import msgspec

EXACT_BELOW = 50
"""Samples of fewer values than this, both, without ties, are tested exactly."""
_NORMAL = NormalDist()


class MannWhitneyTest(msgspec.Struct, frozen=True):
    """Two-sided p-value; interval and estimate of how much larger `experiment` is than `control`; and how often
    one of its values is larger than one of control's (`superiority`, ties half).

    The interval is None when there are too few values for its level.
    """

    p_value: float
    interval: tuple[float, float] | None
    estimate: float
    superiority: float
    exact: bool


def mann_whitney(experiment: Sequence[float], control: Sequence[float], level: float = 0.98) -> MannWhitneyTest:
    """Test whether `experiment` is shifted against `control`. Raises ValueError when either is empty."""
    if not experiment or not control:
        raise ValueError("both samples need at least one value")
    n, m = len(experiment), len(control)
    statistic = u_statistic(experiment, control)
    differences = sorted(one - other for one in experiment for other in control)
    exact = max(n, m) < EXACT_BELOW and len({*experiment, *control}) == n + m
    if exact:
        p_value, interval = _exact_p(statistic, n, m), _exact_interval(differences, n, m, level)
    else:
        p_value = _normal_p(statistic, n, m, Counter((*experiment, *control)))
        interval = _normal_interval(experiment, control, differences, level)
    return MannWhitneyTest(p_value, interval, median(differences), statistic / (n * m), exact)


def u_statistic(experiment: Sequence[float], control: Sequence[float]) -> float:
    """Return of how many pairs the value of `experiment` is the larger; a tie counts half."""
    ordered = sorted(control)
    return math.fsum((bisect_left(ordered, value) + bisect_right(ordered, value)) / 2 for value in experiment)


@lru_cache(maxsize=256)
def u_distribution(n: int, m: int) -> tuple[float, ...]:
    """Return P(U <= u) for u = 0 … n·m under the null, without ties."""
    # The counts are the coefficients of a Gaussian binomial: multiply by 1 - q^(m+i), divide by 1 - q^i.
    counts = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for u in range(n * m, m + i - 1, -1):
            counts[u] -= counts[u - m - i]
        for u in range(i, n * m + 1):
            counts[u] += counts[u - i]
    whole, running, cumulative = math.comb(n + m, n), 0, []
    for count in counts:
        running += count
        cumulative.append(running / whole)
    return tuple(cumulative)


def _exact_p(statistic: float, n: int, m: int) -> float:
    cumulative = u_distribution(n, m)
    least = round(min(statistic, n * m - statistic))
    return min(1.0, 2 * cumulative[least])


def _exact_interval(differences: list[float], n: int, m: int, level: float) -> tuple[float, float] | None:
    cumulative = u_distribution(n, m)
    # The largest number of differences that may lie outside on each side.
    outside = bisect_right(cumulative, (1 - level) / 2 + 1e-12)
    if outside == 0:
        return None
    return differences[outside - 1], differences[n * m - outside]


def _spread(n: int, m: int, ties: Counter[float]) -> float:
    """Return the standard deviation of U under the null."""
    total = n + m
    tied = math.fsum(count**3 - count for count in ties.values())
    return math.sqrt(max(0.0, n * m / 12 * ((total + 1) - tied / (total * (total - 1)))))


def _normal_p(statistic: float, n: int, m: int, ties: Counter[float]) -> float:
    spread, off = _spread(n, m, ties), abs(statistic - n * m / 2)
    if spread == 0:
        return 1.0
    return min(1.0, 2 * (1 - _NORMAL.cdf(max(0.0, off - 0.5) / spread)))


def _normal_interval(
    experiment: Sequence[float], control: Sequence[float], differences: list[float], level: float
) -> tuple[float, float] | None:
    """Return the shifts that the test does not reject; its verdict changes only at differences of two values."""
    n, m = len(experiment), len(control)
    critical = _NORMAL.inv_cdf((1 + level) / 2)
    if n * m / 2 - 0.5 < critical * _spread(n, m, Counter()):
        return None
    steps = sorted(set(differences))
    low = _crossing(experiment, control, steps, critical)
    high = _crossing([-value for value in experiment], [-value for value in control], [-s for s in reversed(steps)], critical)  # fmt: skip
    return low, -high


def _crossing(experiment: Sequence[float], control: Sequence[float], steps: list[float], critical: float) -> float:
    """Return the first of `steps` beyond which `experiment`, shifted down by as much, is not significantly larger."""
    n, m = len(experiment), len(control)
    first, last = 0, len(steps) - 1
    while first < last:
        middle = (first + last) // 2
        shift = (steps[middle] + steps[middle + 1]) / 2
        shifted = [value - shift for value in experiment]
        above = u_statistic(shifted, control) - n * m / 2 - 0.5
        if above > critical * _spread(n, m, Counter((*shifted, *control))):
            first = middle + 1
        else:
            last = middle
    return steps[first]
