"""Sources that run the user's own queries: stores that answer one with points in time (Datadog, Graphite, ...)."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import msgspec

from forge.adapters.signals.base import Field, QueryResult, Reading
from forge.adapters.signals.counters import IntervalSums
from forge.model.errors import DependencyFailed, ForgeError
from forge.model.traffic import Gauge

Points = list[tuple[float, float]]
"""(beginning of the interval or time of the value in seconds since the epoch, number), oldest first."""

AT_ONCE = 8
"""Queries that are under way at the same time."""
LOOK_BACK = 5
"""Intervals before the current one that are asked for too: late data, and whether there is a series at all."""

_PLACEHOLDER = re.compile(r"\$(?:(version|environment)\b|\{(version|environment)\})")


class GaugeQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query whose newest value is what is used of something that is full at `limit`."""

    query: str
    limit: float | None = None
    grows_with_load: bool = True


class Queries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked. `requests`, `errors` and `log_errors` answer with a count per interval of `step` seconds.

    `delay`: seconds that the store is behind. In every query `$version` and `$environment` are filled in.
    """

    requests: str = ""
    errors: str = ""
    log_errors: str = ""
    values: dict[str, str] = {}
    gauges: dict[str, GaugeQuery] = {}
    step: float = 60.0
    delay: float = 0.0


class PointStore(Protocol):
    """A store that answers a query with points. Raises DependencyFailed for everything that is not an answer."""

    async def points(self, query: str, start: float, end: float, step: float) -> Points:
        """Return what lies in [start, end), `step` seconds apart where the store aggregates. Empty: no such series."""

    def quoted(self, word: str) -> str:
        """Return a version's name so that it cannot end a text in the store's query language."""

    async def close(self) -> None:
        """Let go of connections."""


class QueriedSource:
    """Reads counts per interval and newest values from a `PointStore`. See Source."""

    def __init__(self, queries: Queries, store: PointStore, environment: str) -> None:
        self.queries = queries
        self._store = store
        self._environment = environment
        self._sums = IntervalSums(queries.step)
        self._gate = asyncio.Semaphore(AT_ONCE)

    @property
    def gives(self) -> frozenset[Field]:
        """What is asked for. See Source."""
        given: dict[Field, object] = {
            "requests": self.queries.requests,
            "logs": self.queries.log_errors,
            "values": self.queries.values,
            "gauges": self.queries.gauges,
        }
        return frozenset(field for field, asked in given.items() if asked)

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Ask every query for every version. See Source."""
        found = await asyncio.gather(*(self._version(version, now) for version in version_ids))
        return {version: reading for version, reading in zip(version_ids, found, strict=True) if reading is not None}

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Run each query for each version, or once with a name that no version has. See Source."""
        asked = self._asked()
        return list(await asyncio.gather(*(self._examined(name, asked[name], version_ids, now) for name in asked)))

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Source."""
        return self._sums.state()

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`. See Source."""
        self._sums.restore(state)

    async def close(self) -> None:
        """Let go of connections. See Source."""
        await self._store.close()

    async def _version(self, version: str, now: float) -> Reading | None:
        queries, since = self.queries, self._sums.since(now)
        counting = {"requests": queries.requests, "errors": queries.errors, "log_errors": queries.log_errors}
        counting = {name: query for name, query in counting.items() if query}
        newest = {**queries.values, **{name: gauge.query for name, gauge in queries.gauges.items()}}
        counted, valued = await asyncio.gather(
            self._all(counting, version, since - LOOK_BACK * queries.step, now),
            self._all(newest, version, now - self._good_for, now),
        )
        leading = "requests" if queries.requests else "log_errors" if queries.log_errors else ""
        if leading and not counted[leading]:
            return None
        if not leading and not any(valued.values()):
            return None
        sums = self._sums.take({f"{name}/{version}": dict(points) for name, points in counted.items()}, now)
        totals = {name: round(sums[f"{name}/{version}"]) for name in counting}
        ends = counted[leading][-1][0] + queries.step if leading else None
        values = {name: points[-1][1] for name, points in valued.items() if points}
        return Reading(
            at=now if ends is None else min(now, ends),
            good_for=self._good_for,
            requests=totals.get("requests"),
            errors=min(totals.get("errors", 0), totals["requests"]) if "requests" in totals else None,
            log_errors=totals.get("log_errors"),
            values=tuple((name, values[name]) for name in queries.values if name in values),
            gauges=tuple(
                Gauge(name, values[name], gauge.limit, gauge.grows_with_load)
                for name, gauge in queries.gauges.items()
                if name in values
            ),
        )

    @property
    def _good_for(self) -> float:
        return max(15.0, 3 * self.queries.step + self.queries.delay)

    def _asked(self) -> dict[str, str]:
        queries = self.queries
        named = {"requests": queries.requests, "errors": queries.errors, "log_errors": queries.log_errors}
        named |= {**queries.values, **{name: gauge.query for name, gauge in queries.gauges.items()}}
        return {name: query for name, query in named.items() if query}

    async def _all(self, asked: Mapping[str, str], version: str, start: float, end: float) -> dict[str, Points]:
        found = await asyncio.gather(*(self._points(query, version, start, end) for query in asked.values()))
        return dict(zip(asked, found, strict=True))

    async def _points(self, query: str, version: str, start: float, end: float) -> Points:
        text = filled(query, version, self._environment, self._store.quoted)
        async with self._gate:
            points = await self._store.points(text, start, end, self.queries.step)
        return sorted((at, value) for at, value in points if math.isfinite(at) and math.isfinite(value))

    async def _examined(self, name: str, query: str, version_ids: list[str], now: float) -> QueryResult:
        start = now - self._good_for - LOOK_BACK * self.queries.step
        values: dict[str, float | None] = {}
        at = None
        try:
            for version in version_ids or ["(no version)"]:
                points = await self._points(query, version, start, now)
                if version_ids:
                    values[version] = points[-1][1] if points else None
                at = max(at or 0.0, points[-1][0]) if points else at
        except ForgeError as error:
            return QueryResult(name, query, problem=_told(error))
        return QueryResult(name, query, values, at=at)


def filled(query: str, version: str, environment: str, quoted: Callable[[str], str]) -> str:
    """Return the query with `$version` and `$environment` (or `${...}`) filled in, quoted for its language."""
    words = {"version": quoted(version), "environment": quoted(environment)}
    return _PLACEHOLDER.sub(lambda found: words[found.group(1) or found.group(2)], query)


def backslashed(word: str) -> str:
    """Return a word so that neither kind of quotes around it can be ended by it."""
    return re.sub(r"([\\'\"])", r"\\\1", word)


def number(value: object) -> float:
    """Return a point's value; what is null or no number becomes NaN, which is left out."""
    return float(cast("float", value)) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def shape_failed(store: str, what: str) -> DependencyFailed:
    """Return the error for an answer that is JSON, but not of the store's shape."""
    return DependencyFailed(
        f"{store}: answered {what}", hint="is the URL that of the API, and does the version of the store fit?"
    )


def _told(error: ForgeError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
