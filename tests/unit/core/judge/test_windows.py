"""Differences of cumulative counters, and quantiles of the histograms between them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.windows import LARGEST, quantile, storable, window
from forge.model.traffic import Sample

COUNTS = st.lists(st.integers(0, 50), min_size=2, max_size=30)


def series(increments: list[int], *, failed: int = 0) -> tuple[Sample, ...]:
    total, samples = 0, []
    for second, increment in enumerate(increments):
        total += increment
        samples.append(Sample(float(second), total, min(total, failed * second)))
    return tuple(samples)


@given(COUNTS, st.floats(-5, 40))
def test_a_window_counts_what_came_after_its_beginning(increments: list[int], start: float) -> None:
    samples = series(increments)
    found = window(samples, start)
    assert found is not None
    first = max((index for index, sample in enumerate(samples[:-1]) if sample.at <= start), default=0)
    assert found.requests == sum(increments[first + 1 :])
    assert found.seconds == samples[-1].at - samples[first].at
    assert 0 <= found.error_rate <= 1


@pytest.mark.parametrize("samples", [(), (Sample(1.0, 5, 0),), (Sample(1.0, 5, 0), Sample(1.0, 9, 0))])
def test_without_two_readings_there_is_no_window(samples: tuple[Sample, ...]) -> None:
    assert window(samples, 0.0) is None


def test_a_counter_that_fell_counts_nothing() -> None:
    found = window((Sample(1.0, 100, 7, ((0.1, 50), (1.0, 100))), Sample(2.0, 10, 1, ((0.1, 3), (1.0, 10)))), 0.0)
    assert found is not None
    assert (found.requests, found.errors) == (0, 0)
    assert found.latency == ((0.1, 0), (1.0, 0))


def test_a_bucket_that_is_new_begins_at_zero_and_the_histogram_keeps_rising() -> None:
    found = window((Sample(1.0, 0, 0, ((1.0, 5),)), Sample(2.0, 10, 0, ((0.1, 4), (1.0, 8)))), 0.0)
    assert found is not None
    assert found.latency == ((0.1, 4), (1.0, 4))


def test_cores_are_measured_between_the_readings_that_have_them() -> None:
    samples = (
        Sample(0.0, 0, 0),
        Sample(10.0, 0, 0, cpu_seconds=2.0),
        Sample(20.0, 0, 0, cpu_seconds=7.0),
        Sample(30.0, 0, 0),
    )
    found = window(samples, 0.0)
    assert found is not None
    assert found.cores == pytest.approx(0.5)
    late = window(samples, 25.0)
    assert late is not None
    assert late.cores is None


def test_memory_is_the_largest_in_the_window() -> None:
    samples = (Sample(0.0, 0, 0, memory=900), Sample(10.0, 0, 0, memory=300), Sample(20.0, 0, 0, memory=200))
    assert [window(samples, start).memory for start in (0.0, 10.0)] == [900, 300]  # type: ignore[union-attr]


class TestQuantile:
    BUCKETS = ((0.1, 50), (0.2, 90), (0.5, 100), (LARGEST, 100))

    @pytest.mark.parametrize(("q", "expected"), [(0.25, 0.05), (0.5, 0.1), (0.7, 0.15), (0.95, 0.35), (1.0, 0.5)])
    def test_is_interpolated_in_its_bucket(self, q: float, expected: float) -> None:
        value, beyond = quantile(self.BUCKETS, q) or (None, None)
        assert value == pytest.approx(expected)
        assert beyond is False

    def test_beyond_the_last_bound_only_that_much_is_known(self) -> None:
        assert quantile(((0.1, 50), (LARGEST, 100)), 0.99) == (0.1, True)
        assert quantile(((0.1, 50), (math.inf, 100)), 0.99) == (0.1, True)

    @pytest.mark.parametrize("buckets", [(), ((0.1, 0), (1.0, 0))])
    def test_of_nothing_is_nothing(self, buckets: tuple[tuple[float, int], ...]) -> None:
        assert quantile(buckets, 0.5) is None

    @given(st.lists(st.floats(0.001, 4.9), min_size=1, max_size=200), st.floats(0.01, 1.0))
    def test_lies_in_the_bucket_of_the_true_quantile(self, values: list[float], q: float) -> None:
        bounds = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
        buckets = tuple((bound, sum(value <= bound for value in values)) for bound in bounds)
        true = sorted(values)[max(0, math.ceil(q * len(values) - 1e-9) - 1)]
        found = quantile(buckets, q)
        assert found is not None
        upper = next(bound for bound in bounds if true <= bound)
        lower = max((bound for bound in (0.0, *bounds) if bound < upper), default=0.0)
        assert lower <= found[0] <= upper + 1e-9

    @given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
    def test_rises_with_q(self, counts: list[int], one: float, other: float) -> None:
        buckets = tuple((0.1 * (index + 1), sum(counts[: index + 1])) for index in range(len(counts)))
        low, high = quantile(buckets, min(one, other)), quantile(buckets, max(one, other))
        if low is not None and high is not None:
            assert low[0] <= high[0] + 1e-12


def test_infinite_bounds_are_written_as_a_number_that_json_has() -> None:
    sample = Sample(1.0, 1, 0, ((0.1, 1), (math.inf, 1)))
    assert storable(sample).latency == ((0.1, 1), (LARGEST, 1))
    assert storable(storable(sample)) == storable(sample)


def test_what_is_not_a_number_is_no_reading() -> None:
    odd = Sample(
        1.0, 10, 1, ((float("inf"), 10),), float("nan"), None, values=(("queue", float("nan")), ("users", 3.0)),
    )  # fmt: skip
    kept = storable(odd)
    assert kept.cpu_seconds is None
    assert kept.values == (("users", 3.0),)
