"""Prometheus and everything that speaks its HTTP API."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import Duration, Flag, Leaf, Number, Section, Text, TextList, choice, wrong
from forge.core.pipeline.schema_signals_queried import VERSION
from forge.core.pipeline.schema_signals_store import StoreModel

PRESETS = ("envoy", "envoy_gateway", "ingress_nginx", "istio", "linkerd", "plain")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def _metric(value: Any) -> str:
    text = leaves.text(value)
    if not _METRIC.fullmatch(text):
        raise leaves.LeafError(f"must be the name of a metric, not {leaves.shown(text)}", "labels belong into `match`")
    return text


def _label(value: Any) -> str:
    text = leaves.text(value)
    if not _LABEL.fullmatch(text):
        raise leaves.LeafError(f"must be the name of a label, not {leaves.shown(text)}")
    return text


def _limit(value: Any) -> float | str | None:
    if isinstance(value, list | dict):
        raise leaves.LeafError(f"must be a number or a query, not {leaves.kind_of(value)}")
    return leaves.text(value) if isinstance(value, str) else None if value is None else leaves.number(value)


Metric = Annotated[str, Leaf(_metric, {"type": "string"})]
Label = Annotated[str, Leaf(_label, {"type": "string"})]


class VersionLabelModel(Section):
    """Which label tells versions apart, and what it looks like."""

    title: ClassVar[str] = "version"
    short: ClassVar[str] = "label"
    label: Label = ""
    pattern: Text = VERSION

    @model_validator(mode="after")
    def _names_it(self) -> VersionLabelModel:
        if VERSION not in self.pattern:
            raise wrong(f"has a `pattern` without `{VERSION}`", "write for example `shop-$version-.*`", at="pattern")
        try:
            re.compile(self.pattern.replace(VERSION, "x"))
        except re.error as error:
            raise wrong(f"has a `pattern` that is no regular expression: {error}", at="pattern") from None
        return self


class PrometheusGaugeModel(Section):
    """A query for what is used; `limit` is a number or a query."""

    title: ClassVar[str] = "a gauge"
    query: Text
    limit: Annotated[float | str | None, Leaf(_limit, {"type": ["number", "string", "null"]})] = None
    grows_with_load: Flag = True


class PrometheusModel(StoreModel):
    """What is read from it."""

    title: ClassVar[str] = "prometheus"
    preset: Annotated[str, choice(*PRESETS)] = ""
    counter: Metric = ""
    status: TextList = ()
    failures: TextList = ()
    histogram: Metric = ""
    unit: Number | None = None
    version: VersionLabelModel | None = None
    replica: TextList = ()
    match: Text = ""
    interval: Duration = 15.0
    tenant: Text = ""
    values: dict[str, Text] = Field(default_factory=dict)
    gauges: dict[str, PrometheusGaugeModel] = Field(default_factory=dict)
    saturation: Annotated[str, choice("kubernetes")] = ""
    pods: Text = f"{VERSION}-.*"
    trace_url: Text = ""

    @model_validator(mode="after")
    def _something(self) -> PrometheusModel:
        if not (self.preset or self.counter or self.values or self.gauges or self.saturation):
            raise wrong(
                "asks for nothing",
                f"name a `preset` ({', '.join(PRESETS)}) or a `counter`, or write `values`, `gauges` or `saturation`",
            )
        if self.histogram and not (self.preset or self.counter):
            raise wrong("has a `histogram` without a `counter`", at="histogram")
        if self.match.strip().startswith("{"):
            raise wrong("has a `match` in braces", """write what stands in them: `namespace="shop"`""", at="match")
        if both := sorted({*self.values} & {*self.gauges}):
            raise wrong(f"has a value and a gauge that are both called `{both[0]}`", at="gauges")
        if self.interval <= 0:
            raise wrong("has an `interval` of 0", "it is the time between two scrapes", at="interval")
        if VERSION not in self.pods:
            raise wrong(f"has `pods` without `{VERSION}`", "write for example `shop-$version-.*`", at="pods")
        if self.trace_url and "$trace" not in self.trace_url:
            raise wrong(
                "has a `trace_url` without `$trace`",
                "write for example `https://tempo.example/trace/$trace`", at="trace_url",
            )  # fmt: skip
        queries = {**self.values, **{name: gauge.query for name, gauge in self.gauges.items()}}
        for name, query in queries.items():
            if VERSION not in query and "${version}" not in query and "$pods" not in query:
                raise wrong(
                    f"has a query for `{name}` without `{VERSION}`",
                    f"every version is asked for by itself: put `{VERSION}` where its name belongs",
                    at=name,
                )
        return self

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        http = self.http()
        if self.tenant:
            http["headers"] = {**http["headers"], "X-Scope-OrgID": self.tenant}
        return {
            "http": http,
            "preset": self.preset,
            "counter": self.counter,
            "status": list(self.status),
            "failures": list(self.failures),
            "histogram": self.histogram,
            "unit": self.unit,
            "version": self.version.label if self.version else "",
            "pattern": self.version.pattern if self.version else "",
            "replica": list(self.replica),
            "match": self.match,
            "interval": self.interval,
            "values": dict(self.values),
            "gauges": {name: gauge.model_dump() for name, gauge in self.gauges.items()},
            "saturation": self.saturation,
            "pods": self.pods,
            "trace_url": self.trace_url,
        }
