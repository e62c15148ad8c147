"""`prometheus`: raw counters of every replica, from everything that speaks Prometheus' HTTP API.

Counters are read as they were scraped, sample by sample, and their increments added up here: a replica that restarts
between two looks is understood, which no `rate()` over a sum could.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping

import msgspec

from forge.adapters.signals.base import Field, QueryResult, Reading, Source
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.prometheus_api import PrometheusApi, Series, number
from forge.adapters.signals.prometheus_counters import RangeCounters, series_key
from forge.adapters.signals.prometheus_histograms import Histograms
from forge.adapters.signals.prometheus_own import OwnGauge, OwnQueries
from forge.adapters.signals.prometheus_presets import PRESETS, Preset
from forge.adapters.signals.queried import filled
from forge.adapters.signals.registry import SourceContext
from forge.model.errors import ForgeError
from forge.model.plan import SourcePlan

LONGEST_GAP = 300.0
"""Seconds of samples that one look reads at most."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`preset` names what counts requests, or `counter` and `histogram` do; see `Preset` for what goes with them.

    `interval`: seconds between two scrapes. `match`: label matchers, such as `namespace="shop"`. `version` and
    `pattern`: the label that tells versions apart, and what it looks like (a regular expression with `$version`).
    `pods`: what the names of a version's pods look like, for `saturation: kubernetes`.
    """

    http: HttpConfig
    preset: str = ""
    counter: str = ""
    status: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    histogram: str = ""
    unit: float | None = None
    version: str = ""
    pattern: str = ""
    replica: tuple[str, ...] = ()
    match: str = ""
    interval: float = 15.0
    values: dict[str, str] = {}
    gauges: dict[str, OwnGauge] = {}
    saturation: str = ""
    pods: str = "$version-.*"


class PrometheusSource:
    """Reads one server for one environment. See Source."""

    def __init__(self, config: Config, api: PrometheusApi, environment: str) -> None:
        self._interval = config.interval
        self._match = config.match
        self._api = api
        self._environment = environment
        self._preset = preset_of(config)
        self._counters = RangeCounters()
        self._histograms = Histograms(self._preset.unit if self._preset else 1.0)
        self._own = OwnQueries(api, environment, config.values, config.gauges, config.saturation, config.pods)
        self._read_at: float | None = None

    @property
    def gives(self) -> frozenset[Field]:
        """What is asked for. See Source."""
        preset = self._preset
        given: dict[Field, object] = {
            "requests": preset is not None,
            "groups": preset is not None,
            "latency": preset is not None and preset.histogram,
            "values": self._own.names_values,
            "gauges": self._own.names_gauges,
        }
        return frozenset(field for field, asked in given.items() if asked)

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Take in every sample since the last look. See Source."""
        if not version_ids:
            return {}
        own = asyncio.create_task(self._own.read(version_ids, now))
        try:
            counted, timed = await self._samples(version_ids, now)
            answered = await own
        finally:
            own.cancel()
        self._read_at = now
        if self._preset is None:
            return {version: reading for version, reading in answered.items() if reading.values or reading.gauges}
        patterns = {version: re.compile(self._pattern(self._preset, version)) for version in version_ids}
        replicas, newest = self._count(self._preset, counted, patterns, now)
        self._histograms.take(timed, lambda labels: _version_of(labels.get(self._label, ""), patterns), now)
        return {
            version: msgspec.structs.replace(
                answered[version],
                at=min(now, newest[version]),
                good_for=max(15.0, 3 * self._interval + 5.0),
                requests=self._counters.total(f"n {version}"),
                errors=min(self._counters.total(f"x {version}"), self._counters.total(f"n {version}")),
                groups=tuple(self._group(version, replica) for replica in sorted(replicas[version])),
                latency=self._histograms.latency(version),
            )
            for version in version_ids
            if version in replicas
        }

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Run every query once and tell the newest values. See Source."""
        results = await self._own.examine(version_ids, now)
        if self._preset is None:
            return results
        wanted = {"requests": self._preset.counter}
        if self._preset.histogram:
            wanted["latency"] = f"{self._preset.histogram}_count"
        told = [await self._examined(name, metric, version_ids, now) for name, metric in wanted.items()]
        return [*told, *results]

    async def traces(self, version: str, start: float, end: float) -> list[str]:
        """Return the ids of traces that exemplars of the version's requests name, newest first."""
        if self._preset is None or not self._preset.histogram:
            return []
        selector = self._selector(self._preset, f"{self._preset.histogram}_bucket", [version])
        found = await self._api.exemplars(selector, start, end)
        ids = (one.labels.get("trace_id") or one.labels.get("traceID", "") for one in found)
        return [*dict.fromkeys(trace for trace in ids if trace)]

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Source."""
        return {
            "counters": self._counters.state(), "histograms": self._histograms.state(), "read_at": self._read_at
        }  # fmt: skip

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`. See Source."""
        try:
            saved = msgspec.convert(state, _Saved)
        except msgspec.ValidationError:
            return
        self._counters.restore(saved.counters)
        self._histograms.restore(saved.histograms)
        self._read_at = saved.read_at

    async def close(self) -> None:
        """Let go of connections. See Source."""
        await self._api.close()

    @property
    def _label(self) -> str:
        return self._preset.version if self._preset else ""

    async def _samples(self, version_ids: list[str], now: float) -> tuple[list[Series], list[Series]]:
        """Return the raw series of requests, and those of their durations (classic and native histograms)."""
        preset = self._preset
        if preset is None:
            return [], []
        window = self._window(now)
        metrics = [preset.counter]
        metrics += [f"{preset.histogram}_bucket", preset.histogram] if preset.histogram else []
        found = await asyncio.gather(
            *(self._api.raw(self._selector(preset, metric, version_ids), window, now) for metric in metrics)
        )
        return found[0], [series for more in found[1:] for series in more]

    def _window(self, now: float) -> float:
        """Return how many seconds of samples to read: since the last look, and never fewer than two scrapes."""
        since = now - self._read_at if self._read_at is not None and self._read_at <= now else 0.0
        return min(LONGEST_GAP, max(2.5 * self._interval, since + 1.5 * self._interval))

    def _selector(self, preset: Preset, metric: str, version_ids: Iterable[str]) -> str:
        patterns = "|".join(self._pattern(preset, version) for version in version_ids)
        escaped = patterns.replace("\\", "\\\\").replace('"', '\\"')
        matchers = [f'{preset.version}=~"{escaped}"', preset.match, self._match]
        return f"{metric}{{{','.join(matcher for matcher in matchers if matcher)}}}"

    def _pattern(self, preset: Preset, version: str) -> str:
        return filled(preset.pattern, version, self._environment, re.escape)

    def _count(
        self, preset: Preset, found: list[Series], patterns: Mapping[str, re.Pattern[str]], now: float
    ) -> tuple[dict[str, set[str]], dict[str, float]]:
        """Add up requests and errors; return who counted for each version, and how new its data is."""
        replicas: dict[str, set[str]] = {}
        newest: dict[str, float] = {}
        for series in found:
            version = _version_of(series.metric.get(preset.version, ""), patterns)
            if version is None or not series.values:
                continue
            replica = "/".join(series.metric[label] for label in preset.replica if label in series.metric)
            names = [f"n {version}", f"n {version} {replica}"]
            if _failed(series.metric, preset):
                names += [f"x {version}", f"x {version} {replica}"]
            samples = [(at, number(text)) for at, text in series.values]
            self._counters.take(series_key(series.metric), samples, tuple(names), f"{version} {replica}")
            replicas.setdefault(version, set()).add(replica)
            newest[version] = max(newest.get(version, 0.0), series.values[-1][0])
        self._counters.looked([f"{version} {name}" for version, names in replicas.items() for name in names], now)
        return replicas, newest

    def _group(self, version: str, replica: str) -> tuple[str, int, int]:
        requests = self._counters.total(f"n {version} {replica}")
        return replica, requests, min(requests, self._counters.total(f"x {version} {replica}"))

    async def _examined(self, name: str, metric: str, version_ids: list[str], now: float) -> QueryResult:
        assert self._preset is not None
        query = self._selector(self._preset, metric, version_ids or ["$version"])
        try:
            found = await self._api.vector(f"sum by ({self._preset.version}) ({query})", now)
        except ForgeError as error:
            told = f"{error.message} ({error.hint})" if error.hint else error.message
            return QueryResult(name, query, problem=told)
        patterns = {version: re.compile(self._pattern(self._preset, version)) for version in version_ids}
        values: dict[str, float | None] = dict.fromkeys(version_ids)
        for point in found:
            version = _version_of(point.metric.get(self._preset.version, ""), patterns)
            if version is not None and point.value is not None:
                values[version] = (values[version] or 0.0) + number(point.value[1])
        return QueryResult(name, query, values)


