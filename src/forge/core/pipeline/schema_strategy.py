"""How a version goes through an environment: strategies, their steps, checks and routes."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import (
    FRACTION_SCHEMA,
    SIZE_SCHEMA,
    Cores,
    Count,
    Duration,
    Flag,
    Fraction,
    Number,
    Positive,
    Section,
    Size,
    Text,
    Weight,
    plain,
    wrong,
)
from forge.core.pipeline.schema_gate import ApprovalModel
from forge.model.diagnostics import did_you_mean
from forge.model.strategy import Adaptive, HarmBudget, Strategy, StrategyName, StrategyStep, Threshold
from forge.model.traffic import Route

STRATEGIES = ("rolling", "canary", "blue_green")
DEFAULT_CANARY = tuple(
    step for weight in (500, 2500, 5000) for step in (StrategyStep(weight=weight), StrategyStep(pause=60.0))
)
"""`strategy: canary` without steps: 5 %, 25 %, 50 %, a minute each."""


class ErrorRateModel(Section):
    """The part of requests answered 5xx; a bare percentage is `above`."""

    title: ClassVar[str] = "error_rate"
    short: ClassVar[str] = "above"
    short_schema: ClassVar[dict[str, Any]] = FRACTION_SCHEMA
    above: Fraction = 0.05
    over: Duration = 300.0
    minimum_requests: Count = 1

    def threshold(self) -> Threshold:
        """Return it as plain data."""
        return Threshold("error_rate", self.above, self.over, minimum_requests=self.minimum_requests)


class LatencyModel(Section):
    """A quantile of the answer time; a bare duration is `above`."""

    title: ClassVar[str] = "latency"
    short: ClassVar[str] = "above"
    above: Duration
    over: Duration = 300.0
    quantile: Any = 0.99
    minimum_requests: Count = 1

    @model_validator(mode="after")
    def _quantile(self) -> LatencyModel:
        value = self.quantile
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise wrong(f"has a `quantile` of {leaves.shown(value)}", "write a number between 0 and 1, like 0.99")
        return self

    def threshold(self) -> Threshold:
        """Return it as plain data."""
        return Threshold("latency", self.above, self.over, float(self.quantile), self.minimum_requests)


class CpuModel(Section):
    """The part of one core that each replica may use; a bare percentage is `above`."""

    title: ClassVar[str] = "cpu"
    short: ClassVar[str] = "above"
    short_schema: ClassVar[dict[str, Any]] = FRACTION_SCHEMA
    above: Cores
    over: Duration = 300.0

    def threshold(self) -> Threshold:
        """Return it as plain data."""
        return Threshold("cpu", self.above, self.over)


class MemoryModel(Section):
    """The largest resident size of a replica; a bare size is `above`."""

    title: ClassVar[str] = "memory"
    short: ClassVar[str] = "above"
    short_schema: ClassVar[dict[str, Any]] = SIZE_SCHEMA
    above: Size
    over: Duration = 300.0

    def threshold(self) -> Threshold:
        """Return it as plain data."""
        return Threshold("memory", float(self.above), self.over)


class ValueModel(Section):
    """What one of the environment's own queries (`values:` of its signals) may answer."""

    title: ClassVar[str] = "value"
    name: Text
    above: Number
    over: Duration = 300.0

    def threshold(self) -> Threshold:
        """Return it as plain data."""
        return Threshold("value", self.above, self.over, name=self.name)


class CheckModel(Section):
    """One rule: exactly one metric."""

    title: ClassVar[str] = "a check"
    error_rate: ErrorRateModel | None = None
    latency: LatencyModel | None = None
    cpu: CpuModel | None = None
    memory: MemoryModel | None = None
    value: ValueModel | None = None

    @model_validator(mode="after")
    def _one(self) -> CheckModel:
        if len(self.metrics()) != 1:
            raise wrong(
                "must have exactly one of `error_rate`, `latency`, `cpu`, `memory` and `value`",
                "write each check as a list item of its own",
            )
        return self

    def metrics(self) -> list[Any]:
        """Return the metrics that are given."""
        return [rule for rule in (self.error_rate, self.latency, self.cpu, self.memory, self.value) if rule is not None]

    def threshold(self) -> Threshold:
        """Return it as plain data."""
        rule: Threshold = self.metrics()[0].threshold()
        return rule


def thresholds(checks: list[CheckModel] | None) -> tuple[Threshold, ...]:
    """Return the rules; without `checks` the seed's: more than 5 % answered 5xx in 5 minutes."""
    if checks is None:
        return Strategy().thresholds
    return tuple(check.threshold() for check in checks)


