"""The Mann-Whitney test against enumeration of every way to split a sample in two, and against its own inversion."""

from __future__ import annotations

import itertools
import math
import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.mann_whitney import mann_whitney, u_distribution, u_statistic

values = st.lists(st.integers(-(10**6), 10**6).map(lambda value: value / 8), min_size=1, max_size=12)
tied = st.lists(st.integers(0, 4).map(float), min_size=1, max_size=14)


def enumerated_p(experiment: list[float], control: list[float]) -> float:
    """Two-sided, by trying every choice of which values are the experiment's."""
    pooled, n = experiment + control, len(experiment)
    middle = n * len(control) / 2
    off = abs(u_statistic(experiment, control) - middle)
    hits = total = 0
    for chosen in itertools.combinations(range(len(pooled)), n):
        one = [pooled[i] for i in chosen]
        other = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        total += 1
        hits += abs(u_statistic(one, other) - middle) >= off - 1e-9
    return hits / total


@given(values, values)
def test_the_statistic_counts_pairs(one: list[float], other: list[float]) -> None:
    pairs = sum((a > b) + 0.5 * (a == b) for a in one for b in other)
    assert u_statistic(one, other) == pytest.approx(pairs)
    assert u_statistic(other, one) == pytest.approx(len(one) * len(other) - pairs)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (3, 3), (4, 6), (5, 5)])
def test_the_null_distribution_is_that_of_all_splits(n: int, m: int) -> None:
    counts = [0] * (n * m + 1)
    for chosen in itertools.combinations(range(n + m), n):
        rest = [i for i in range(n + m) if i not in chosen]
        counts[sum(a > b for a in chosen for b in rest)] += 1
    cumulative = list(itertools.accumulate(counts))
    assert u_distribution(n, m) == pytest.approx([count / cumulative[-1] for count in cumulative])


def test_the_largest_exact_distribution_is_one_of_probabilities() -> None:
    cumulative = u_distribution(49, 49)
    assert cumulative[-1] == 1.0
    assert all(below <= above for below, above in itertools.pairwise(cumulative))
    assert cumulative[49 * 49 // 2] == pytest.approx(0.5, abs=0.002)


@given(st.integers(1, 6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_small_samples_are_exact(n: int, m: int, chance: random.Random) -> None:
    pooled = [float(value) for value in chance.sample(range(100), n + m)]
    one, other = pooled[:n], pooled[n:]
    found = mann_whitney(one, other)
    assert found.exact
    assert found.p_value == pytest.approx(enumerated_p(one, other))


@pytest.mark.parametrize("seed", range(6))
def test_the_tie_correction_is_near_the_truth(seed: int) -> None:
    """With ties the normal approximation is used; of 20 values it is within 0.04 of enumeration's p."""
    chance = random.Random(seed)
    one = [float(chance.randrange(5) + seed % 2) for _ in range(9)]
    other = [float(chance.randrange(5)) for _ in range(9)]
    found = mann_whitney(one, other)
    assert not found.exact
    assert found.p_value == pytest.approx(enumerated_p(one, other), abs=0.04)


def test_published_example() -> None:
    """Hollander & Wolfe (1973), p. 69-70, permeability of placental membranes: W = 35, one-sided p = 0.1272."""
    term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    early = [1.15, 0.88, 0.90, 0.74, 1.21]
    found = mann_whitney(term, early)
    assert u_statistic(term, early) == 35
    assert found.p_value == pytest.approx(2 * 0.1272, abs=2e-4)
    assert found.estimate == pytest.approx(0.305)
    wide = mann_whitney(term, early, level=0.95)
    assert wide.interval == pytest.approx((-0.15, 0.76))


@given(st.one_of(st.tuples(values, values), st.tuples(tied, tied)))
def test_laws(pair: tuple[list[float], list[float]]) -> None:
    one, other = pair
    found, mirrored = mann_whitney(one, other), mann_whitney(other, one)
    assert 0 < found.p_value <= 1
    assert found.p_value == pytest.approx(mirrored.p_value)
    assert found.superiority == pytest.approx(1 - mirrored.superiority)
    assert found.estimate == pytest.approx(-mirrored.estimate)
    assert found.estimate == pytest.approx(median(a - b for a in one for b in other))
    assert (found.interval is None) == (mirrored.interval is None)
    if found.interval and mirrored.interval:
        low, high = found.interval
        assert low <= high
        assert (-high, -low) == pytest.approx(mirrored.interval)


@pytest.mark.parametrize(("n", "achievable"), [(4, False), (5, True)])
def test_too_few_values_have_no_interval(n: int, achievable: bool) -> None:
    """2 of C(8, 4) = 70 splits are extreme: 4 against 4 can never give 98 %; of C(10, 5) = 252 they can."""
    found = mann_whitney([float(i) for i in range(100, 100 + n)], [float(i) for i in range(n)])
    assert (found.interval is not None) == achievable


@pytest.mark.parametrize("size", [8, 60])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_interval_is_what_the_test_does_not_reject(size: int, rounded: bool) -> None:
    """Shifts well inside are not rejected at the level, shifts beyond are."""
    chance = random.Random(size)
    one = [round(chance.gauss(3, 2), 1 if rounded else 9) for _ in range(size)]
    other = [round(chance.gauss(0, 2), 1 if rounded else 9) for _ in range(size)]
    found = mann_whitney(one, other)
    assert found.interval
    low, high = found.interval
    for shift, rejected in ((low - 1e-6, True), (low + 1e-6, False), (high - 1e-6, False), (high + 1e-6, True)):
        p_value = mann_whitney([value - shift for value in one], other).p_value
        assert (p_value < 0.02) == rejected


@pytest.mark.parametrize("size", [10, 55])
def test_the_interval_covers_the_shift_as_often_as_it_says(size: int) -> None:
    """98 % of 200: fewer than 190 hits would be a chance of 1 in 400."""
    chance, hits = random.Random(3), 0
    for _ in range(200):
        one = [chance.expovariate(1) + 0.7 for _ in range(size)]
        found = mann_whitney(one, [chance.expovariate(1) for _ in range(size)])
        assert found.interval
        hits += found.interval[0] <= 0.7 <= found.interval[1]
    assert hits >= 190


def test_heavy_ties() -> None:
    same = mann_whitney([0.0] * 15, [0.0] * 15)
    assert (same.p_value, same.interval, same.estimate, same.superiority) == (1.0, (0.0, 0.0), 0.0, 0.5)
    apart = mann_whitney([1.0] * 15, [0.0] * 15)
    assert apart.interval == (1.0, 1.0)
    assert apart.p_value < 1e-4
    assert math.isfinite(mann_whitney([1.0], [1.0]).p_value)


@pytest.mark.parametrize(("one", "other"), [([], [1.0]), ([1.0], [])])
def test_empty_samples_cannot_be_tested(one: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        mann_whitney(one, other)
