"""Counters that never fall, whatever happens to the proxy that counts."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.signals.envoy import Counters, EnvoyCounters, parse

TEXT = """\
# TYPE envoy_cluster_external_upstream_rq_xx counter
envoy_cluster_external_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="v-1_2e_0"} 6
# TYPE envoy_cluster_upstream_rq_xx counter
envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="v-1_2e_0"} 6
envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="v-1_2e_0"} 3
envoy_cluster_upstream_rq_xx{envoy_response_code_class="4",envoy_cluster_name="v-1_2e_1"} 1
envoy_cluster_external_upstream_rq_time_bucket{envoy_cluster_name="v-1_2e_0",le="5"} 99
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="v-1_2e_0",le="5"} 4
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="v-1_2e_0",le="1e+04"} 8
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="v-1_2e_0",le="+Inf"} 9
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="v-1_2e_0"} 91.08
envoy_cluster_upstream_rq_time_count{envoy_cluster_name="v-1_2e_0"} 9
"""


def one(requests: int, errors: int = 0, latency: tuple[tuple[float, int], ...] = ()) -> dict[str, Counters]:
    return {"1.0": Counters(requests, errors, latency)}


def test_envoys_text_is_read_by_version() -> None:
    assert parse(TEXT) == {
        "1.0": Counters(9, 3, ((0.005, 4), (10.0, 8), (math.inf, 9))),
        "1.1": Counters(1, 0, ()),
    }
    assert parse("") == {}


def test_a_version_without_requests_has_zeros() -> None:
    assert EnvoyCounters().take({}, "a", ["1.0"]) == one(0)


def test_a_restarted_proxy_counts_on_even_when_it_is_ahead() -> None:
    counters = EnvoyCounters()
    counters.take(one(10, 2), "first", ["1.0"])
    assert counters.take(one(15, 3), "second", ["1.0"]) == one(25, 5)
    assert counters.take(one(16, 3), "second", ["1.0"]) == one(26, 5)


def test_a_series_that_falls_is_carried_over_alone() -> None:
    counters = EnvoyCounters()
    counters.take(one(10, 8, ((0.1, 4), (math.inf, 10))), "a", ["1.0"])
    after = counters.take(one(12, 1, ((0.1, 4), (math.inf, 5))), "a", ["1.0"])
    assert after == one(12, 9, ((0.1, 8), (math.inf, 15)))


def test_versions_that_are_not_asked_for_are_counted_too() -> None:
    counters = EnvoyCounters()
    counters.take(one(10), "a", [])
    assert counters.take(one(3), "b", ["1.0"]) == one(13)


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 20), st.sampled_from(["count", "restart", "save"])), max_size=20
    )
)
def test_sums_are_exact_over_any_restarts_of_proxy_and_reader(history) -> None:
    """As long as each restart follows a reading, nothing is lost and nothing counted twice."""
    counters, source = EnvoyCounters(), 0
    raw_requests = raw_errors = requests = errors = 0
    for more, failed, event in history:
        if event == "restart":
            source += 1
            raw_requests = raw_errors = 0
        if event == "save":
            kept = json.loads(json.dumps(counters.state()))
            counters = EnvoyCounters()
            counters.restore(kept)
        failed = min(failed, more)
        raw_requests, raw_errors = raw_requests + more, raw_errors + failed
        requests, errors = requests + more, errors + failed
        latency = ((0.1, raw_requests - raw_errors), (math.inf, raw_requests))
        [now] = counters.take(one(raw_requests, raw_errors, latency), str(source), ["1.0"]).values()
        assert (now.requests, now.errors) == (requests, errors)
        assert now.latency == ((0.1, requests - errors), (math.inf, requests))


@given(st.lists(st.dictionaries(st.sampled_from(["1.0", "1.1"]), st.integers(0, 100)), max_size=15))
def test_no_reading_makes_a_counter_fall(readings) -> None:
    counters = EnvoyCounters()
    before = {"1.0": Counters(), "1.1": Counters()}
    for reading in readings:
        raw = {version: Counters(count, count // 2, ((math.inf, count),)) for version, count in reading.items()}
        now = counters.take(raw, "a", ["1.0", "1.1"])
        for version, was in before.items():
            assert now[version].requests >= was.requests
            assert now[version].errors >= was.errors
            assert dict(now[version].latency).get(math.inf, 0) >= dict(was.latency).get(math.inf, 0)
        before = now