class CanaryStepModel(Section):
    """One step of a canary: exactly one of its keys."""

    title: ClassVar[str] = "a canary step"
    weight: Weight | None = None
    pause: Any = None
    approve: ApprovalModel | None = None

    @model_validator(mode="after")
    def _one(self) -> CanaryStepModel:
        if sum(value is not None for value in (self.weight, self.pause, self.approve)) != 1:
            hint = "write `- weight: 5%`, `- pause: 30s`, `- pause: until_resumed` or `- approve: ...`"
            raise wrong("must have exactly one of `weight`, `pause` and `approve`", hint)
        if self.pause is not None and self.pause != "until_resumed":
            try:
                leaves.duration(self.pause)
            except leaves.LeafError as error:
                raise wrong(f"has a `pause` that {error}", "write `30s`, or `until_resumed` to wait") from None
        return self

    def step(self) -> StrategyStep:
        """Return it as plain data."""
        if self.weight is not None:
            return StrategyStep(weight=self.weight)
        if self.approve is not None:
            return StrategyStep(approval=plain(self.approve.approval()))
        if self.pause == "until_resumed":
            return StrategyStep(pause=0.0, until_resumed=True)
        return StrategyStep(pause=leaves.duration(self.pause))


class HarmBudgetModel(Section):
    """What a release may cost before it rolls back whatever its judge says; a bare number is `failed_requests`."""

    title: ClassVar[str] = "harm_budget"
    short: ClassVar[str] = "failed_requests"
    short_schema: ClassVar[dict[str, Any]] = {"type": "number", "minimum": 1}
    failed_requests: Number | None = None
    outage: Duration | None = None

    @model_validator(mode="after")
    def _limits(self) -> HarmBudgetModel:
        if self.failed_requests is None and self.outage is None:
            raise wrong("has no limit", "write `failed_requests: 100`, or `outage: 30s`")
        if self.failed_requests is not None and not 1 <= self.failed_requests < math.inf:
            words = f"has `failed_requests: {self.failed_requests:g}`"
            raise wrong(words, "it is how many more requests than stable's may fail, at least 1", at="failed_requests")
        if self.outage == 0:
            raise wrong("has an `outage` of no time", "write `30s`: of everything failing for everybody", at="outage")
        return self

    def harm_budget(self) -> HarmBudget:
        """Return it as plain data."""
        return HarmBudget(self.failed_requests, self.outage)


class PaceModel(Section):
    """What every strategy has; may stand in the strategy or in `deploy` itself."""

    max_surge: Count | None = None
    max_unavailable: Count | None = None
    checks: list[CheckModel] | None = None
    progress_deadline: Duration | None = None
    bake: Duration | None = None
    patience: Duration | None = None
    auto_promote: Flag | None = None
    keep_previous: Duration | None = None
    warm_up: Duration | None = None
    harm_budget: HarmBudgetModel | None = None
    saturation: Fraction | None = None

    def pace(self) -> dict[str, Any]:
        """Return what is given, under the names of `Strategy`."""
        given = {name: getattr(self, name) for name in PaceModel.model_fields if name not in {"checks", "saturation"}}
        given["fullest"] = self.saturation
        given["thresholds"] = None if self.checks is None else thresholds(self.checks)
        given["harm_budget"] = None if self.harm_budget is None else self.harm_budget.harm_budget()
        return {name: value for name, value in given.items() if value is not None}


class RollingModel(PaceModel):
    """Replica by replica."""

    title: ClassVar[str] = "rolling"


class BlueGreenModel(PaceModel):
    """All at once, when the new version is ready beside the old."""

    title: ClassVar[str] = "blue_green"


class AdaptiveModel(Section):
    """A canary whose weight grows with what is known of the version. What is not given has its default."""

    title: ClassVar[str] = "adaptive"
    budget: Number = 20.0
    tolerance: Fraction = 0.001
    start: Weight = 500
    most: Weight = 5000
    reaction: Duration | None = None
    every: Duration = 10.0
    decide_within: Duration = 900.0

    @model_validator(mode="after")
    def _sensible(self) -> AdaptiveModel:
        if not 1 <= self.budget < math.inf:
            raise wrong(f"has `budget: {self.budget:g}`", "it is how many requests may fail, at least 1", at="budget")
        if self.tolerance <= 0:
            hint = "no number of requests excludes every error more; write `0.1%`"
            raise wrong("has a `tolerance` of nothing", hint, at="tolerance")
        for name, hint in (("reaction", "leave it out: it is measured"), ("decide_within", "write `15m`")):
            if getattr(self, name) == 0:
                raise wrong(f"has a `{name}` of no time", hint, at=name)
        for name in ("start", "most"):
            if getattr(self, name) < 1:
                raise wrong(f"has `{name}` below 0.01%, the smallest weight", "write `5%`", at=name)
        return self

    def adaptive(self) -> Adaptive:
        """Return it as plain data."""
        return Adaptive(**{name: getattr(self, name) for name in type(self).model_fields})


