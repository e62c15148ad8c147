"""`prometheus`: raw counters of every replica, from everything that speaks Prometheus' HTTP API.

Counters are read as they were scraped, sample by sample, and their increments added up here: a replica that restarts
between two looks is understood, which no `rate()` over a sum could.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from forge.adapters.signals.base import Field, QueryResult, Reading, RequestTrace, Source
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.prometheus_api import PrometheusApi, Series, number
from forge.adapters.signals.prometheus_counters import GONE, RangeCounters, series_key
from forge.adapters.signals.prometheus_histograms import Histograms
from forge.adapters.signals.prometheus_own import OwnGauge, OwnQueries
from forge.adapters.signals.prometheus_presets import PRESETS, Preset
from forge.adapters.signals.prometheus_versions import EXACTLY, Versions
from forge.adapters.signals.registry import SourceContext
from forge.model.errors import ForgeError
from forge.model.plan import SourcePlan

LONGEST_GAP = 300.0
"""Seconds of samples that one look reads at most."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`preset` names what counts requests, or `counter` and `histogram` do; see `Preset` for what goes with them.

    `interval`: seconds between two scrapes. `match`: label matchers, such as `namespace="shop"`. `version` and
    `pattern`: the label that tells versions apart, and what it looks like (a regular expression with `$version`).
    `pods`: what the names of a version's pods look like, for `saturation: kubernetes`. `trace_url`: where a trace of
    an exemplar is looked at, with `$trace` in its place.
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
    trace_url: str = ""


