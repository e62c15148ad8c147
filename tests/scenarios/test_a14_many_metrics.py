"""A14: fifty metrics of a release that is no worse: the chance that any of them ends it stays at most alpha.

One number is made of all of them, and that is what is held against 1/alpha: fifty metrics are no fifty chances.
"""

from __future__ import annotations

import math
from random import Random

from forge.core.judge.combine import combine_metrics
from forge.core.judge.evidence import CountEvidence, Counts, CountSettings, fresh_counts, log_e, update_counts
from forge.simulate.draws import poisson

METRICS, RUNS, BLOCKS = 50, 400, 6
SETTINGS = CountSettings(ratio=1.0, clump=1.0, block=15.0, gross_ratio=1.0, gross_clump=1.0)
"""No margin at all: every metric uses up what it is allowed, the hardest case for the bound."""
EQUAL = {f"m{index}": 1.0 for index in range(METRICS)}
NEEDED = math.log(100)


def largest(seed: int, worse: float = 1.0) -> tuple[float, float]:
    """Return the largest evidence of all metrics together, and of the metric that had most (both logarithms).

    One metric of the arm is `worse` times stable's. All metrics share the load, so that they are not independent.
    """
    chance = Random(seed)
    states: dict[str, CountEvidence] = {name: fresh_counts(SETTINGS) for name in EQUAL}
    together, alone = -math.inf, -math.inf
    for block in range(1, BLOCKS + 1):
        requests = round(1000 * math.exp(chance.gauss(0, 0.3)))
        for name, state in states.items():
            times = worse if name == "m0" else 1.0
            own = Counts(requests, min(requests, poisson(chance, requests * 0.02 * times)))
            other = Counts(requests, min(requests, poisson(chance, requests * 0.02)))
            states[name] = update_counts(state, SETTINGS, own, other, 15.0 * block)
        told = {name: log_e(state) for name, state in states.items()}
        together = max(together, combine_metrics(EQUAL, told))
        alone = max(alone, *told.values())
    return together, alone


def test_fifty_metrics_of_a_good_release_end_it_no_more_often_than_one() -> None:
    """At the bound of 1 % more than 10 of 400 come once in 350 such tests."""
    found = [largest(seed) for seed in range(RUNS)]
    assert sum(together >= NEEDED for together, _ in found) <= 10
    # The same data asked fifty times over: that is what the average is for.
    assert sum(alone >= NEEDED for _, alone in found) > sum(together >= NEEDED for together, _ in found)


def test_one_bad_metric_of_fifty_is_found_all_the_same() -> None:
    assert all(largest(seed, worse=5.0)[0] >= NEEDED for seed in range(20))