class _Saved(msgspec.Struct):
    counters: dict[str, object] = {}
    histograms: dict[str, object] = {}
    read_at: float | None = None


def preset_of(config: Config) -> Preset | None:
    """Return what counts requests: the preset, with what the configuration says otherwise. None: nothing does."""
    base = PRESETS[config.preset] if config.preset else PRESETS["plain"] if config.counter else None
    if base is None:
        return None
    if config.counter and not config.preset:
        base = msgspec.structs.replace(base, histogram="")
    given = {
        "counter": config.counter, "status": config.status, "failures": config.failures, "unit": config.unit,
        "histogram": config.histogram, "version": config.version, "pattern": config.pattern, "replica": config.replica,
    }  # fmt: skip
    return msgspec.structs.replace(base, **{name: value for name, value in given.items() if value})


def _version_of(label: str, patterns: Mapping[str, re.Pattern[str]]) -> str | None:
    """Return the version whose pattern is all of the label."""
    if label in patterns and patterns[label].fullmatch(label):
        return label
    return next((version for version, pattern in patterns.items() if pattern.fullmatch(label)), None)


def _failed(labels: Mapping[str, str], preset: Preset) -> bool:
    """Whether the first status label that there is begins as failures do."""
    for name in preset.status:
        if name in labels:
            return labels[name].startswith(preset.failures)
    return False


def open_prometheus(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener."""
    config = msgspec.convert(plan.config, Config)
    api = PrometheusApi(StoreClient(plan.name, config.http, context.secrets))
    return PrometheusSource(config, api, context.environment.name)
