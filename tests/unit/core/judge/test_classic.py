"""The threshold judge: the seed's rule, latency, saturation, and when it cannot know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.base import Series
from forge.core.judge.classic import NoJudge, ThresholdJudge, examine
from forge.core.judge.registry import JUDGES, judge_named
from forge.core.release.state import ReleaseState, Verdict
from forge.model.errors import UsageError
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Sample

SEED = Threshold("error_rate", 0.05, 300.0)


def arm(*readings: tuple[float, int, int], since: float = 0.0, **fields: object) -> Series:
    return Series("1.4", tuple(Sample(at, requests, errors, **fields) for at, requests, errors in readings), since, 2)  # type: ignore[arg-type]


def verdict(series: Series, *thresholds: Threshold, now: float = 600.0) -> Verdict:
    release = ReleaseState("production-2", "1.4", Strategy(thresholds=thresholds or (SEED,)))
    return ThresholdJudge().judge({}, release, series, Series("1.3"), now)[0]


class TestTheSeedsRule:
    """More than 5 % of requests answered 5xx in the last 5 minutes."""

    @pytest.mark.parametrize(
        ("errors", "kind"), [(0, "promote"), (50, "promote"), (51, "rollback"), (1000, "rollback")]
    )
    def test_more_than_five_percent(self, errors: int, kind: str) -> None:
        assert verdict(arm((300.0, 0, 0), (600.0, 1000, errors))).kind == kind

    def test_what_is_older_than_five_minutes_does_not_count(self) -> None:
        assert verdict(arm((0.0, 0, 0), (300.0, 1000, 900), (600.0, 2000, 910))).kind == "promote"
        assert verdict(arm((0.0, 0, 0), (300.0, 1000, 0), (600.0, 2000, 100))).kind == "rollback"

    def test_a_young_window_counts_as_soon_as_there_are_requests(self) -> None:
        assert verdict(arm((598.0, 0, 0), (599.0, 10, 10)), now=599.0).kind == "rollback"

    def test_nothing_before_the_warm_up_counts(self) -> None:
        readings = ((400.0, 0, 0), (460.0, 100, 90), (600.0, 1000, 95))
        assert verdict(arm(*readings)).kind == "rollback"
        assert verdict(arm(*readings, since=460.0)).kind == "promote"

    def test_the_words_have_the_numbers(self) -> None:
        found = verdict(arm((300.0, 0, 0), (600.0, 1000, 62)))
        assert found.why == ("1.4: 62 of 1000 requests failed (6.2 %) in the last 5m 0s, above the limit of 5 %")
        assert found.data == {
            "metric": "error_rate", "above": 0.05, "requests": 1000, "errors": 62, "rate": 0.062, "seconds": 300.0,
        }  # fmt: skip

    @given(st.integers(1, 100_000), st.data())
    def test_agrees_with_exact_arithmetic(self, requests: int, data: st.DataObject) -> None:
        errors = data.draw(st.integers(0, requests))
        found = verdict(arm((300.0, 0, 0), (600.0, requests, errors)))
        assert (found.kind == "rollback") == (errors * 20 > requests)


class TestCannotKnow:
    @pytest.mark.parametrize("readings", [(), ((600.0, 5, 0),), ((300.0, 5, 0), (600.0, 5, 0))])
    def test_without_requests_it_holds(self, readings: tuple[tuple[float, int, int], ...]) -> None:
        found = verdict(arm(*readings))
        assert (found.kind, found.why) == ("hold", "1.4: cannot know yet: 0 of at least 1 requests")

    def test_with_fewer_than_the_minimum_it_holds_even_when_all_fail(self) -> None:
        few = Threshold("error_rate", 0.05, 300.0, minimum_requests=20)
        assert verdict(arm((300.0, 0, 0), (600.0, 19, 19)), few).kind == "hold"
        assert verdict(arm((300.0, 0, 0), (600.0, 20, 20)), few).kind == "rollback"

    def test_one_exceeded_threshold_decides_though_another_cannot_know(self) -> None:
        unknown = Threshold("latency", 0.5)
        assert verdict(arm((300.0, 0, 0), (600.0, 100, 90)), unknown, SEED).kind == "rollback"
        assert verdict(arm((300.0, 0, 0), (600.0, 100, 0)), unknown, SEED).kind == "hold"

    @pytest.mark.parametrize("metric", ["latency", "cpu", "memory"])
    def test_what_was_not_measured_is_neither_good_nor_bad(self, metric: str) -> None:
        finding = examine(Threshold(metric, 0.5), arm((300.0, 0, 0), (600.0, 100, 0)), 600.0)  # type: ignore[arg-type]
        assert finding.exceeded is None
        assert finding.why.startswith("cannot know yet: no ")


class TestLatency:
    def series(self, slow: int) -> Series:
        before = Sample(300.0, 0, 0, ((0.1, 0), (0.5, 0), (2.0, 0), (1.7e308, 0)))
        after = Sample(600.0, 1000, 0, ((0.1, 1000 - slow), (0.5, 1000 - slow), (2.0, 1000), (1.7e308, 1000)))
        return Series("1.4", (before, after), 0.0, 2)

    @pytest.mark.parametrize(("slow", "kind"), [(0, "promote"), (5, "promote"), (20, "rollback")])
    def test_a_quantile_against_its_limit(self, slow: int, kind: str) -> None:
        assert verdict(self.series(slow), Threshold("latency", 0.5, quantile=0.99)).kind == kind

    def test_the_words_name_the_quantile(self) -> None:
        found = verdict(self.series(20), Threshold("latency", 0.5, quantile=0.99))
        assert found.why == "1.4: p99 latency is 1250 ms over 5m 0s (1000 requests), above the limit of 500 ms"

    @pytest.mark.parametrize(("limit", "kind"), [(1.0, "rollback"), (0.1, "rollback"), (3.0, "promote")])
    def test_beyond_the_last_bound(self, limit: float, kind: str) -> None:
        before, after = Sample(300.0, 0, 0), Sample(600.0, 100, 0, ((1.0, 0), (1.7e308, 100)))
        found = verdict(Series("1.4", (before, after)), Threshold("latency", limit))
        assert found.kind == kind
        assert "more than 1000 ms" in found.why


class TestSaturation:
    def series(self, cpu: float, memory: int) -> Series:
        readings = (Sample(500.0, 0, 0, (), 10.0, 1000), Sample(600.0, 0, 0, (), 10.0 + cpu, memory))
        return Series("1.4", readings, 0.0, 2)

    @pytest.mark.parametrize(("cpu", "kind"), [(100.0, "promote"), (180.0, "rollback")])
    def test_cpu_is_counted_in_cores_of_each_replica(self, cpu: float, kind: str) -> None:
        assert verdict(self.series(cpu, 1000), Threshold("cpu", 0.8)).kind == kind

    @pytest.mark.parametrize(("memory", "kind"), [(400_000_000, "promote"), (600_000_000, "rollback")])
    def test_memory_of_the_largest_replica(self, memory: int, kind: str) -> None:
        found = verdict(self.series(1.0, memory), Threshold("memory", 512_000_000))
        assert found.kind == kind
        assert f"the largest replica uses {memory / 1e6:.1f} MB" in found.why

    def test_saturation_needs_no_requests(self) -> None:
        assert verdict(self.series(180.0, 1000), Threshold("cpu", 0.8)).kind == "rollback"


def test_no_thresholds_let_everything_go_on_and_need_no_data() -> None:
    release = ReleaseState("production-2", "1.4", Strategy(thresholds=()))
    found, memory = ThresholdJudge().judge({"kept": 1}, release, arm(), arm(), 1.0)
    assert (found.kind, memory) == ("promote", {"kept": 1})
    assert not ThresholdJudge().needs_data(release)
    assert ThresholdJudge().needs_data(ReleaseState("production-2", "1.4", Strategy()))


def test_the_judge_none_judges_nothing() -> None:
    release = ReleaseState("production-2", "1.4", Strategy())
    found, _ = NoJudge().judge({}, release, arm((300.0, 0, 0), (600.0, 100, 100)), arm(), 600.0)
    assert found.kind == "promote"
    assert not NoJudge().needs_data(release)


def test_judges_by_name() -> None:
    assert judge_named("threshold") is JUDGES["threshold"]
    with pytest.raises(UsageError) as caught:
        judge_named("treshold")
    assert caught.value.hint == "did you mean `threshold`?"
    with pytest.raises(UsageError) as caught:
        judge_named("zzz")
    assert caught.value.hint == "the judges are " + ", ".join(f"`{name}`" for name in sorted(JUDGES))
