"""Settings of the classic judges, in the words of the tools that people know them from."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import BeforeValidator, Field, model_validator

from forge.core.judge.canary_analysis import (
    KNOWN,
    LONGEST_STEP,
    METRICS,
    OWN,
    AnalysisSettings,
    is_metric,
    values_at_most,
    values_needed,
)
from forge.core.judge.failure_limit import FailureLimit
from forge.core.judge.scoring import EffectSize, Metric
from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import (
    LIST_SCHEMA,
    Duration,
    Flag,
    Fraction,
    Leaf,
    Number,
    Positive,
    Section,
    Text,
    choice,
    listed,
    plain,
    wrong,
)
from forge.model.diagnostics import did_you_mean
from forge.model.units import format_duration


def _forgiven(value: Any) -> int:
    """Return a whole number; -1 forgives all."""
    if isinstance(value, int) and not isinstance(value, bool) and value == -1:
        return -1
    try:
        return leaves.count(value)
    except leaves.LeafError:
        told = leaves.shown(value) if isinstance(value, (str, int, float)) else leaves.kind_of(value)
        raise leaves.LeafError(f"must be a whole number, 0 or more, or -1 to forgive all, not {told}") from None


def _groups(value: Any) -> tuple[str, ...]:
    if not (names := leaves.text_list(value)):
        raise leaves.LeafError("is empty", "leave it out, or name a group")
    return tuple(map(leaves.name, names))


def _weights(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not value:
        raise leaves.LeafError(
            f"must be a mapping of groups, not {leaves.kind_of(value)}", "write `{errors: 60, latency: 40}`"
        )
    return {leaves.name(group): leaves.number(weight) for group, weight in value.items()}


Forgiven = Annotated[int, Leaf(_forgiven, {"type": "integer", "minimum": -1})]
Groups = Annotated[tuple[str, ...], Leaf(_groups, LIST_SCHEMA)]
GroupWeights = Annotated[
    dict[str, float],
    Leaf(_weights, {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 100}}),
]


class FailureLimitModel(Section):
    """Argo Rollouts' analysis: what counts as a failure are the strategy's `checks:`."""

    title: ClassVar[str] = "failure_limit"
    interval: Duration = 60.0
    initial_delay: Duration | None = None
    count: Positive | None = None
    failure_limit: Forgiven = 0
    consecutive_error_limit: Forgiven = 4
    inconclusive_limit: Forgiven = 4

    @model_validator(mode="after")
    def _sensible(self) -> FailureLimitModel:
        if self.interval < 1:
            raise wrong("looks more often than once a second", "use an `interval` of `1s` or more", at="interval")
        if self.count is not None and self.failure_limit >= self.count:
            raise wrong(
                f"forgives {self.failure_limit} failures of {self.count} looks, which can never fail",
                "use a `failure_limit` below `count`, or -1 to say that all are forgiven",
                at="failure_limit",
            )
        return self

    def config(self) -> dict[str, Any]:
        """Return what was given, under the names of the judge's settings."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in given.items() if value is not None}

    def settings(self) -> FailureLimit:
        """Return what the judge gets."""
        return msgspec.convert(self.config(), FailureLimit)


class EffectModel(Section):
    """How large a significant change must be to count."""

    title: ClassVar[str] = "effect_size"
    measure: Annotated[str, choice("mean_ratio", "cles")] = "mean_ratio"
    allowed_increase: Number | None = None
    allowed_decrease: Number | None = None

    @model_validator(mode="after")
    def _sensible(self) -> EffectModel:
        same, highest = (1.0, float("inf")) if self.measure == "mean_ratio" else (0.5, 1.0)
        if self.allowed_increase is not None and not same <= self.allowed_increase <= highest:
            raise wrong(
                f"has `allowed_increase: {self.allowed_increase:g}`",
                "20 % more is 1.2" if highest > 1 else "with `cles`, no change is 0.5 and the most is 1",
                at="allowed_increase",
            )
        if self.allowed_decrease is not None and self.allowed_decrease > same:
            raise wrong(
                f"has `allowed_decrease: {self.allowed_decrease:g}`",
                "20 % less is 0.8" if highest > 1 else "with `cles`, no change is 0.5",
                at="allowed_decrease",
            )
        return self

    def effect(self) -> EffectSize:
        """Return what the judge gets."""
        return EffectSize(self.measure, self.allowed_increase, self.allowed_decrease)  # type: ignore[arg-type]


