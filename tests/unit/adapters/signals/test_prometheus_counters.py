"""Raw samples of counters, whatever comes: sums never fall, count nothing twice, and survive a restart of Forge."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.signals import prometheus_counters
from forge.adapters.signals.prometheus_counters import GONE, RangeCounters, series_key

VALUES = st.one_of(
    st.integers(0, 10**9).map(float),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -1.0, math.nan, math.inf, -math.inf, 2.0**53]),
)
SAMPLES = st.lists(st.tuples(st.integers(0, 200).map(float), VALUES), max_size=12)
LOOKS = st.lists(st.lists(st.tuples(st.sampled_from("abc"), SAMPLES), max_size=4), max_size=6)
STEPS = st.lists(st.one_of(st.integers(0, 50), st.just("restart"), st.just("gap")), min_size=1, max_size=40)


def served(steps):
    """The raw samples of one replica, and how much it counted after its first scrape.

    A number is what was served until the next scrape; after a restart the process begins from nothing; in a gap there
    is no scrape. A replica that restarts serves so little until the next scrape that its counter is seen to fall.
    """
    value, total, samples, missed = 100.0, 0.0, [(0.0, 100.0)], False
    for at, step in enumerate(steps, 1):
        if step == "gap":
            missed = True
            continue
        if step == "restart":
            if missed or value == 0:
                continue
            value = 0.0
        else:
            value, total, missed = value + step, total + step, False
        samples.append((float(at), value))
    return samples, total


def again(counters):
    """The same after a restart of Forge."""
    found = RangeCounters()
    found.restore(json.loads(json.dumps(counters.state())))
    return found


@given(LOOKS)
def test_sums_never_fall_whatever_the_samples_are(looks):
    counters, before = RangeCounters(), {}
    for now, look in enumerate(looks):
        for series, samples in look:
            counters.take(series, samples, ("all", series), series)
            for name in ("all", series):
                total = counters.total(name)
                assert total >= before.get(name, 0)
                before[name] = total
        counters.looked([series for series, _ in look], float(now))
        json.dumps(counters.state(), allow_nan=False)


@pytest.mark.parametrize("huge", [1.7e308, math.inf, 2.0**61])
def test_what_no_counter_can_be_is_left_out(huge):
    counters = RangeCounters()
    samples = [(1.0, 10.0), (2.0, huge), (3.0, 0.0), (4.0, huge), (math.inf, 3.0), (5.0, 7.0)]
    counters.take("series", samples, ("all",), "replica")
    counters.add("all", huge)
    assert counters.total("all") == 7


@given(LOOKS, st.integers(0, 5))
def test_a_restart_of_forge_changes_nothing(looks, when):
    steady, restarted = RangeCounters(), RangeCounters()
    for now, look in enumerate(looks):
        if now == when:
            restarted = again(restarted)
        for counters in (steady, restarted):
            for series, samples in look:
                counters.take(series, samples, ("all",), series)
            counters.looked([series for series, _ in look], float(now))
        assert restarted.total("all") == steady.total("all")
    assert restarted.state() == steady.state()


@given(STEPS, st.lists(st.integers(1, 12), min_size=1, max_size=12))
def test_what_was_served_is_what_is_counted_however_the_looks_overlap(steps, sizes):
    samples, true = served(steps)
    counters, at = RangeCounters(), 0
    while at < len(samples):
        for size in sizes:
            # A look reads from up to five samples before the last one: what was seen before counts no second time.
            counters.take("series", samples[max(0, at - 5) : at + size], ("all",), "replica")
            counters.looked(["replica"], float(at))
            at += size
    assert counters.total("all") == true


@given(st.integers(1, 1000), st.booleans())
def test_a_series_that_is_born_counts_from_nothing_and_one_that_was_only_found_does_not(first, known):
    counters = RangeCounters()
    if known:
        counters.take("ok", [(1.0, 50.0)], ("all",), "replica")
        counters.looked(["replica"], 1.0)
    counters.take("bad", [(2.0, float(first))], ("all", "bad"), "replica")
    assert counters.total("bad") == (first if known else 0)


def test_two_series_of_a_new_replica_are_both_only_found():
    counters = RangeCounters()
    for series in ("ok", "bad"):
        counters.take(series, [(1.0, 70.0)], ("all",), "replica")
    counters.looked(["replica"], 1.0)
    assert counters.total("all") == 0


def test_a_replica_that_comes_back_after_an_hour_is_a_new_one():
    counters = RangeCounters()
    counters.take("ok", [(0.0, 70.0)], ("all",), "replica")
    counters.looked(["replica"], 0.0)
    counters.looked([], GONE)
    assert not counters.knows("replica")
    counters.take("bad", [(GONE + 1, 30.0)], ("all",), "replica")
    assert counters.total("all") == 0


def test_more_series_than_are_kept_begin_at_their_next_sample_after_a_restart(monkeypatch):
    monkeypatch.setattr(prometheus_counters, "SERIES_KEPT", 3)
    counters = RangeCounters()
    for series in "abcde":
        counters.take(series, [(float(ord(series)), 10.0)], ("all",), "replica")
    counters.looked(["replica"], 200.0)
    restarted = again(counters)
    assert len(restarted.state()["last"]) == 3
    for series in "abcde":
        restarted.take(series, [(300.0, 15.0)], ("all",), "replica")
    # The three that were kept grew by 5 each; the others are no news of 15.
    assert restarted.total("all") == 15


@pytest.mark.parametrize("state", [{"totals": 3}, {"last": {"a": [1]}}, {"reporters": {"a": "b"}}])
def test_a_state_that_does_not_fit_is_ignored(state):
    counters = RangeCounters()
    counters.add("all", 3)
    counters.restore(state)
    assert counters.total("all") == 3


@given(st.lists(VALUES, max_size=10))
def test_differences_add_up_and_never_take_away(amounts):
    counters = RangeCounters()
    for amount in amounts:
        counters.add("all", amount)
    assert counters.total("all") >= 0


def test_what_is_not_wanted_any_more_is_let_go():
    counters = RangeCounters()
    counters.add("a", 3)
    counters.add("b", 4)
    counters.keep_only(lambda name: name == "b")
    assert (counters.total("a"), counters.total("b")) == (0, 4)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
def test_a_series_has_one_key_in_whatever_order_its_labels_come(labels):
    assert series_key(labels) == series_key(dict(reversed(labels.items())))
    assert series_key(labels) != series_key({**labels, "other": "x"} if "other" not in labels else {})
