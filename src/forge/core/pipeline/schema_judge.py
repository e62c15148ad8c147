"""Who judges the releases of an environment, and what may be set of it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import Duration, Fraction, Number, Section, choice, wrong
from forge.core.pipeline.schema_judge_rules import FailureLimitModel, MannWhitneyModel
from forge.model.diagnostics import did_you_mean

JUDGES = ("sequential", "threshold", "failure_limit", "mann_whitney", "none")


class WeightsModel(Section):
    """What part each metric has in the evidence, relative to their sum."""

    title: ClassVar[str] = "weights"
    errors: Number = 0.5
    latency: Number = 0.3
    logs: Number = 0.1
    saturation: Number = 0.1

    @model_validator(mode="after")
    def _some(self) -> WeightsModel:
        if self.errors + self.latency + self.logs + self.saturation <= 0:
            raise wrong("has no metric left", "one of `errors`, `latency`, `logs` and `saturation` must be more than 0")
        return self


class SequentialModel(Section):
    """The judge that looks after every reading. What is not given has the default of the judge itself."""

    title: ClassVar[str] = "sequential"
    alpha: Fraction = 0.01
    ratio: Number = 1.1
    rate: Fraction = 0.0002
    slo_alpha: Fraction = 0.001
    decide_within: Duration = 900.0
    doubt: Number = 20.0
    prove: Fraction | None = None
    latency: Annotated[str, choice("whole", "tails", "both")] = "both"
    latency_ratio: Number = 1.25
    latency_clump: Number = 5.0
    cpu: Number = 1.5
    memory: Number = 2.0
    clump: Number | None = None
    block: Duration | None = None
    weights: WeightsModel | None = None

    @model_validator(mode="after")
    def _sensible(self) -> SequentialModel:
        for name in ("alpha", "rate", "slo_alpha"):
            if not 0 < getattr(self, name) < 1:
                raise wrong(f"has `{name}: {getattr(self, name):g}`", "it is more than 0 and less than 100 %", at=name)
        for name in ("ratio", "latency_ratio", "latency_clump", "cpu", "memory", "doubt", "clump"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise wrong(f"has `{name}: {value:g}`", "it is at least 1", at=name)
        return self

    def config(self) -> dict[str, Any]:
        """Return what was given, under the names of the judge's settings."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        given = {name: value for name, value in given.items() if value is not None}
        if self.weights is not None:
            given["weights"] = self.weights.model_dump()
        return given


class RuleModel(Section):
    """A judge whose rules are the strategy's `checks:`; nothing to set."""

    title: ClassVar[str] = "this judge"


class JudgeModel(Section):
    """A judge by its name alone, or with its settings."""

    title: ClassVar[str] = "judge"
    short_schema: ClassVar[dict[str, Any]] = {"enum": list(JUDGES)}
    sequential: SequentialModel | None = None
    threshold: RuleModel | None = None
    failure_limit: FailureLimitModel | None = None
    mann_whitney: MannWhitneyModel | None = None
    no_judge: RuleModel | None = Field(default=None, alias="none")

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """A name alone is the judge with its defaults."""
        if not isinstance(value, str):
            raise wrong(f"must be a name or a mapping, not {leaves.kind_of(value)}")
        known = cls.keys()
        if value not in known:
            raise wrong(f"cannot be {leaves.shown(value)}", did_you_mean(value, known))
        return {value: {}}

    @model_validator(mode="after")
    def _one(self) -> JudgeModel:
        if len(self.model_fields_set) > 1:
            raise wrong("has more than one judge", "an environment has exactly one")
        return self

    @property
    def name(self) -> str:
        """The name that the judge is known by."""
        given = next(iter(self.model_fields_set), "sequential")
        return "none" if given == "no_judge" else given

    def config(self) -> dict[str, Any]:
        """Return what is set of it as plain data."""
        given = self.sequential or self.failure_limit or self.mann_whitney
        return given.config() if given is not None else {}
