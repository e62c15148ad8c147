"""Stores that answer the user's own queries: Datadog, CloudWatch, InfluxDB, Graphite, New Relic, any JSON endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline.schema_base import Duration, Flag, Number, Positive, Section, Text, choice, wrong
from forge.core.pipeline.schema_signals_store import StoreModel

VERSION = "$version"


class GaugeModel(Section):
    """A query for what is used of something that is full at `limit`."""

    title: ClassVar[str] = "a gauge"
    query: Text
    limit: Number | None = None
    grows_with_load: Flag = True


class QueriedModel(StoreModel):
    """What is asked of a store that answers with points in time."""

    requests: Text = ""
    errors: Text = ""
    log_errors: Text = ""
    values: dict[str, Text] = Field(default_factory=dict)
    gauges: dict[str, GaugeModel] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _something(self) -> QueriedModel:
        asked = self.asked()
        if not asked:
            raise wrong(
                "asks for nothing", "write a query: `requests` and `errors`, `log_errors`, `values` or `gauges`"
            )
        if bool(self.errors) and not self.requests:
            raise wrong(
                "counts `errors` without `requests`", "errors are judged as a part of the requests", at="errors"
            )
        if self.requests and not self.errors:
            raise wrong("counts `requests` without `errors`", "write a query for `errors`", at="requests")
        for name, query in asked.items():
            if not self.finds_version(query):
                raise wrong(
                    f"has a query for `{name}` without `{VERSION}`",
                    f"every version is asked for by itself: put `{VERSION}` where its name belongs",
                    at=name,
                )
        return self

    def finds_version(self, query: str) -> bool:
        """Tell whether the query asks for one version."""
        return VERSION in query or "${version}" in query

    def asked(self) -> dict[str, str]:
        """Return every query by the name under which it is written."""
        named = {"requests": self.requests, "errors": self.errors, "log_errors": self.log_errors}
        named |= {**self.values, **{name: gauge.query for name, gauge in self.gauges.items()}}
        return {name: query for name, query in named.items() if query}

    def counted(self) -> dict[str, Any]:
        """Return the queries under the names of the adapter."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "log_errors": self.log_errors,
            "values": dict(self.values),
            "gauges": {name: gauge.model_dump() for name, gauge in self.gauges.items()},
        }


class IntervalModel(QueriedModel):
    """A store that counts per interval."""

    step: Duration = 60.0
    delay: Duration = 0.0

    @model_validator(mode="after")
    def _long_enough(self) -> IntervalModel:
        if self.step < 1:
            raise wrong(f"has a `step` of {self.step:g} s", "a store counts at least by the second", at="step")
        return self

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        return {"http": self.http(), "queries": {**self.counted(), "step": self.step, "delay": self.delay}}


class GraphiteModel(IntervalModel):
    """Graphite."""

    title: ClassVar[str] = "graphite"


class DatadogModel(IntervalModel):
    """Datadog; its two keys are headers with secrets."""

    title: ClassVar[str] = "datadog"


class NewRelicModel(IntervalModel):
    """New Relic; its user key is the header `API-Key` with a secret."""

    title: ClassVar[str] = "newrelic"
    url: Annotated[str, StoreModel.model_fields["url"].metadata[0]] = "https://api.newrelic.com"
    account: Positive

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        return {**super().config(), "account": self.account}


class InfluxModel(IntervalModel):
    """InfluxDB."""

    title: ClassVar[str] = "influxdb"
    language: Annotated[str, choice("influxql", "flux")] = "influxql"
    database: Text = ""
    organisation: Text = ""
    spellings: ClassVar[Mapping[str, str]] = {"organization": "organisation"}

    @model_validator(mode="after")
    def _place(self) -> InfluxModel:
        if self.language == "flux" and not self.organisation:
            raise wrong("needs `organisation`", "Flux queries belong to one; it is in the URL of InfluxDB's own pages")
        if self.language == "influxql" and not self.database:
            raise wrong("needs `database`", "InfluxQL queries belong to one")
        return self

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        place = {"language": self.language, "database": self.database, "organisation": self.organisation}
        return {**super().config(), **place}


class CloudWatchModel(IntervalModel):
    """Amazon CloudWatch; credentials are found where AWS' own tools find them."""

    title: ClassVar[str] = "cloudwatch"
    region: Text
    profile: Text = ""
    url: Annotated[str, StoreModel.model_fields["url"].metadata[0]] = ""

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        whole = super().config()
        if not self.url:
            whole["http"]["url"] = f"https://monitoring.{self.region}.amazonaws.com"
        return {**whole, "region": self.region, "profile": self.profile}


class JsonModel(QueriedModel):
    """Any endpoint that answers JSON; numbers are found by JSONPath."""

    title: ClassVar[str] = "json"
    path: Text = ""
    time: Text = ""

    def finds_version(self, query: str) -> bool:
        """A path that names the version makes every document one version's own."""
        return super().finds_version(query) or super().finds_version(self.path)

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        return {"http": self.http(), "path": self.path, "time": self.time, **self.counted()}
