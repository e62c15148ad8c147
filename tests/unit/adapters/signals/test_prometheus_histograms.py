"""Durations: rising counts by rising bounds in seconds, from classic and from native histograms."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.signals.prometheus_api import NativeHistogram, Series
from forge.adapters.signals.prometheus_histograms import BOUNDS, Histograms, sorted_into
from forge.adapters.signals.prometheus_versions import EXACTLY, Versions

VERSIONS = Versions(["1.0", "1.1"], "version", EXACTLY, "production")
LES = ("0.1", "0.5", "1", "+Inf")


def classic(at, durations, *, version="1.0", pod="a", les=LES):
    """The series of one replica that has answered so fast."""
    return [
        Series(
            {"__name__": "took_bucket", "version": version, "pod": pod, "le": le},
            [(at, str(sum(duration <= float(le) for duration in durations)))],
        )
        for le in les
    ]


def native(at, durations, *, count=None):
    buckets = [(0, str(duration * 0.999), str(duration), "1") for duration in durations]
    held = NativeHistogram(str(len(durations) if count is None else count), "0", buckets)
    return Series({"__name__": "took", "version": "1.0", "pod": "a"}, histograms=[(at, held)])


DURATIONS = st.lists(st.floats(0.0001, 100), max_size=20)


@given(DURATIONS, DURATIONS, DURATIONS)
def test_all_replicas_of_a_version_add_up_by_bound(before, after, others):
    histograms = Histograms(1.0)
    histograms.take([*classic(0.0, before), *classic(0.0, [], pod="b")], VERSIONS, 0.0)
    histograms.take([*classic(5.0, before + after), *classic(5.0, others, pod="b")], VERSIONS, 5.0)
    served = after + others
    assert dict(histograms.latency("1.0")) == {float(le): sum(d <= float(le) for d in served) for le in LES}
    assert histograms.latency("1.1") == ()


@given(st.lists(DURATIONS, min_size=1, max_size=6), st.sampled_from([1.0, 0.001]))
def test_bounds_and_counts_rise_whatever_the_histograms_do(looks, unit):
    histograms = Histograms(unit)
    for at, durations in enumerate(looks):
        les = LES if at % 2 else ("0.2", "1", "+Inf")  # a version may change its buckets
        found = [*classic(float(at), durations, les=les), native(float(at), durations)]
        histograms.take(found, VERSIONS, float(at))
        rows = histograms.latency("1.0")
        assert [bound for bound, _ in rows] == sorted({bound for bound, _ in rows})
        assert [count for _, count in rows] == sorted(count for _, count in rows)
        assert rows[-1][0] == math.inf


@given(DURATIONS)
def test_a_native_histogram_counts_each_duration_where_it_lies(durations):
    histograms = Histograms(1.0)
    histograms.take([native(0.0, [])], VERSIONS, 0.0)
    histograms.take([native(5.0, durations)], VERSIONS, 5.0)
    assert dict(histograms.latency("1.0")) == {bound: sum(d <= bound for d in durations) for bound in BOUNDS}


def test_a_native_histogram_in_milliseconds_with_a_bucket_below_zero_and_observations_that_are_no_number():
    held = NativeHistogram("6", "0", [(3, "-0.001", "0.001", "2"), (0, "90", "100", "2"), (0, "?", "?", "1")])
    counts = dict(zip(BOUNDS, sorted_into(held, 0.001), strict=True))
    assert (counts[0.001], counts[0.05], counts[0.1], counts[60.0], counts[math.inf]) == (2, 2, 4, 4, 6)


def test_milliseconds_are_seconds_and_a_bound_that_is_no_number_is_none():
    histograms = Histograms(0.001)
    series = [Series({"version": "1.0", "le": le}, [(0.0, "1"), (5.0, "3")]) for le in ("100", "250.0", "+Inf", "?")]
    histograms.take(series, VERSIONS, 5.0)
    assert histograms.latency("1.0") == ((0.1, 2), (0.25, 2), (math.inf, 2))


def test_series_of_other_versions_and_of_no_bucket_are_left_out():
    histograms = Histograms(1.0)
    series = [
        Series({"version": "9.9", "le": "1"}, [(0.0, "1"), (5.0, "3")]),
        Series({"version": "1.0"}, [(0.0, "1"), (5.0, "3")]),
        Series({"le": "1"}, [(0.0, "1"), (5.0, "3")]),
    ]
    histograms.take(series, VERSIONS, 5.0)
    assert (histograms.latency("9.9"), histograms.latency("1.0")) == ((), ())


def test_a_restart_of_forge_keeps_the_sums_and_counts_nothing_twice():
    histograms, again = Histograms(1.0), Histograms(1.0)
    histograms.take(classic(0.0, []), VERSIONS, 0.0)
    histograms.take(classic(5.0, [0.2, 0.7]), VERSIONS, 5.0)
    again.restore(json.loads(json.dumps(histograms.state(), allow_nan=False)))
    assert again.latency("1.0") == histograms.latency("1.0")
    again.take(classic(5.0, [0.2, 0.7]), VERSIONS, 6.0)
    again.take(classic(10.0, [0.2, 0.7, 0.05]), VERSIONS, 10.0)
    assert dict(again.latency("1.0")) == {0.1: 1, 0.5: 2, 1.0: 3, math.inf: 3}


def test_versions_that_are_not_wanted_any_more_are_forgotten():
    histograms = Histograms(1.0)
    histograms.take(classic(0.0, [0.2]), VERSIONS, 0.0)
    histograms.keep_only(lambda version: version == "1.1")
    assert histograms.latency("1.0") == ()
    assert histograms.state()["totals"] == {}
