"""How an observation enters the state, and how the history stays small."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from forge.core.release.observe import absorb, compact, fresh_sample
from forge.core.release.state import EnvironmentState, ReleaseState, VersionState
from forge.core.release.tick import Tick
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Gauge, LogTemplate, Observation, ReplicaCount, Sample, TrafficTable, Version


def environment(**fields: object) -> EnvironmentState:
    versions = {"1.3": VersionState(Version("1.3"), wanted=2), "1.4": VersionState(Version("1.4"), wanted=1)}
    basics: dict[str, object] = {"stable": "1.3", "versions": versions, "traffic": TrafficTable({"1.3": 10_000}, 1)}
    return EnvironmentState("production", EnvironmentPlan("production"), **(basics | fields))  # type: ignore[arg-type]


def look(state: EnvironmentState, now: float = 100.0, **seen: object) -> Tick:
    tick = Tick(state, Observation(now, **seen), now)  # type: ignore[arg-type]
    absorb(tick)
    return tick


class TestReplicas:
    def test_since_when_too_few_are_ready(self) -> None:
        tick = look(environment(), replicas={"1.3": ReplicaCount(2, 2, 2), "1.4": ReplicaCount(1, 1, 0)})
        assert tick.state.versions["1.3"].unready_since is None
        assert tick.state.versions["1.4"].unready_since == 100.0
        tick = look(tick.state, 130.0, replicas={"1.4": ReplicaCount(1, 1, 0)})
        assert tick.state.versions["1.4"].unready_since == 100.0
        assert tick.state.versions["1.3"].unready_since == 130.0, "what the target does not report is not ready"
        tick = look(tick.state, 140.0, replicas={"1.4": ReplicaCount(1, 1, 1)})
        assert tick.state.versions["1.4"].unready_since is None
        assert tick.state.versions["1.4"].ever_ready

    def test_unknown_changes_nothing(self) -> None:
        state = environment()
        assert look(state).state.versions == state.versions


class TestSplit:
    def test_idle_counts_only_when_neither_asked_nor_observed(self) -> None:
        tick = look(environment(), weights={"1.3": 9000, "1.4": 1000})
        assert tick.state.versions["1.4"].idle_since is None
        tick = look(tick.state, 110.0, weights={"1.3": 10_000, "1.4": 0})
        assert tick.state.versions["1.4"].idle_since == 110.0
        assert tick.state.observed == {"1.3": 10_000}
        tick = look(tick.state, 120.0, weights={"1.3": 10_000})
        assert tick.state.versions["1.4"].idle_since == 110.0
        tick = look(tick.state, 130.0, weights={"1.4": 10_000})
        assert tick.state.versions["1.4"].idle_since is None
        assert tick.state.versions["1.3"].idle_since is None, "it is asked to carry traffic"

    def test_unreadable_keeps_what_was_confirmed(self) -> None:
        tick = look(environment(observed={"1.3": 10_000}))
        assert tick.state.observed == {"1.3": 10_000}
        assert tick.observed("1.3") is None

    def test_before_the_first_table_nothing_carries_traffic(self) -> None:
        tick = look(environment(traffic=None))
        assert tick.observed("1.4") == 0
        assert tick.state.versions["1.4"].idle_since == 100.0


class TestSamples:
    def test_only_what_takes_part_is_kept(self) -> None:
        samples = {"1.3": Sample(100.0, 5, 0), "0.9": Sample(100.0, 1, 0)}
        assert look(environment(), samples=samples).state.history == ((100.0, {"1.3": samples["1.3"]}),)

    def test_infinite_buckets_can_be_stored(self) -> None:
        tick = look(environment(), samples={"1.3": Sample(100.0, 5, 0, ((math.inf, 5),))})
        assert tick.state.history[0][1]["1.3"].latency[0][0] < math.inf

    @pytest.mark.parametrize(("age", "fresh"), [(0.0, True), (15.0, True), (15.0 + 1, False)])
    def test_a_stale_sample_is_none(self, age: float, fresh: bool) -> None:
        tick = look(environment(), samples={"1.3": Sample(100.0 - age, 5, 0)})
        assert (fresh_sample(tick, "1.3") is not None) == fresh
        assert bool(tick.state.history) == fresh

    def test_a_slow_store_says_itself_for_how_long_its_samples_are_good(self) -> None:
        slow = Sample(30.0, 5, 0, good_for=180.0)
        assert fresh_sample(look(environment(), samples={"1.3": slow}), "1.3") == slow

    def test_only_the_newest_sample_keeps_its_lines_and_gauges(self) -> None:
        full = Sample(100.0, 5, 0, templates=(LogTemplate("boom", 1, "boom"),), gauges=(Gauge("cpu", 0.5, 1.0),))
        tick = look(environment(), 100.0, samples={"1.3": full})
        assert tick.state.history[-1][1]["1.3"] == full
        tick = look(tick.state, 105.0, samples={"1.3": replace(full, at=105.0)})
        before, newest = (samples["1.3"] for _, samples in tick.state.history)
        assert (before.templates, before.gauges) == ((), ())
        assert newest.templates == full.templates

    def test_after_the_clock_was_set_back_new_samples_count_again(self) -> None:
        tick = look(environment(), 5000.0, samples={"1.3": Sample(5000.0, 5, 0)})
        tick = look(tick.state, 1400.0, samples={"1.3": Sample(1400.0, 9, 0)})
        assert [at for at, _ in tick.state.history] == [1400.0]

    def test_a_longer_window_keeps_a_longer_history(self) -> None:
        strategy = Strategy(thresholds=(Threshold("error_rate", 0.05, over=1000.0),))
        state = environment(releases={"production-1": ReleaseState("production-1", "1.4", strategy)})
        for second in range(1500):
            state = look(state, float(second), samples={"1.3": Sample(float(second), second, 0)}).state
        assert state.history[-1][0] - state.history[0][0] >= 1000.0

    def test_missing_and_back_is_told_while_somebody_waits(self) -> None:
        going = {"production-1": ReleaseState("production-1", "1.4", Strategy(), "progressing")}
        tick = look(environment(releases=going), problem="scrape: 500")
        assert [(event.kind, event.message) for event in tick.events] == [("data_missing", "no metrics: scrape: 500")]
        tick = look(tick.state, 160.0, samples={})
        assert [(event.kind, event.data["seconds"]) for event in tick.events] == [("data_back", 60.0)]
        assert look(environment(), problem="scrape: 500").events == []


@given(st.lists(st.floats(0.2, 7.0), min_size=1, max_size=400), st.sampled_from([60.0, 330.0, 1000.0]))
def test_a_compact_history_keeps_its_ends_and_no_large_gaps(steps: list[float], horizon: float) -> None:
    at, history = 0.0, ()
    for step in steps:
        at += step
        history = compact((*history, (at, {})), horizon)
    times = [time for time, _ in history]
    assert times[-1] == at
    assert times == sorted(set(times))
    assert at - times[0] <= horizon
    assert len(times) <= 15 / 0.2 + 2 + 60 / 5 + 2 + horizon / 10 + 2
    gaps = [late - early for early, late in itertools.pairwise(times)]
    assert all(gap <= 10 + 2 * 7.0 for gap in gaps), "no part of a window is without a reading"
    if at > horizon + 30:
        assert at - times[0] >= horizon - 24
