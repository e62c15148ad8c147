"""`otlp`: OpenTelemetry metrics that services, or a collector, push to Forge (OTLP/HTTP, protobuf or JSON).

For teams that have no store. The listener runs where the environment is judged, from the first look on; exporters
that send cumulative counters lose nothing while it is away.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from forge.adapters.signals.base import Field, QueryResult, Reading, Source
from forge.adapters.signals.otlp_listener import OtlpListener
from forge.adapters.signals.prometheus_counters import RangeCounters, series_key
from forge.adapters.signals.registry import SourceContext
from forge.model.errors import UsageError
from forge.model.plan import SourcePlan
from forge.model.traffic import Gauge

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint

DELTA = 1
"""AGGREGATION_TEMPORALITY_DELTA of the protocol."""
EXAMINED_FOR = 2.0
"""Seconds that `forge signals test` waits for the first push."""
GONE = 600.0
"""Seconds after which a gauge that nobody reports any more is forgotten."""
_STATUS = ("http.response.status_code", "http.status_code", "rpc.grpc.status_code")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`duration` is the histogram of answered requests, in seconds or milliseconds as its unit says; `service` and
    `version` are compared with resource attributes; `gauges` maps a metric's name to its limit (None: unknown)."""

    listen: str = "127.0.0.1"
    port: int = 4318
    service: str = ""
    version: str = "service.version"
    duration: tuple[str, ...] = ("http.server.request.duration", "http.server.duration")
    gauges: dict[str, float | None] = {}
    bearer: str = ""
    """Name of the secret that exporters must send as `Authorization: Bearer ...`."""


class _Pushed(msgspec.Struct):
    """What one version's instances have reported: the bounds of its histogram, and gauges by series."""

    bounds: list[float] = []
    gauges: dict[str, dict[str, tuple[float, float]]] = {}
    at: float = 0.0
    interval: float = 0.0


