"""Without a service's history: gross faults are found within seconds, and good releases are left alone all the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest

from forge.core.judge.calibrate import FALLBACK, Calibration
from forge.core.judge.evidence import Counts, fresh_counts, log_e, update_counts
from forge.core.judge.settings import SequentialSettings
from forge.simulate.draws import binomial, poisson

FIRES = math.log(100)
UNKNOWN = SequentialSettings().counts(FALLBACK)
Draw = Callable[[Random, int, str, int], int]


def independent(rate: float) -> Draw:
    return lambda chance, requests, _who, _second: binomial(chance, requests, rate)


def clumped(rate: float) -> Draw:
    """Errors come in clumps of 10 in the mean, of any size (geometric)."""

    def draw(chance: Random, requests: int, _who: str, _second: int) -> int:
        clumps = poisson(chance, requests * rate / 10)
        sizes = (1 + int(math.log(1 - chance.random()) / math.log(0.9)) for _ in range(clumps))
        return min(requests, sum(sizes))

    return draw


def wandering(rate: float) -> Draw:
    """Each version's own rate wanders by half for half a minute, without anybody's fault."""
    off: dict[str, float] = {}

    def draw(chance: Random, requests: int, who: str, _second: int) -> int:
        keep = math.exp(-1 / 30)
        fresh = chance.gauss(0, 0.5 * math.sqrt(1 - keep * keep))
        off[who] = keep * off[who] + fresh if who in off else chance.gauss(0, 0.5)
        return binomial(chance, requests, min(1.0, rate * math.exp(off[who] - 0.125)))

    return draw


def bursting(rate: float) -> Draw:
    """Every minute 10 seconds in which a tenth of both versions' answers are errors."""
    return lambda chance, requests, _who, second: binomial(chance, requests, 0.1 if second % 60 < 10 else rate)


def rollback(seed: int, rps: float, weight: float, own: Draw, other: Draw, seconds: int) -> tuple[int, int] | None:
    """Return (second, failed requests) of the rollback, or None."""
    chance, state, failed = Random(seed), fresh_counts(UNKNOWN), 0
    for second in range(1, seconds + 1):
        requests, others = poisson(chance, rps * weight), poisson(chance, rps * (1 - weight))
        errors = own(chance, requests, "arm", second)
        failed += errors
        counts = Counts(requests, errors), Counts(others, other(chance, others, "stable", second))
        state = update_counts(state, UNKNOWN, *counts, float(second))
        if log_e(state) >= FIRES:
            return second, failed
    return None


@pytest.mark.parametrize(
    ("rps", "weight", "kind", "rate"),
    [
        (60.0, 0.25, independent, 0.02),
        (60.0, 0.05, clumped, 0.01),
        (1000.0, 0.05, clumped, 0.0005),
        (60.0, 0.5, wandering, 0.05),
        (500.0, 0.25, bursting, 0.001),
    ],
)
def test_no_good_release_is_rolled_back(rps: float, weight: float, kind: Callable[[float], Draw], rate: float) -> None:
    """A judge at its bound of 1 % rolls back more than 4 of 60 once in 3,000 such tests."""
    found = [rollback(seed, rps, weight, (shared := kind(rate)), shared, 240) for seed in range(60)]
    assert sum(one is not None for one in found) <= 4


@pytest.mark.parametrize(
    ("rps", "weight", "rate", "most"),
    [(150.0, 0.05, 0.25, 8.7), (60.0, 0.05, 1.0, 10), (60.0, 0.25, 0.3, 36), (60.0, 0.25, 1.0, 95)],
)
def test_a_gross_fault_costs_few_requests_without_history(rps: float, weight: float, rate: float, most: float) -> None:
    """On these seeds it costs 8.2, 8.6, 30 and 74; with the settings before 9.0, 11, 42 and 137. `most` lies between."""
    found = [rollback(seed, rps, weight, independent(rate), independent(0.0), 120) for seed in range(20)]
    costs = [one[1] for one in found if one is not None]
    assert len(costs) == 20
    assert sum(costs) / 20 <= most


def test_history_makes_the_gross_channel_only_more_careful() -> None:
    noisy, clean = Calibration(80.0, 5.0, 1800.0), Calibration(1.0, 1.0, 1800.0)
    settings = SequentialSettings()
    assert settings.counts(noisy).gross_clump == 80
    assert settings.counts(clean).gross_clump == UNKNOWN.gross_clump == 10
    said = SequentialSettings(clump=30.0)
    assert said.counts(said.calibrated(FALLBACK)).gross_clump == 30
