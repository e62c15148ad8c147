"""What a dashboard, or Grafana's Explore, asks Prometheus for: the same series that releases are judged by."""

from __future__ import annotations

import json
import re

import msgspec

from forge.adapters.signals.prometheus import Config, preset_of
from forge.adapters.signals.prometheus_presets import KUBERNETES, PRESETS, Preset
from forge.model.plan import EnvironmentPlan

INTERVAL = "$__rate_interval"
"""Grafana's own: four scrapes, or as long as a pixel is."""


class Gauge(msgspec.Struct, frozen=True):
    """Something that has an end."""

    name: str
    query: str


class Queries:
    """Asks for one environment. `versions` is a regular expression for the ids of versions, or, with `whole`, for the
    values of the label: a variable of a dashboard has those."""

    def __init__(self, environment: EnvironmentPlan, versions: str, *, whole: bool = False) -> None:
        self._versions = versions
        self._whole = whole
        self._environment = environment.name
        self._config = _config_of(environment)
        self._preset = _preset_of(self._config)

    @property
    def label(self) -> str:
        """The label that tells versions apart."""
        return self._preset.version

    @property
    def by(self) -> str:
        """The labels that series are added up by."""
        return ", ".join(label for label in (self._preset.version, self._preset.first) if label)

    @property
    def counter(self) -> str:
        """The counter of requests, of all versions."""
        return self._selector(self._preset.counter, (), every=True)

    def requests(self) -> str:
        """Requests a second, by version."""
        return f"sum by ({self.by}) (rate({self._selector(self._preset.counter)}[{INTERVAL}]))"

    def split(self) -> str:
        """The share of all requests, by version."""
        return f"{self.requests()} / scalar(sum(rate({self._selector(self._preset.counter)}[{INTERVAL}])))"

    def error_rate(self) -> str:
        """The share of requests that failed, by version; 0 where none did."""
        failures = "|".join(re.escape(one) for one in self._preset.failures)
        failed = " or ".join(
            f"sum by ({self.by}) (rate("
            + self._selector(self._preset.counter, (f"{status}=~{json.dumps(f'({failures}).*')}",))
            + f"[{INTERVAL}]))"
            for status in self._preset.status
        )
        return f"({failed} or {self.requests()} * 0) / {self.requests()}"

    def latency(self, quantile: float) -> str:
        """A quantile of the duration in seconds, by version; empty: it is not measured."""
        if not self._preset.histogram:
            return ""
        buckets = self._selector(f"{self._preset.histogram}_bucket")
        found = f"histogram_quantile({quantile:g}, sum by (le, {self.by}) (rate({buckets}[{INTERVAL}])))"
        return found if self._preset.unit == 1 else f"{found} * {self._preset.unit:g}"

    def gauges(self) -> list[Gauge]:
        """How full what has an end is: a share of its limit, or the reading alone where no limit is known."""
        known: dict[str, tuple[str, str]] = {
            name: (gauge.query, "" if gauge.limit is None else str(gauge.limit))
            for name, gauge in self._config.gauges.items()
        }
        if self._config.saturation:
            known |= {name: (gauge.query, gauge.limit) for name, gauge in KUBERNETES.items()}
        return [
            Gauge(name, self._filled(f"({query}) / ({limit})" if limit else query))
            for name, (query, limit) in sorted(known.items())
        ]

    def _filled(self, query: str) -> str:
        query = query.replace("$pods", self._config.pods).replace("$environment", self._environment)
        return query.replace("${version}", "$version").replace("$version", self._versions)

    def _selector(self, metric: str, more: tuple[str, ...] = (), *, every: bool = False) -> str:
        match = self._config.match.replace("$environment", self._environment)
        wanted = "$version" if self._whole else self._preset.pattern
        pattern = wanted.replace("$environment", self._environment).replace("$version", self._versions)
        of_versions = "" if every else f"{self._preset.version}=~{_quoted(pattern)}"
        return metric + "{" + ",".join(one for one in (self._preset.match, match, of_versions, *more) if one) + "}"


def of_version(environment: EnvironmentPlan, version: str) -> str:
    """Return what shows how one version fares: the share of its requests that failed."""
    escaped = re.escape(version)
    dashed = re.escape(re.sub(r"[^A-Za-z0-9]", "-", version))
    pattern = escaped if dashed == escaped else f"({escaped}|{dashed})"
    return Queries(environment, pattern).error_rate()


def _config_of(environment: EnvironmentPlan) -> Config:
    for source in environment.sources:
        if source.kind == "prometheus":
            return msgspec.convert(source.config, Config)
    from forge.adapters.signals.http import HttpConfig

    return Config(HttpConfig(""), preset="envoy")


def _preset_of(config: Config) -> Preset:
    return preset_of(config) or PRESETS["envoy"]


def _quoted(pattern: str) -> str:
    """Return a text of PromQL; a variable of a dashboard in it is filled in by Grafana."""
    return json.dumps(pattern, ensure_ascii=False)
