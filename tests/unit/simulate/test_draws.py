"""Random numbers: their means and spreads, and that they stay in their bounds."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.simulate.draws import binomial, clumped, poisson, spread


@pytest.mark.parametrize("mean", [0.3, 5.0, 39.0, 200.0])
def test_poisson_has_its_mean_and_its_variance(mean: float) -> None:
    rng = Random(1)
    drawn = [poisson(rng, mean) for _ in range(4000)]
    average = sum(drawn) / len(drawn)
    variance = sum((each - average) ** 2 for each in drawn) / len(drawn)
    assert average == pytest.approx(mean, abs=5 * math.sqrt(mean / len(drawn)))
    assert variance == pytest.approx(mean, rel=0.12)


@pytest.mark.parametrize(("trials", "chance"), [(10, 0.3), (1000, 0.002), (1000, 0.4), (50, 0.97), (100_000, 0.5)])
def test_binomial_has_its_mean_and_its_variance(trials: int, chance: float) -> None:
    rng = Random(2)
    drawn = [binomial(rng, trials, chance) for _ in range(4000)]
    mean, variance = trials * chance, trials * chance * (1 - chance)
    average = sum(drawn) / len(drawn)
    assert average == pytest.approx(mean, abs=5 * math.sqrt(variance / len(drawn)))
    assert sum((each - average) ** 2 for each in drawn) / len(drawn) == pytest.approx(variance, rel=0.12)


@given(trials=st.integers(-3, 2000), chance=st.floats(-0.5, 1.5), seed=st.integers(0, 10_000))
@settings(deadline=None)
def test_a_binomial_draw_stays_between_nothing_and_all(trials: int, chance: float, seed: int) -> None:
    assert 0 <= binomial(Random(seed), trials, chance) <= max(0, trials)


def test_clumps_have_the_same_mean_and_a_wider_spread() -> None:
    rng = Random(3)
    alone = [clumped(rng, 500, 0.05, 1.0) for _ in range(4000)]
    together = [clumped(rng, 500, 0.05, 10.0) for _ in range(4000)]
    assert sum(together) / 4000 == pytest.approx(25, rel=0.06)

    def variance(drawn: list[int]) -> float:
        return sum((each - 25) ** 2 for each in drawn) / len(drawn)

    assert variance(together) > 8 * variance(alone)


@given(trials=st.integers(0, 500), weights=st.lists(st.integers(0, 9), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(deadline=None)
def test_spreading_loses_nobody(trials: int, weights: list[int], seed: int) -> None:
    total = sum(weights) or 1
    shares = tuple(weight / total for weight in weights) if sum(weights) else (1.0,)
    counts = spread(Random(seed), trials, shares)
    assert sum(counts) == trials
    assert all(count >= 0 for count in counts)
    assert all(not count for count, share in zip(counts[:-1], shares[:-1], strict=True) if share == 0)
