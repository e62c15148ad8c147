"""Where an environment's signals come from: one source or a list of them, asked in this order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import Name, Section, listed, wrong
from forge.core.pipeline.schema_signals_logs import ElasticsearchModel, LogsModel, LokiModel
from forge.core.pipeline.schema_signals_otlp import OtlpModel
from forge.core.pipeline.schema_signals_prometheus import PrometheusModel
from forge.core.pipeline.schema_signals_queried import (
    CloudWatchModel,
    DatadogModel,
    GraphiteModel,
    InfluxModel,
    JsonModel,
    NewRelicModel,
)
from forge.core.pipeline.schema_signals_store import SecretiveModel
from forge.model.diagnostics import did_you_mean
from forge.model.plan import SecretReference, SourcePlan


class ProxyModel(Section):
    """The proxy's own counters; nothing to set."""

    title: ClassVar[str] = "the signals of envoy"

    def config(self) -> dict[str, Any]:
        """Nothing is set."""
        return {}


class SourceModel(Section):
    """One source: its kind with its settings, and a name when there are two of a kind."""

    title: ClassVar[str] = "a source of signals"
    short_schema: ClassVar[dict[str, Any]] = {"enum": ["envoy", "logs"]}
    name: Name = ""
    envoy: ProxyModel | None = None
    prometheus: PrometheusModel | None = None
    logs: LogsModel | None = None
    elasticsearch: ElasticsearchModel | None = None
    loki: LokiModel | None = None
    datadog: DatadogModel | None = None
    cloudwatch: CloudWatchModel | None = None
    influxdb: InfluxModel | None = None
    graphite: GraphiteModel | None = None
    newrelic: NewRelicModel | None = None
    otlp: OtlpModel | None = None
    json_endpoint: JsonModel | None = Field(default=None, alias="json")

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """Return the kinds of sources."""
        names = cls.keys()
        return tuple(key for key in names if key != "name")

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """A name alone is the kind with its defaults."""
        if not isinstance(value, str):
            raise wrong(f"must be a name or a mapping, not {leaves.kind_of(value)}")
        if value not in cls.kinds():
            raise wrong(f"cannot be {leaves.shown(value)}", did_you_mean(value, cls.kinds()))
        return {value: {}}

    @model_validator(mode="after")
    def _one(self) -> SourceModel:
        if len(self._given()) != 1:
            raise wrong(
                "must have exactly one kind of source",
                f"each is an item of its own in the list; the kinds are {listed(self.kinds())}",
            )
        return self

    @property
    def kind(self) -> str:
        """Which adapter reads it."""
        return self._given()[0]

    @property
    def named(self) -> str:
        """How messages call it."""
        return self.name or self.kind

    def secret_names(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield (path in this section, name) of each secret that it needs."""
        model = getattr(self, self._field())
        if isinstance(model, SecretiveModel):
            for path, name in model.secret_names():
                yield (self.kind, *path), name

    def plan(self, secrets: Mapping[str, SecretReference]) -> SourcePlan:
        """Return it as plain data, with where its secrets come from."""
        names = [name for _, name in self.secret_names()]
        found = tuple(secrets[name] for name in dict.fromkeys(names) if name in secrets)
        return SourcePlan(self.kind, self.named, getattr(self, self._field()).config(), found)

    def _given(self) -> list[str]:
        return [
            field.alias or name
            for name, field in type(self).model_fields.items()
            if name != "name" and getattr(self, name) is not None
        ]

    def _field(self) -> str:
        return next(name for name, field in type(self).model_fields.items() if (field.alias or name) == self.kind)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _one_or_list(schema: dict[str, Any]) -> None:
    several = dict(schema)
    schema.clear()
    schema["anyOf"] = [several["items"], several]


SourceList = Annotated[tuple[SourceModel, ...], BeforeValidator(_as_list), Field(json_schema_extra=_one_or_list)]
"""One source stands for a list of one."""


def check_sources(sources: tuple[SourceModel, ...]) -> None:
    """Raise the error of a list in which two sources have one name, or that has none."""
    if not sources:
        raise wrong("has `signals` without a source", "leave `signals` out for the target's own", at="signals")
    names = [source.named for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise wrong(f"has two sources called `{name}`", "give one of them a `name:`", at="signals")
