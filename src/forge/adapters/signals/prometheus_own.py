"""The user's own PromQL, and the saturation of Kubernetes pods: newest values and gauges with their limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from forge.adapters.signals.base import QueryResult, Reading
from forge.adapters.signals.prometheus_api import PrometheusApi, number
from forge.adapters.signals.prometheus_presets import KUBERNETES, KUBERNETES_VALUES
from forge.adapters.signals.prometheus_versions import loosely
from forge.adapters.signals.queried import backslashed, filled
from forge.model.errors import ForgeError
from forge.model.traffic import Gauge

AT_ONCE = 8


class OwnGauge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query, and its limit: a number or another query."""

    query: str
    limit: float | str | None = None
    grows_with_load: bool = True


class _Asked(NamedTuple):
    """One query: whether it is a gauge, and what it is held against."""

    query: str
    gauge: OwnGauge | None


class OwnQueries:
    """Runs the queries that a configuration names, for each version."""

    def __init__(
        self,
        api: PrometheusApi,
        environment: str,
        values: Mapping[str, str],
        gauges: Mapping[str, OwnGauge],
        saturation: str,
        pods: str,
    ) -> None:
        self._api = api
        self._environment = environment
        self._pods = pods
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._asked = {name: _Asked(query, None) for name, query in values.items()}
        self._asked |= {name: _Asked(gauge.query, gauge) for name, gauge in gauges.items()}
        if saturation == "kubernetes":
            self._asked |= {
                name: _Asked(one.query, OwnGauge(one.query, _number_or_query(one.limit), one.grows_with_load))
                for name, one in KUBERNETES.items()
            }
            self._asked |= {name: _Asked(query, None) for name, query in KUBERNETES_VALUES.items()}

    @property
    def names_values(self) -> bool:
        """Whether there is a query for a value."""
        return any(asked.gauge is None for asked in self._asked.values())

    @property
    def names_gauges(self) -> bool:
        """Whether there is a query for a gauge."""
        return any(asked.gauge is not None for asked in self._asked.values())

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Return a reading with values and gauges alone for every version. Raises DependencyFailed."""
        return dict(
            zip(version_ids, await asyncio.gather(*(self._version(one, now) for one in version_ids)), strict=True)
        )

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Run each query once for each version."""
        results = []
        for name, asked in self._asked.items():
            values: dict[str, float | None] = {}
            try:
                for version in version_ids:
                    values[version] = await self._largest(asked.query, version, now)
            except ForgeError as error:
                told = f"{error.message} ({error.hint})" if error.hint else error.message
                results.append(QueryResult(name, asked.query, problem=told))
                continue
            results.append(QueryResult(name, asked.query, values))
        return results

    async def _version(self, version: str, now: float) -> Reading:
        names = [*self._asked]
        found = await asyncio.gather(*(self._largest(self._asked[name].query, version, now) for name in names))
        values: list[tuple[str, float]] = []
        gauges: list[Gauge] = []
        for name, value in zip(names, found, strict=True):
            asked = self._asked[name].gauge
            if value is None:
                continue
            if asked is None:
                values.append((name, value))
            else:
                limit = await self._limit(asked.limit, version, now)
                gauges.append(Gauge(name, value, limit, asked.grows_with_load))
        return Reading(values=tuple(values), gauges=tuple(gauges))

    async def _limit(self, limit: float | str | None, version: str, now: float) -> float | None:
        return await self._largest(limit, version, now) if isinstance(limit, str) else limit

    async def _largest(self, query: str, version: str, now: float) -> float | None:
        """Return the largest number of an answer (the fullest replica); None: there is none."""
        async with self._gate:
            points = await self._api.vector(self._filled(query, version), now)
        numbers = [number(point.value[1]) for point in points if point.value is not None]
        return max((one for one in numbers if math.isfinite(one)), default=None)

    def _filled(self, query: str, version: str) -> str:
        pods = filled(self._pods, version, self._environment, loosely)
        query = query.replace("$pods", backslashed(pods))
        return filled(query, version, self._environment, backslashed)


def _number_or_query(limit: str) -> float | str | None:
    try:
        return float(limit)
    except ValueError:
        return limit or None
