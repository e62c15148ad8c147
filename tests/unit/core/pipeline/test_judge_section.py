"""`judge:` of an environment: names, settings, and words for what does not fit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from forge.core.judge.canary_analysis import KNOWN, METRICS, AnalysisSettings
from forge.core.judge.failure_limit import FailureLimit
from forge.core.judge.registry import JUDGES, judge_of
from forge.core.judge.scoring import EffectSize, Metric
from forge.core.judge.wording import judge_words
from forge.core.pipeline import schema_judge
from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.outline import plan_document
from forge.core.pipeline.resolve import resolve
from forge.core.pipeline.schema_judge import JudgeModel
from forge.core.pipeline.schema_judge_rules import FailureLimitModel, MannWhitneyModel
from forge.model.plan import EnvironmentPlan


def test_every_judge_has_a_name_in_the_file() -> None:
    assert set(schema_judge.JUDGES) == set(JUDGES)


@pytest.mark.parametrize("name", schema_judge.JUDGES)
@pytest.mark.parametrize("mapping", [False, True])
def test_by_name_or_as_a_mapping(name: str, mapping: bool) -> None:
    model = JudgeModel.model_validate({name: {}} if mapping else name)
    assert (model.name, model.config()) == (name, {})
    assert judge_of(EnvironmentPlan("production", judge=model.name, judge_config=model.config()))


def test_what_is_given_is_what_the_judge_gets() -> None:
    given: dict[str, Any] = {
        "alpha": "0.5%",
        "ratio": 1.5,
        "decide_within": "20m",
        "prove": "1%",
        "weights": {"latency": 0},
    }
    model = JudgeModel.model_validate({"sequential": given})
    assert model.config() == {
        "alpha": 0.005, "ratio": 1.5, "decide_within": 1200.0, "prove": 0.01,
        "weights": {"errors": 0.5, "latency": 0.0, "logs": 0.1, "saturation": 0.1},
    }  # fmt: skip
    judge = judge_of(EnvironmentPlan("production", judge_config=model.config()))
    assert judge.settings.alpha == 0.005  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "wrong",
    [
        "sequentail", 3, {"sequential": {}, "threshold": {}}, {"sequential": {"alpha": 0}}, {"sequential": {"ratio": 0.5}},
        {"sequential": {"alfa": 0.1}}, {"threshold": {"alpha": 0.1}},
        {"sequential": {"weights": {"errors": 0, "latency": 0, "logs": 0, "saturation": 0}}},
        {"failure_limit": {"interval": "0s"}}, {"failure_limit": {"failure_limit": -2}}, {"failure_limit": {"failure_limit": True}},
        {"failure_limit": {"count": 2, "failure_limit": 2}}, {"failure_limit": {"iterations": 3}},
        {"mann_whitney": {"metrics": []}}, {"mann_whitney": {"metrics": "error_rate"}}, {"mann_whitney": {"metrics": ["latency_p100"]}},
        {"mann_whitney": {"metrics": ["cpu", "cpu"]}}, {"mann_whitney": {"metrics": [{"name": "cpu", "value": "queue"}]}},
        {"mann_whitney": {"metrics": [{"value": "a", "effect_size": {"measure": "cles", "allowed_increase": 2}}]}},
        {"mann_whitney": {"metrics": [{"value": "a", "effect_size": {"allowed_decrease": 1.5}}]}},
        {"mann_whitney": {"metrics": ["value:queue"]}}, {"mann_whitney": {"weights": {"errors": 50, "cpu": 50}}},
        {"mann_whitney": {"weights": {"errors": 70, "latency": 31}}}, {"mann_whitney": {"step": "6m"}},
        {"mann_whitney": {"pass": 70}}, {"mann_whitney": {"lifetime": "4m"}}, {"mann_whitney": {"confidence": "100%"}},
        {"mann_whitney": {"marginal": 101, "pass": 102}}, {"mann_whitney": {"confidence": "99.9%", "lifetime": "5m"}},
        {"mann_whitney": {"passing": 95, "pass": 95}}, {"mann_whitney": {"interval": "30s"}},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        JudgeModel.model_validate(wrong)


class TestFailureLimit:
    def test_what_is_given_is_what_the_judge_gets(self) -> None:
        model = JudgeModel.model_validate({"failure_limit": {"interval": "30s", "count": 5, "failure_limit": 2}})
        assert model.config() == {"interval": 30.0, "count": 5, "failure_limit": 2}
        judge = judge_of(EnvironmentPlan("production", judge="failure_limit", judge_config=model.config()))
        assert judge.settings == FailureLimit(30.0, count=5, failure_limit=2)  # type: ignore[attr-defined]

    def test_all_may_be_forgiven(self) -> None:
        given = {"failure_limit": -1, "count": 1, "inconclusive_limit": -1, "consecutive_error_limit": -1}
        model = JudgeModel.model_validate({"failure_limit": given})
        assert model.config() == given

    def test_the_defaults_of_the_file_are_those_of_the_judge(self) -> None:
        known = FailureLimit()
        for name, field in FailureLimitModel.model_fields.items():
            assert field.default == getattr(known, name), name

    def test_in_words(self) -> None:
        assert judge_words("failure_limit", {}) == (
            "judged every 1m",
            "forgives no look that finds a check exceeded, 4 looks in a row without data, 4 looks at too few requests",
        )
        given = {"initial_delay": 0.0, "count": 3, "failure_limit": -1, "inconclusive_limit": 1}
        assert judge_words("failure_limit", given) == (
            "judged every 1m, first at once, 3 looks, then it goes on",
            "forgives all looks that find a check exceeded, 4 looks in a row without data, 1 look at too few requests",
        )


class TestMannWhitney:
    GIVEN: dict[str, Any] = {
        "interval": "2m", "lifetime": "10m", "step": "20s", "marginal": 50, "pass": 90, "at_marginal": "pause",
        "confidence": "99%", "tolerance": "10%", "weights": {"errors": 70},
        "metrics": [
            {"name": "error_rate", "critical": True, "must_have_data": True},
            "latency_p95",
            {"value": "queue depth", "direction": "either", "groups": ["load", "own"], "nan_strategy": "replace",
             "outliers": "remove", "muted": True, "effect_size": {"allowed_increase": 1.2, "allowed_decrease": 0.8}},
        ],
    }  # fmt: skip

    def test_what_is_given_is_what_the_judge_gets(self) -> None:
        config = JudgeModel.model_validate({"mann_whitney": self.GIVEN}).config()
        assert msgspec.json.decode(msgspec.json.encode(config)) == config
        judge = judge_of(EnvironmentPlan("production", judge="mann_whitney", judge_config=config))
        assert judge.settings == AnalysisSettings(  # type: ignore[attr-defined]
            20.0, 120.0, 600.0, 50.0, 90.0, {"errors": 70.0},
            (
                Metric("error_rate", ("errors",), "increase", critical=True, must_have_data=True),
                Metric("latency_p95", ("latency",)),
                Metric("value:queue depth", ("load", "own"), "either", muted=True, nan="zero", outliers="remove",
                       effect=EffectSize("mean_ratio", 1.2, 0.8)),
            ),
            0.99, 0.1, "pause",
        )  # fmt: skip

    def test_the_defaults_of_the_file_are_those_of_the_judge(self) -> None:
        known = AnalysisSettings()
        for name, field in MannWhitneyModel.model_fields.items():
            if field.default is not None:
                assert field.default == getattr(known, name), name
        assert (known.metrics, known.weights) == (METRICS, {})

    @pytest.mark.parametrize("name", KNOWN)
    def test_every_known_metric_has_a_name_and_a_group(self, name: str) -> None:
        (metric,) = MannWhitneyModel.model_validate({"metrics": [name]}).settings().metrics
        group = {"error_rate": "errors", "cpu": "cpu", "memory": "memory"}.get(name, "latency")
        assert (metric.name, metric.groups) == (name, (group,))

    def test_in_words(self) -> None:
        config = JudgeModel.model_validate({"mann_whitney": self.GIVEN}).config()
        assert judge_words("mann_whitney", config) == (
            "scored every 2m for 10m: back below 50, on from 90, between them at the end a person decides",
            (
                "the score is of errors 70% (error_rate not more, critical, must have data), latency (latency_p95 not more), "
                "load (queue depth not other, muted), own (queue depth not other, muted)"
            ),
        )

    @given(
        step=st.sampled_from([10, 60, 300]), interval=st.integers(1, 20), lifetime=st.integers(1, 40),
        confidence=st.sampled_from(["90%", "98%", "99%", "99.99%"]), scores=st.tuples(st.integers(0, 110), st.integers(0, 110)),
        weights=st.dictionaries(st.sampled_from(["errors", "latency", "cpu"]), st.integers(0, 110), min_size=1, max_size=3),
    )  # fmt: skip
    def test_what_the_file_accepts_the_judge_accepts_and_the_other_way_round(
        self, step: int, interval: int, lifetime: int, confidence: str, scores: tuple[int, int], weights: dict[str, int]
    ) -> None:
        written: dict[str, Any] = {
            "step": step, "interval": step * interval, "lifetime": step * lifetime, "confidence": confidence,
            "marginal": scores[0], "weights": weights,
        }  # fmt: skip
        raw = {**written, "confidence": float(confidence.rstrip("%")) / 100, "passing": scores[1]}
        try:
            wanted = msgspec.convert(raw, AnalysisSettings)
        except msgspec.ValidationError:
            wanted = None
        try:
            got = MannWhitneyModel.model_validate({**written, "pass": scores[1]}).settings()
        except ValidationError:
            got = None
        assert (got is None) == (wanted is None)
        if got is not None and wanted is not None:
            assert msgspec.structs.replace(got, confidence=0.9) == msgspec.structs.replace(wanted, confidence=0.9)


def test_none_and_settings_of_the_default_are_told_too() -> None:
    assert judge_words("none", {}) == ("nobody judges it",)
    assert judge_words("threshold", {}) == judge_words("sequential", {}) == ()
    told = judge_words("sequential", {"alpha": 0.005, "prove": 0.01, "clump": 5.0, "weights": {"errors": 1.0}})
    assert told == (
        "judged by evidence: back if surely worse than 1.1 times stable, wrongly in at most 0.5% of good releases",
        "goes on when 1% more errors than stable are excluded",
        "judge: clump 5, weights errors 1",
    )


def test_checks_that_the_judge_does_not_look_at_are_not_told() -> None:
    text = """
environments:
  a: {target: {local: {command: ./x}}, judge: %s}
jobs:
  release:
    steps:
      - {publish: {artifact: x.tar.gz, path: x}}
      - deploy: {artifact: x.tar.gz, environment: a, version: "1", strategy: canary}
"""
    rows = {}
    for name in schema_judge.JUDGES:
        found = plan_document(resolve(Sources(read((text % name).encode(), "forge/pipeline.yaml"))))
        (deploy,) = (step.deploy for step in found.jobs[0].steps if step.deploy)
        rows[name] = (len(deploy.checks), len(deploy.judging))
    assert rows == {
        "sequential": (1, 0), "threshold": (1, 0), "failure_limit": (1, 2), "mann_whitney": (0, 2), "none": (0, 1),
    }  # fmt: skip
