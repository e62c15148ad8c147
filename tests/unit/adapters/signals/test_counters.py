"""Sums over counters and intervals: whatever the stores do, they never fall, and nothing counts twice."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.signals import counters
from forge.adapters.signals.counters import LATE, CounterSums, IntervalSums

NUMBERS = st.floats(0, 1e9) | st.sampled_from([math.nan, math.inf, -math.inf, -1.0])
READINGS = st.lists(
    st.dictionaries(st.sampled_from("xy"), st.dictionaries(st.sampled_from("abc"), NUMBERS, max_size=3), max_size=2),
    max_size=12,
)


def again(sums):
    fresh = type(sums)(sums.step) if isinstance(sums, IntervalSums) else CounterSums()
    fresh.restore(json.loads(json.dumps(sums.state())))
    return fresh


@given(READINGS)
def test_sums_never_fall_whatever_the_counters_do(readings):
    sums, before = CounterSums(), {}
    for now, reading in enumerate(readings):
        for name, total in sums.take(reading, now).items():
            assert math.isfinite(total)
            assert total >= before.get(name, 0.0)
            before[name] = total


@given(READINGS, st.integers(0, 12))
def test_a_restart_at_any_time_changes_nothing(readings, restart):
    without, restarted = CounterSums(), CounterSums()
    for now, reading in enumerate(readings):
        if now == restart:
            restarted = again(restarted)
        assert without.take(reading, now) == restarted.take(reading, now)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20), st.sets(st.integers(1, 19)))
def test_true_increments_are_found_through_resets_that_show(increments, resets):
    """A counter that restarts with less than it had has counted from nothing since."""
    sums, value, true = CounterSums(), 0, 0
    sums.take({"n": {"pod": 0}}, 0)
    for now, increment in enumerate(increments, start=1):
        if now in resets and increment < value:
            value = 0
        value += increment
        true += increment
        assert sums.take({"n": {"pod": value}}, now) == {"n": true}


def test_a_reset_of_one_pod_is_not_hidden_by_the_growth_of_another():
    sums = CounterSums()
    sums.take({"n": {"a": 100, "b": 100}}, 0)
    assert sums.take({"n": {"a": 5, "b": 300}}, 1) == {"n": 205}


def test_a_pod_that_is_missing_goes_on_where_it_was_and_a_new_one_starts_at_its_value():
    sums = CounterSums()
    sums.take({"n": {"a": 10}}, 0)
    assert sums.take({"n": {}}, 1) == {"n": 0}
    assert sums.take({"n": {"a": 12, "b": 1000}}, 2) == {"n": 2}
    assert sums.take({"n": {"a": 12, "b": 1001}}, 3) == {"n": 3}


def test_what_is_no_number_is_left_out_and_remembered_as_nothing():
    sums = CounterSums()
    sums.take({"n": {"a": 10}}, 0)
    for nonsense in (math.nan, math.inf, -5.0):
        assert sums.take({"n": {"a": nonsense}}, 1) == {"n": 0}
    assert sums.take({"n": {"a": 11}}, 2) == {"n": 1}


def test_too_many_series_are_forgotten_oldest_first_and_no_sum_falls(monkeypatch):
    monkeypatch.setattr(counters, "SERIES_KEPT", 2)
    sums = CounterSums()
    sums.take({"old": {"a": 0}}, 0)
    assert sums.take({"old": {"a": 7}}, 1) == {"old": 7}
    sums.take({"new": {"a": 0, "b": 0}}, 2)
    assert sum(len(series) for series in sums.state()["seen"].values()) == 2
    assert sums.take({"old": {"a": 9}}, 3) == {"old": 7}
    assert again(sums).take({"old": {"a": 10}}, 4)["old"] == 8


@pytest.mark.parametrize("state", [{"sums": "x"}, {"seen": {"n": {"a": [1]}}}, {"sums": {"n": "many"}}, {"seen": 3}])
def test_a_state_that_does_not_fit_is_ignored(state):
    sums = CounterSums()
    sums.take({"n": {"a": 1}}, 0)
    sums.restore(state)
    assert sums.take({"n": {"a": 3}}, 1) == {"n": 2}


def test_a_state_that_was_taken_does_not_change_any_more():
    sums = CounterSums()
    sums.take({"n": {"a": 0}}, 0)
    taken = sums.state()
    sums.take({"n": {"a": 5}}, 1)
    assert taken == {"sums": {"n": 0.0}, "seen": {"n": {"a": [0, 0]}}}


# --- counts per interval


def test_each_interval_counts_once_and_late_data_adds_what_came():
    sums = IntervalSums(10)
    assert sums.since(1005) == 1000
    assert sums.take({"n": {1000.0: 5}}, 1005) == {"n": 5}
    assert sums.take({"n": {1000.0: 5}}, 1006) == {"n": 5}
    assert sums.take({"n": {1000.0: 8, 1010.0: 1}}, 1012) == {"n": 9}
    assert sums.take({"n": {1000.0: 3, 1010.0: 1}}, 1013) == {"n": 9}


def test_what_was_before_the_first_reading_does_not_count():
    sums = IntervalSums(10)
    assert sums.take({"n": {990.0: 1000, 1000.0: 2}}, 1005) == {"n": 2}


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.dictionaries(st.integers(0, 200), NUMBERS, max_size=5)), max_size=10)
)
def test_sums_of_intervals_never_fall_and_count_each_interval_at_most_once(readings):
    sums, before, largest = IntervalSums(10), 0.0, {}
    for now, slots in readings:
        total = sums.take({"n": {slot * 10.0: count for slot, count in slots.items()}}, float(now))["n"]
        assert total >= before
        before = total
        for slot, count in slots.items():
            if math.isfinite(count):
                largest[slot] = max(largest.get(slot, 0.0), count)
    assert before <= sum(largest.values()) * (1 + 1e-9)


def test_a_clock_that_ran_ahead_and_is_set_back_counts_nothing_twice():
    sums = IntervalSums(10)
    sums.take({"n": {1000.0: 5}}, 1005)
    assert sums.take({"n": {}}, 1005 + 2 * LATE) == {"n": 5}
    assert sums.since(1010) > 1000
    assert sums.take({"n": {1000.0: 5}}, 1010) == {"n": 5}
    assert again(sums).take({"n": {1000.0: 5}}, 1011) == {"n": 5}


def test_the_state_of_intervals_is_bounded_in_time_and_survives():
    sums = IntervalSums(10)
    for now in range(0, 5000, 10):
        sums.take({"n": {float(now): 1}, f"gone at {now // 1000}": {float(now): 1}}, float(now))
    counted = sums.state()["counted"]
    assert len(counted["n"]) <= LATE / 10 + 3
    assert "gone at 0" not in counted
    assert again(sums).take({"n": {4990.0: 4}}, 4995.0) == {"n": 503}