class CanaryModel(PaceModel):
    """Step by step, or as the evidence allows."""

    title: ClassVar[str] = "canary"
    short_schema: ClassVar[dict[str, Any]] = {"const": "adaptive"}
    steps: list[CanaryStepModel] | None = None
    adaptive: AdaptiveModel | None = None

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """The word `adaptive` alone is that with its defaults."""
        if value == "adaptive":
            return {"adaptive": {}}
        if isinstance(value, str):
            raise wrong(f"cannot be {leaves.shown(value)}", did_you_mean(value, ("adaptive",)))
        return super().from_short(value)

    @model_validator(mode="after")
    def _has_weight(self) -> CanaryModel:
        if self.steps is not None and self.adaptive is not None:
            hint = "an adaptive canary finds its own weights; remove one of the two"
            raise wrong("has both `steps` and `adaptive`", hint, at="steps")
        if self.steps is not None and not any(step.weight for step in self.steps):
            raise wrong("never gives the new version traffic", "begin `steps` with `- weight: 5%`")
        return self


class StrategyModel(Section):
    """A strategy's name, or its name with its settings."""

    title: ClassVar[str] = "strategy"
    short: ClassVar[str] = "name"
    short_schema: ClassVar[dict[str, Any]] = {"enum": list(STRATEGIES)}
    rolling: RollingModel | None = None
    canary: CanaryModel | None = None
    blue_green: BlueGreenModel | None = None

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """A name alone is the strategy with its defaults."""
        if isinstance(value, str) and value in STRATEGIES:
            return {value: {}}
        if isinstance(value, str):
            raise wrong(f"cannot be {leaves.shown(value)}", did_you_mean(value, STRATEGIES))
        raise wrong(f"must be a strategy's name or a mapping, not {leaves.kind_of(value)}")

    @model_validator(mode="after")
    def _one(self) -> StrategyModel:
        if len(self.chosen()) != 1:
            raise wrong("must be exactly one of `rolling`, `canary` and `blue_green`")
        return self

    def chosen(self) -> list[tuple[Any, PaceModel]]:
        """Return (name, settings) of the strategies that are given."""
        return [(name, getattr(self, name)) for name in STRATEGIES if getattr(self, name) is not None]


def strategy(model: StrategyModel | None, pace: PaceModel) -> Strategy:
    """Return the strategy; what stands in `deploy` itself completes what stands in the strategy."""
    name: StrategyName = "rolling"
    body: PaceModel | None = None
    if model:
        name, body = model.chosen()[0]
    settings = {**pace.pace(), **(body.pace() if body else {})}
    steps: tuple[StrategyStep, ...] = ()
    if isinstance(body, CanaryModel) and body.adaptive is not None:
        settings["adaptive"] = body.adaptive.adaptive()
    elif name == "canary":
        given = body.steps if isinstance(body, CanaryModel) else None
        steps = tuple(step.step() for step in given) if given else DEFAULT_CANARY
    built = Strategy(name, steps, **settings)
    if built.max_surge == 0 and built.max_unavailable == 0:
        raise wrong("cannot go anywhere with `max_surge: 0` and `max_unavailable: 0`", "write `max_surge: 1`")
    return built


class RouteModel(Section):
    """Requests that go to this version whatever the weights."""

    title: ClassVar[str] = "a route"
    header: Text = ""
    cookie: Text = ""
    value: Text = ""
    mirror: Weight = 0
    version: Text = ""

    @model_validator(mode="after")
    def _one(self) -> RouteModel:
        if sum(map(bool, (self.header, self.cookie, self.mirror))) != 1:
            raise wrong("must have exactly one of `header`, `cookie` and `mirror`", "write `- header: x-canary`")
        return self

    def route(self) -> Route:
        """Return it as plain data; no version: the one that is deployed."""
        return Route(self.version, self.header, self.cookie, self.value, self.mirror)


__all__ = ["CheckModel", "PaceModel", "Positive", "RouteModel", "StrategyModel", "strategy", "thresholds"]