class MetricModel(Section):
    """One metric of the analysis; a name alone is the metric with the defaults."""

    title: ClassVar[str] = "a metric"
    short: ClassVar[str] = "name"
    short_schema: ClassVar[dict[str, Any]] = {"enum": list(KNOWN)}
    editor_forms: ClassVar[dict[str, dict[str, Any]]] = {"name": {"enum": list(KNOWN)}}
    name: Text | None = None
    value: Text | None = None
    groups: Groups | None = None
    direction: Annotated[str, choice("increase", "decrease", "either")] = "increase"
    critical: Flag = False
    must_have_data: Flag = False
    muted: Flag = False
    nan_strategy: Annotated[str, choice("remove", "replace")] = "remove"
    outliers: Annotated[str, choice("keep", "remove")] = "keep"
    effect_size: EffectModel | None = None

    @model_validator(mode="after")
    def _one(self) -> MetricModel:
        if (self.name is None) == (self.value is None):
            raise wrong(
                "must have exactly one of `name` and `value`",
                "`name` is what every version has measured, `value` one of the environment's own queries",
            )
        if self.name is not None and (self.name.startswith(OWN) or not is_metric(self.name)):
            raise wrong(
                f"has `name: {self.name[:60]}`, which is not measured", did_you_mean(self.name, KNOWN), at="name"
            )
        return self

    @property
    def known_as(self) -> str:
        """The name under which it is measured."""
        return f"{OWN}{self.value}" if self.value is not None else str(self.name)

    def metric(self) -> Metric:
        """Return what the judge gets. Without `groups` each metric is a group by itself."""
        own = {"error_rate": "errors"}.get(self.known_as, self.known_as.removeprefix(OWN).partition("_p")[0])
        return Metric(
            self.known_as, self.groups or (own,), self.direction, self.critical,  # type: ignore[arg-type]
            self.must_have_data, self.muted, self.effect_size.effect() if self.effect_size else EffectSize(),
            "zero" if self.nan_strategy == "replace" else "remove", self.outliers,  # type: ignore[arg-type]
        )  # fmt: skip


def _metrics_given(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and value:
        return value
    told = "an empty one" if isinstance(value, list) else leaves.kind_of(value)
    raise wrong(f"must be a list of metrics, not {told}", "write `[error_rate, latency_p99]`")


MetricList = Annotated[tuple[MetricModel, ...], BeforeValidator(_metrics_given)]


class MannWhitneyModel(Section):
    """Kayenta's canary analysis: each metric passes or not, groups are weighed, the score decides."""

    title: ClassVar[str] = "mann_whitney"
    step: Duration = 60.0
    interval: Duration = 300.0
    lifetime: Duration = 900.0
    marginal: Number = 75.0
    passing: Number = Field(default=95.0, alias="pass")
    at_marginal: Annotated[str, choice("rollback", "pause")] = "rollback"
    confidence: Fraction = 0.98
    tolerance: Fraction = 0.25
    weights: GroupWeights | None = None
    metrics: MetricList | None = None

    @model_validator(mode="after")
    def _times(self) -> MannWhitneyModel:
        if not 1 <= self.step <= LONGEST_STEP:
            raise wrong(f"has a `step` of {format_duration(self.step)}", "it is from 1s to 5m", at="step")
        if self.interval < self.step:
            raise wrong(
                "scores more often than it has new values", "use an `interval` of at least `step`", at="interval"
            )
        if self.lifetime < self.interval:
            raise wrong("ends before the first score", "use a `lifetime` of at least `interval`", at="lifetime")
        return self

    @model_validator(mode="after")
    def _scores(self) -> MannWhitneyModel:
        for name, value in (("marginal", self.marginal), ("pass", self.passing)):
            if value > 100:
                raise wrong(f"has `{name}: {value:g}`", "scores are from 0 to 100", at=name)
        if self.marginal > self.passing:
            raise wrong(
                f"has a `marginal` score of {self.marginal:g}, above that to `pass` ({self.passing:g})", at="marginal"
            )
        if not 0 < self.confidence < 1:
            raise wrong("has no such `confidence`", "it is more than 0 and less than 100 %", at="confidence")
        return self

    @model_validator(mode="after")
    def _metrics(self) -> MannWhitneyModel:
        names = [metric.known_as for metric in self.metrics or ()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise wrong(f"has the metric `{twice}` twice", "keep one", at="metrics")
        given = tuple(metric.metric() for metric in self.metrics) if self.metrics else METRICS
        groups = tuple(dict.fromkeys(group for metric in given for group in metric.groups))
        for group in self.weights or {}:
            if group not in groups:
                hint = did_you_mean(group, groups) or f"the groups are {listed(groups)}"
                raise wrong(f"weighs a group `{group}` that no metric is in", hint, at="weights")
        if self.weights and sum(self.weights.values()) > 100 + 1e-9:
            raise wrong("has `weights` above 100 together", "they are percent of the score", at="weights")
        return self

    @model_validator(mode="after")
    def _enough(self) -> MannWhitneyModel:
        needed, most = values_needed(self.confidence), values_at_most(self.step, self.lifetime)
        if needed > most:
            raise wrong(
                f"is never sure: a confidence of {self.confidence * 100:g} % takes {needed} values of each version, and "
                f"there are {most}",
                "use a longer `lifetime`, a shorter `step`, or less `confidence`",
                at="confidence" if "confidence" in self.model_fields_set else "lifetime",
            )
        return self

    def config(self) -> dict[str, Any]:
        """Return what was given, under the names of the judge's settings, as plain data."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if self.metrics is not None:
            given["metrics"] = [plain(metric.metric()) for metric in self.metrics]
        return {name: value for name, value in given.items() if value is not None}

    def settings(self) -> AnalysisSettings:
        """Return what the judge gets."""
        return msgspec.convert(self.config(), AnalysisSettings)