class PrometheusSource:
    """Reads one server for one environment. See Source."""

    def __init__(self, config: Config, api: PrometheusApi, environment: str) -> None:
        self._interval = config.interval
        self._match = config.match
        self._api = api
        self._environment = environment
        self._trace_url = config.trace_url
        self._preset = preset_of(config)
        self._counters = RangeCounters()
        self._histograms = Histograms(self._preset.unit if self._preset else 1.0)
        self._own = OwnQueries(api, environment, config.values, config.gauges, config.saturation, config.pods)
        self._read_at: float | None = None
        self._asked: dict[str, float] = {}

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
        versions = self._versions(self._preset, version_ids)
        replicas, newest = self._count(self._preset, counted, versions, now)
        self._histograms.take(timed, versions, now)
        self._forget(version_ids, now)
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

    async def traces(self, version: str, start: float, end: float) -> list[RequestTrace]:
        """Return the requests that exemplars of the version's durations name. See TracingSource."""
        if self._preset is None or not self._preset.histogram:
            return []
        preset = self._preset
        selectors = self._selectors(preset, f"{preset.histogram}_bucket", [version])
        found = await asyncio.gather(*(self._api.exemplars(selector, start, end) for selector in selectors))
        once: dict[str, RequestTrace] = {}
        for one in sorted((one for more in found for one in more), key=lambda one: -one.timestamp):
            name = one.labels.get("trace_id") or one.labels.get("traceID", "")
            seconds = number(one.value) * (preset.unit or 1.0)
            url = self._trace_url.replace("$trace", quote(name, safe=""))
            if name:
                once.setdefault(name, RequestTrace(name, version, one.timestamp, seconds, url))
        return [*once.values()]

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Source."""
        return {
            "counters": self._counters.state(), "histograms": self._histograms.state(), "read_at": self._read_at,
            "asked": dict(self._asked),
        }  # fmt: skip

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`. See Source."""
        try:
            saved = msgspec.convert(state, _Saved)
        except msgspec.ValidationError:
            return
        self._counters.restore(saved.counters)
        self._histograms.restore(saved.histograms)
        self._read_at, self._asked = saved.read_at, saved.asked

    async def close(self) -> None:
        """Let go of connections. See Source."""
        await self._api.close()

    async def _samples(self, version_ids: list[str], now: float) -> tuple[list[Series], list[Series]]:
        """Return the raw series of requests, and those of their durations (classic and native histograms)."""
        preset = self._preset
        if preset is None:
            return [], []
        window = self._window(now)
        metrics = [preset.counter]
        metrics += [f"{preset.histogram}_bucket", preset.histogram] if preset.histogram else []
        asked = [(metric, one) for metric in metrics for one in self._selectors(preset, metric, version_ids)]
        found = await asyncio.gather(*(self._api.raw(selector, window, now) for _, selector in asked))
        counted: list[Series] = []
        timed: list[Series] = []
        for (metric, _), series in zip(asked, found, strict=True):
            (counted if metric == preset.counter else timed).extend(series)
        return counted, timed

    def _window(self, now: float) -> float:
        """Return how many seconds of samples to read: since the last look, and never fewer than two scrapes."""
        since = now - self._read_at if self._read_at is not None and self._read_at <= now else 0.0
        return min(LONGEST_GAP, max(2.5 * self._interval, since + 1.5 * self._interval))

    def _selectors(self, preset: Preset, metric: str, version_ids: list[str]) -> list[str]:
        """Return what finds a metric of all versions: one selector, two where a label comes before another."""
        common = ",".join(matchers for matchers in (preset.match, self._match) if matchers)
        found = self._versions(preset, version_ids).matchers()
        return [f"{metric}{{{matcher}{',' if common else ''}{common}}}" for matcher in found]

    def _versions(self, preset: Preset, version_ids: list[str]) -> Versions:
        return Versions(version_ids, preset.version, preset.pattern, self._environment, first=preset.first)

    def _forget(self, version_ids: list[str], now: float) -> None:
        """Let go of versions that nobody asks for any more, and of replicas that are gone."""
        self._asked |= dict.fromkeys(version_ids, now)
        self._asked = {version: at for version, at in self._asked.items() if now - at < GONE}

        def wanted(name: str) -> bool:
            version, _, replica = name[2:].partition(" ")
            return version in self._asked and (not replica or self._counters.knows(f"{version} {replica}"))

        self._counters.keep_only(wanted)
        self._histograms.keep_only(self._asked.__contains__)

    def _count(
        self, preset: Preset, found: list[Series], versions: Versions, now: float
    ) -> tuple[dict[str, set[str]], dict[str, float]]:
        """Add up requests and errors; return who counted for each version, and how new its data is."""
        replicas: dict[str, set[str]] = {}
        newest: dict[str, float] = {}
        for series in found:
            version = versions.of(series.metric)
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
        preset = self._preset
        labels = ", ".join(label for label in (preset.version, preset.first) if label)
        shown, *more = self._selectors(preset, metric, version_ids or ["$version"])
        query = " or ".join(f"sum by ({labels}) ({selector})" for selector in (shown, *more))
        try:
            found = await self._api.vector(query, now)
        except ForgeError as error:
            told = f"{error.message} ({error.hint})" if error.hint else error.message
            return QueryResult(name, query, problem=told)
        versions = self._versions(preset, version_ids)
        values: dict[str, float | None] = dict.fromkeys(version_ids)
        for point in found:
            version = versions.of(point.metric)
            if version is not None and point.value is not None:
                values[version] = (values[version] or 0.0) + number(point.value[1])
        return QueryResult(name, query, values)


class _Saved(msgspec.Struct):
    counters: dict[str, object] = {}
    histograms: dict[str, object] = {}
    read_at: float | None = None
    asked: dict[str, float] = {}


def preset_of(config: Config) -> Preset | None:
    """Return what counts requests: the preset, with what the configuration says otherwise. None: nothing does."""
    base = PRESETS[config.preset] if config.preset else PRESETS["plain"] if config.counter else None
    if base is None:
        return None
    if config.counter and not config.preset:
        base = msgspec.structs.replace(base, histogram="")
    if config.version:
        base = msgspec.structs.replace(base, first="", pattern=EXACTLY)
    given = {
        "counter": config.counter, "status": config.status, "failures": config.failures, "unit": config.unit,
        "histogram": config.histogram, "version": config.version, "pattern": config.pattern, "replica": config.replica,
    }  # fmt: skip
    return msgspec.structs.replace(base, **{name: value for name, value in given.items() if value})


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