class OtlpSource:
    """Takes in what is pushed, and gives it as counters. See Source."""

    def __init__(self, name: str, config: Config, context: SourceContext) -> None:
        self._config = config
        self._counters = RangeCounters()
        self._pushed: dict[str, _Pushed] = {}
        self._listener = OtlpListener(
            name, config.listen, config.port, self.take, secret=config.bearer, secrets=context.secrets
        )

    @property
    def gives(self) -> frozenset[Field]:
        """Requests and latency of the duration's histogram, and the gauges. See Source."""
        counted: frozenset[Field] = frozenset({"requests", "latency"})
        return frozenset({*counted, "gauges"}) if self._config.gauges else counted

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before the first look."""
        return self._listener.port

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Return what was pushed so far; the first call starts to listen. See Source."""
        await self._listener.start()
        found = {version: self._reading(version, now) for version in version_ids}
        return {version: reading for version, reading in found.items() if reading is not None}

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Tell what was pushed in the time that somebody waits for an answer. See Source."""
        await self._listener.start()
        if not self._pushed:
            await asyncio.sleep(EXAMINED_FOR)
        readings = await self.read(version_ids, now)
        values: dict[str, float | None] = {
            version: readings[version].requests if version in readings else None for version in version_ids
        }
        address = f"POST http://{self._config.listen}:{self.port}/v1/metrics"
        return [QueryResult("requests", address, values)]

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Source."""
        bounds = {
            version: [None if math.isinf(bound) else bound for bound in pushed.bounds]
            for version, pushed in self._pushed.items()
        }
        return {"counters": self._counters.state(), "bounds": bounds}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`. See Source."""
        try:
            saved = msgspec.convert(state, _Saved)
        except msgspec.ValidationError:
            return
        self._counters.restore(saved.counters)
        for version, bounds in saved.bounds.items():
            self._pushed[version] = _Pushed([math.inf if bound is None else bound for bound in bounds])

    async def close(self) -> None:
        """Stop listening. See Source."""
        await self._listener.close()

    def take(self, request: ExportMetricsServiceRequest) -> None:
        """Take in one push."""
        for resource in request.resource_metrics:
            attributes = _attributes(resource.resource.attributes)
            version = attributes.get(self._config.version, "")
            if not version or (self._config.service and attributes.get("service.name") != self._config.service):
                continue
            pushed = self._pushed.setdefault(version, _Pushed())
            instance = attributes.get("service.instance.id") or series_key(attributes)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._metric(pushed, version, instance, metric)
            self._counters.looked([f"{version} {instance}"], time.time())

    def _metric(self, pushed: _Pushed, version: str, instance: str, metric: Metric) -> None:
        if metric.name in self._config.duration and metric.HasField("histogram"):
            scale = 0.001 if metric.unit == "ms" else 1.0
            delta = metric.histogram.aggregation_temporality == DELTA
            for point in metric.histogram.data_points:
                self._histogram(pushed, version, instance, point, scale, delta=delta)
        elif metric.name in self._config.gauges:
            points = metric.gauge.data_points if metric.HasField("gauge") else metric.sum.data_points
            for point in points:
                series = f"{instance} {sorted(_attributes(point.attributes).items())}"
                value = _value_of(point)
                if math.isfinite(value):
                    pushed.gauges.setdefault(metric.name, {})[series] = (value, time.time())

    def _histogram(
        self, pushed: _Pushed, version: str, instance: str, point: HistogramDataPoint, scale: float, *, delta: bool
    ) -> None:
        attributes = _attributes(point.attributes)
        counts = {f"n {version}": float(point.count)}
        if _failed(attributes):
            counts[f"x {version}"] = float(point.count)
        total = 0
        for bound, count in zip([*point.explicit_bounds, math.inf], point.bucket_counts, strict=False):
            total += count
            scaled = bound if math.isinf(bound) else float(f"{bound * scale:.12g}")
            if scaled not in pushed.bounds:
                pushed.bounds = sorted([*pushed.bounds, scaled])
            counts[f"le {scaled:.12g} {version}"] = float(total)
        at = point.time_unix_nano / 1e9
        for name, count in counts.items():
            if delta:
                self._counters.add(name, count)
            else:
                series = series_key({"instance": instance, "name": name, **attributes})
                self._counters.take(series, [(at, count)], (name,), f"{version} {instance}")
        if at > pushed.at:
            pushed.interval = at - pushed.at if pushed.at else 0.0
            pushed.at = at

    def _reading(self, version: str, now: float) -> Reading | None:
        pushed = self._pushed.get(version)
        if pushed is None or not pushed.at:
            return None
        requests = self._counters.total(f"n {version}")
        latency: list[tuple[float, int]] = []
        for bound in pushed.bounds:
            count = self._counters.total(f"le {bound:.12g} {version}")
            latency.append((bound, max(count, latency[-1][1] if latency else 0)))
        return Reading(
            at=min(pushed.at, now),
            good_for=max(15.0, 3 * min(pushed.interval, 120.0)),
            requests=requests,
            errors=min(self._counters.total(f"x {version}"), requests),
            latency=tuple(latency),
            gauges=tuple(self._gauges(pushed, now)),
        )

    def _gauges(self, pushed: _Pushed, now: float) -> Iterable[Gauge]:
        for name, series in pushed.gauges.items():
            current = [value for value, at in series.values() if now - at < GONE]
            if current:
                yield Gauge(name, max(current), self._config.gauges.get(name))


class _Saved(msgspec.Struct):
    counters: dict[str, object] = {}
    bounds: dict[str, list[float | None]] = {}


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind in ("string_value", "int_value", "bool_value", "double_value"):
            found[pair.key] = str(getattr(pair.value, kind))
    return found


def _failed(attributes: Mapping[str, str]) -> bool:
    """Whether the server is to blame: a status of 500 or more, or an `error.type` without a status."""
    for name in _STATUS:
        status = attributes.get(name, "")
        if status.isdigit():
            return int(status) >= 500
    return bool(attributes.get("error.type"))


def _value_of(point: NumberDataPoint) -> float:
    return float(point.as_int if point.HasField("as_int") else point.as_double)


def open_otlp(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener. Raises UsageError where everybody could push and nobody need be known."""
    import opentelemetry.proto.metrics.v1.metrics_pb2  # noqa: F401  (an optional package: said at once)

    config = msgspec.convert(plan.config, Config)
    if config.listen not in ("127.0.0.1", "::1", "localhost") and not config.bearer:
        raise UsageError(
            f"signals `{plan.name}` listens on {config.listen}, where anybody could push",
            hint="add `auth: {bearer: NAME_OF_A_SECRET}`, or listen on 127.0.0.1",
        )
    return OtlpSource(plan.name, config, context)
