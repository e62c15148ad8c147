"""Kayenta's words: metrics, groups, summary; and the judge that looks every five minutes."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.base import Series
from forge.core.judge.canary_analysis import AnalysisSettings, MannWhitneyJudge, values_needed
from forge.core.judge.mann_whitney import mann_whitney
from forge.core.judge.recorded import RecordedVerdict, judge_recorded
from forge.core.judge.registry import judge_named
from forge.core.judge.scoring import EffectSize, Metric, Result, classify, score
from forge.core.release.state import ReleaseState
from forge.model.strategy import Strategy
from forge.model.traffic import Sample

LOW = [float(value) for value in range(1, 11)]
HIGH = [value + 20 for value in LOW]


class TestOneMetric:
    @pytest.mark.parametrize(
        ("direction", "values", "expected"),
        [
            ("increase", HIGH, "High"), ("either", HIGH, "High"), ("decrease", HIGH, "Pass"),
            ("increase", [-v for v in HIGH], "Pass"), ("either", [-v for v in HIGH], "Low"),
            ("decrease", [-v for v in HIGH], "Low"), ("either", LOW, "Pass"),
        ],
    )  # fmt: skip
    def test_direction(self, direction: str, values: list[float], expected: str) -> None:
        assert classify(Metric("m", direction=direction), values, LOW).classification == expected  # type: ignore[arg-type]

    def test_the_interval_must_clear_a_quarter_of_the_shift(self) -> None:
        """A shift that is significant but whose interval begins near zero is a Pass."""
        one, other = [v + 5.2 for v in LOW], LOW
        found = classify(Metric("m"), one, other)
        assert found.test
        assert found.test.interval
        assert 0 < found.test.interval[0] <= 0.25 * found.test.estimate
        assert found.classification == "Pass"
        assert classify(Metric("m"), one, other, tolerance=0.0).classification == "High"

    @pytest.mark.parametrize(
        ("effect", "expected"),
        [
            (EffectSize(), "High"), (EffectSize(allowed_increase=4.0), "High"),
            (EffectSize(allowed_increase=5.0), "Pass"), (EffectSize("cles", allowed_increase=0.99), "High"),
        ],
    )  # fmt: skip
    def test_effect_size(self, effect: EffectSize, expected: str) -> None:
        """Means 25.5 and 5.5: a ratio of 4.6."""
        assert classify(Metric("m", effect=effect), HIGH, LOW).classification == expected

    def test_a_decrease_has_its_own_bound(self) -> None:
        metric = Metric("m", direction="decrease", effect=EffectSize(allowed_decrease=0.2))
        assert classify(metric, LOW, HIGH).classification == "Pass"
        metric = Metric("m", direction="decrease", effect=EffectSize(allowed_decrease=0.5))
        assert classify(metric, LOW, HIGH).classification == "Low"

    @pytest.mark.parametrize(
        ("one", "other", "why"),
        [
            ([], LOW, "no values of the arm"), (LOW, [None, math.nan], "no values of stable"),
            ([None], [], "no values of either version"), (HIGH[:4], LOW[:4], "4 and 4 values are too few for 98 % confidence"),
        ],
    )  # fmt: skip
    def test_nodata(self, one: list[float | None], other: list[float | None], why: str) -> None:
        found = classify(Metric("m"), one, other)
        assert (found.classification, found.why) == ("Nodata", why)

    def test_missing_values_may_stand_for_zero(self) -> None:
        values: list[float | None] = [None] * 10
        assert classify(Metric("m"), HIGH, values).classification == "Nodata"
        assert classify(Metric("m", nan="zero"), HIGH, values).classification == "High"

    def test_outliers_are_dropped_only_when_asked_for(self) -> None:
        found = classify(Metric("m", outliers="remove"), [*LOW, 1e9], LOW)
        assert found.ratio == 1.0
        kept = classify(Metric("m"), [*LOW, 1e9], LOW)
        assert kept.ratio
        assert kept.ratio > 1e6

    def test_errors_where_stable_has_none(self) -> None:
        found = classify(Metric("m"), [0.1] * 10, [0.0] * 10)
        assert (found.classification, found.ratio) == ("High", None)


def results(**classifications: str) -> tuple[list[Metric], list[Result]]:
    """`group_number="Pass"` makes a metric of that group."""
    metrics = [Metric(name, (name.split("_")[0],)) for name in classifications]
    return metrics, [Result(name, kind, "") for name, kind in classifications.items()]  # type: ignore[arg-type]


class TestScore:
    def test_a_group_is_the_part_that_passes(self) -> None:
        found = score(*results(a_1="Pass", a_2="High", a_3="Low", a_4="Pass"), {})
        assert (found.groups, found.score, found.summary) == ({"a": 50.0}, 50.0, "Fail")

    def test_groups_are_weighed_and_the_rest_is_shared(self) -> None:
        found = score(*results(a_1="Pass", b_1="High", c_1="Pass"), {"a": 60.0})
        assert found.score == pytest.approx(80.0)
        assert found.summary == "Marginal"
        assert score(*results(a_1="Pass", b_1="High"), {"a": 95.0}).summary == "Pass"

    @pytest.mark.parametrize(("points", "summary"), [(74, "Fail"), (75, "Marginal"), (94, "Marginal"), (95, "Pass")])
    def test_marginal_and_pass(self, points: int, summary: str) -> None:
        found = score(*results(a_1="Pass", b_1="High"), {"a": float(points), "b": 100.0 - points})
        assert (found.score, found.summary) == (pytest.approx(points), summary)

    def test_a_critical_metric_fails_all(self) -> None:
        metrics, found = results(a_1="Pass", a_2="High", **{f"b_{i}": "Pass" for i in range(98)})
        assert score(metrics, found, {"b": 98.0}).summary == "Pass"
        metrics[1] = msgspec.structs.replace(metrics[1], critical=True)
        verdict = score(metrics, found, {"b": 98.0})
        assert (verdict.summary, verdict.score, verdict.why) == ("Fail", 0.0, "critical: a_2")

    def test_a_muted_metric_does_not_count(self) -> None:
        metrics, found = results(a_1="Pass", a_2="High")
        metrics[1] = msgspec.structs.replace(metrics[1], muted=True)
        assert score(metrics, found, {}).score == 100.0

    def test_nodata_is_never_a_pass(self) -> None:
        """There, a group without data counts as full points and half of the metrics may be missing."""
        assert score(*results(a_1="Nodata"), {}).summary == "Nodata"
        assert score([], [], {}).summary == "Nodata"
        half = score(*results(a_1="Pass", b_1="Nodata"), {})
        assert (half.summary, half.score, half.why) == ("Nodata", 100.0, "no data: b_1")

    def test_some_missing_metrics_are_left_out(self) -> None:
        found = score(*results(a_1="Pass", a_2="Pass", b_1="Nodata"), {"b": 90.0})
        assert (found.groups, found.score, found.summary) == ({"a": 100.0}, 100.0, "Pass")

    @pytest.mark.parametrize("field", ["must_have_data", "critical"])
    def test_some_metrics_must_have_data(self, field: str) -> None:
        metrics, found = results(a_1="Pass", a_2="Pass", b_1="Nodata")
        metrics[2] = msgspec.structs.replace(metrics[2], **{field: True})
        assert score(metrics, found, {}).summary == "Nodata"

    def test_what_was_measured_can_fail_though_the_rest_is_missing(self) -> None:
        assert score(*results(a_1="High", b_1="Nodata"), {}).summary == "Fail"

    @pytest.mark.parametrize(
        ("weights", "words"), [({"a": 60.0, "b": 50.0}, "sum to 110"), ({"x": 10.0}, "no metric is in group x")]
    )
    def test_wrong_weights(self, weights: dict[str, float], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            score(*results(a_1="Pass", b_1="Pass"), weights)

    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["Pass", "High", "Low", "Nodata"])), max_size=12),
        st.dictionaries(st.sampled_from("abc"), st.floats(0.5, 33), max_size=3),
    )
    def test_the_score_is_between_its_bounds_and_grows_with_every_pass(
        self, drawn: list[tuple[str, str]], weights: dict[str, float]
    ) -> None:
        metrics = [Metric(str(i), (group,)) for i, (group, _) in enumerate(drawn)]
        weights = {group: weight for group, weight in weights.items() if group in {g for g, _ in drawn}}
        found = [Result(str(i), kind, "") for i, (_, kind) in enumerate(drawn)]  # type: ignore[arg-type]
        before = score(metrics, found, weights)
        assert before.score is None or -1e-9 <= before.score <= 100 + 1e-9
        for i, result in enumerate(found):
            if result.classification in {"High", "Low"}:
                better = [*found[:i], msgspec.structs.replace(result, classification="Pass"), *found[i + 1 :]]
                after = score(metrics, better, weights)
                assert after.score is not None
                assert before.score is not None
                assert after.score >= before.score - 1e-9


def traffic(
    rate: float, *, seed: int, latency: float = 0.05, minutes: int = 16, silent: range = range(0)
) -> list[Sample]:
    chance, samples, requests, bad, slow = random.Random(seed), [Sample(0.0, 0, 0, ((0.1, 0), (1.0, 0)))], 0, 0, 0
    for second in range(1, minutes * 60 + 1):
        if second // 60 not in silent:
            for _ in range(20):
                requests += 1
                bad += chance.random() < rate
                slow += chance.random() < latency
        samples.append(Sample(float(second), requests, bad, ((0.1, requests - slow), (1.0, requests))))
    return samples


def said(arm: list[Sample], stable: list[Sample], settings: AnalysisSettings = AnalysisSettings()) -> RecordedVerdict:  # noqa: B008
    return judge_recorded(MannWhitneyJudge(settings), arm, stable, strategy=Strategy())


class TestJudge:
    def test_a_gross_fault_is_found_at_the_first_look(self) -> None:
        found = said(traffic(0.2, seed=1), traffic(0.01, seed=2))
        assert (found.kind, found.at) == ("rollback", 300.0)
        assert "error_rate High" in found.why
        assert found.data["groups"]["errors"] == 0.0

    def test_a_version_like_stable_passes(self) -> None:
        found = said(traffic(0.01, seed=3), traffic(0.01, seed=4))
        assert (found.kind, found.at) == ("promote", 300.0)
        assert found.data["summary"] == "Pass"

    def test_slowness_alone_fails_it_too(self) -> None:
        found = said(traffic(0.01, seed=5, latency=0.5), traffic(0.01, seed=6, latency=0.0))
        assert found.kind == "rollback"
        assert "latency_p99 High" in found.why

    def test_before_the_first_look_it_holds(self) -> None:
        found = said(traffic(1.0, seed=7, minutes=4), traffic(0.0, seed=8, minutes=4))
        assert (found.kind, found.why) == ("hold", "arm: the first score is due in 1m 0s")

    def test_a_late_onset_is_diluted(self) -> None:
        """Ten good minutes, then a third failing: the ranks of all minutes together pass. Why it is no default."""
        good, bad = traffic(0.01, seed=9, minutes=13), traffic(0.3, seed=10, minutes=2)
        last = good[-1]
        after = [Sample(last.at + s.at, last.requests + s.requests, last.errors + s.errors) for s in bad[1:]]
        assert said([*good, *after], traffic(0.01, seed=11)).kind == "promote"

    def test_without_data_nothing_passes_and_nothing_fails(self) -> None:
        away = traffic(0.0, seed=12, silent=range(16))
        found = said(away, traffic(0.0, seed=13))
        assert (found.kind, found.at) == ("inconclusive", 900.0)
        assert said(away[:500], traffic(0.0, seed=13)).kind == "hold"

    def test_marginal_holds_and_at_the_end_fails(self) -> None:
        settings = AnalysisSettings(weights={"errors": 20.0, "latency": 80.0})
        arms = traffic(0.2, seed=14), traffic(0.01, seed=15)
        assert said(arms[0][:700], arms[1], settings).kind == "hold"
        found = said(*arms, settings)
        assert (found.kind, found.at) == ("rollback", 900.0)

    def test_after_the_last_look_it_stands_and_the_state_stays_small(self) -> None:
        judge, state = MannWhitneyJudge(), {}
        arm, stable = traffic(0.01, seed=16, minutes=40), traffic(0.01, seed=17, minutes=40)
        release, kinds = ReleaseState("r-1", "1.4", Strategy()), []
        for at in range(1, 2400, 5):
            recent = slice(max(0, at - 300), at + 1)
            series = Series("1.4", tuple(arm[recent])), Series("1.3", tuple(stable[recent]))
            verdict, state = judge.judge(state, release, *series, float(at))
            state = msgspec.json.decode(msgspec.json.encode(state))
            kinds.append(verdict.kind)
        assert [kind for kind, _ in itertools.groupby(kinds)] == ["hold", "promote"]
        assert len(msgspec.json.encode(state)) < 4000
        assert judge.needs_data(release)

    def test_it_is_known_by_its_name(self) -> None:
        assert isinstance(judge_named("mann_whitney"), MannWhitneyJudge)


def test_recorded_readings_are_needed() -> None:
    with pytest.raises(ValueError, match=r"no readings of 1\.4"):
        judge_recorded(MannWhitneyJudge(), [], [], version="1.4")


def measured(
    *, cpu: float = 1.0, memory: int | None = 100, queue: float | None = 3.0, minutes: int = 16
) -> list[Sample]:
    """A reading every 10 s of 200 requests; `cpu`: cores of all replicas together."""
    return [
        Sample(
            10.0 * i, 200 * i, 2 * i, ((0.1, 100 * i), (0.2, 190 * i), (1e308, 200 * i)), 10.0 * i * cpu, memory,
            values=(("queue", queue),) if queue is not None else (),
        )
        for i in range(minutes * 6 + 1)
    ]  # fmt: skip


class TestMetrics:
    """What can be compared beside errors and the p99 latency."""

    @pytest.mark.parametrize(
        ("name", "worse"),
        [("cpu", {"cpu": 2.0}), ("memory", {"memory": 300}), ("value:queue", {"queue": 9.0})],
    )
    def test_each_is_found(self, name: str, worse: dict[str, Any]) -> None:
        settings = AnalysisSettings(metrics=(Metric(name, ("own",)),))
        assert said(measured(), measured(), settings).kind == "promote"
        found = said(measured(**worse), measured(), settings)
        assert (found.kind, found.at) == ("rollback", 300.0)
        assert f"{name} High" in found.why

    def test_quantiles(self) -> None:
        names = ("latency_p50", "latency_p90", "latency_p99", "latency_p99.9")
        settings = AnalysisSettings(metrics=tuple(Metric(name, (name,)) for name in names))
        state = said(measured(), measured(), settings).state
        assert {name: values[0] for name, values in state["arm"].items()} == {
            "latency_p50": 0.1, "latency_p90": pytest.approx(0.1 + 0.1 * 80 / 90), "latency_p99": 0.2, "latency_p99.9": 0.2,
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["memory", "value:queue", "cpu"])
    def test_what_nobody_measures_is_no_pass(self, name: str) -> None:
        missing = [msgspec.structs.replace(sample, cpu_seconds=None, memory=None, values=()) for sample in measured()]
        settings = AnalysisSettings(metrics=(Metric(name, ("own",), must_have_data=True),))
        assert said(missing, missing, settings).kind == "inconclusive"
        assert said(measured(), missing, settings).kind == "inconclusive"

    def test_nothing_is_left_when_nothing_was_ever_measured(self) -> None:
        settings = AnalysisSettings(metrics=(Metric("value:other", ("own",)),))
        found = said(measured(), measured(), settings)
        assert (found.kind, found.at) == ("inconclusive", 900.0)

    def test_a_fall_is_found_where_it_matters(self) -> None:
        settings = AnalysisSettings(metrics=(Metric("value:queue", ("own",), "decrease"),))
        assert "value:queue Low" in said(measured(queue=1.0), measured(), settings).why
        assert said(measured(queue=9.0), measured(), settings).kind == "promote"

    def test_confidence_and_tolerance_are_those_of_the_settings(self) -> None:
        arm, stable = traffic(0.2, seed=1), traffic(0.01, seed=2)
        sure = AnalysisSettings(confidence=0.999, interval=480.0, metrics=(Metric("error_rate", ("errors",)),))
        assert values_needed(0.999) == 7
        assert said(arm, stable, sure).at == 480.0
        early = AnalysisSettings(confidence=0.999, metrics=(Metric("error_rate", ("errors",)),))
        assert said(arm[:301], stable, early).kind == "hold"
        assert said(arm, stable, early).kind == "rollback"
        lax = AnalysisSettings(tolerance=1.0, metrics=(Metric("error_rate", ("errors",)),))
        assert said(arm, stable, lax).kind == "promote"

    def test_marginal_at_the_end_may_wait_for_a_person(self) -> None:
        settings = AnalysisSettings(weights={"errors": 20.0, "latency": 80.0}, at_marginal="pause")
        found = said(traffic(0.2, seed=14), traffic(0.01, seed=15), settings)
        assert (found.kind, found.at) == ("inconclusive", 900.0)
        assert found.data["summary"] == "Marginal"

    @given(st.floats(0.5, 0.99999))
    def test_as_many_values_as_needed_have_an_interval_and_fewer_have_none(self, confidence: float) -> None:
        count = values_needed(confidence)
        values = [float(i) for i in range(2 * count)]
        assert mann_whitney(values[::2], values[1::2], confidence).interval is not None
        if count > 1:
            assert mann_whitney(values[2::2], values[3::2], confidence).interval is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"step": 0.0}, "step"), ({"step": 301.0, "interval": 400.0}, "step"), ({"interval": 30.0}, "interval"),
        ({"lifetime": 200.0}, "lifetime"), ({"marginal": 96.0}, "marginal"), ({"passing": 101.0}, "marginal"),
        ({"confidence": 1.0}, "confidence"), ({"tolerance": 1.5}, "tolerance"), ({"metrics": ()}, "metrics"),
        ({"metrics": (Metric("cpu"), Metric("cpu"))}, "metrics"), ({"metrics": (Metric("latency_p0"),)}, "no metric"),
        ({"metrics": (Metric("value:"),)}, "no metric"), ({"weights": {"cpu": 10.0}}, "weights"),
        ({"weights": {"errors": 60.0, "latency": 60.0}}, "weights"), ({"confidence": 0.9999, "lifetime": 420.0}, "confidence"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AnalysisSettings(**wrong)
