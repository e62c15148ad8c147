"""`json`: any HTTP endpoint that answers JSON, such as a service's own statistics; numbers are found by JSONPath.

Counts are cumulative counters (they may reset): of the whole version, or one for each match of the path, such as a
replica.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from forge.adapters.signals.base import Field, QueryResult, Reading, Source
from forge.adapters.signals.counters import CounterSums
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.queried import GaugeQuery, filled, number
from forge.adapters.signals.registry import SourceContext
from forge.model.errors import DependencyFailed, ForgeError, UsageError
from forge.model.plan import SourcePlan
from forge.model.traffic import Gauge

if TYPE_CHECKING:
    from jsonpath import JSONPath

GOOD_FOR = 15.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`path` is below the URL; paths into the answer are JSONPath (RFC 9535). `$version` may stand in all of them.

    `requests`, `errors` and `log_errors` are cumulative counters. `time`: seconds since the epoch of the data.
    """

    http: HttpConfig
    path: str = ""
    requests: str = ""
    errors: str = ""
    log_errors: str = ""
    time: str = ""
    values: dict[str, str] = {}
    gauges: dict[str, GaugeQuery] = {}


class JsonSource:
    """Reads one JSON document a version, or one for all where `path` does not name it. See Source."""

    def __init__(self, name: str, config: Config, client: StoreClient, environment: str) -> None:
        self._name = name
        self._config = config
        self._client = client
        self._environment = environment
        self._sums = CounterSums()
        self._compiled: dict[str, JSONPath] = {}
        for query in self._asked().values():
            self._compile(filled(query, "1", environment, _in_path))

    @property
    def gives(self) -> frozenset[Field]:
        """What is asked for. See Source."""
        config = self._config
        given: dict[Field, object] = {
            "requests": config.requests,
            "logs": config.log_errors,
            "values": config.values,
            "gauges": config.gauges,
        }
        return frozenset(field for field, asked in given.items() if asked)

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Fetch the documents, and find the numbers. See Source."""
        paths = {version: self._path(version) for version in version_ids}
        urls = [*dict.fromkeys(paths.values())]
        documents = dict(zip(urls, await asyncio.gather(*(self._client.json("GET", url) for url in urls)), strict=True))
        found = {version: self._reading(version, documents[paths[version]], now) for version in version_ids}
        return {version: reading for version, reading in found.items() if reading is not None}

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Fetch once and tell what each path finds. See Source."""
        del now
        results = []
        for name, query in self._asked().items():
            values: dict[str, float | None] = {}
            try:
                for version in version_ids:
                    document = await self._client.json("GET", self._path(version))
                    numbers = self._numbers(query, version, document)
                    values[version] = sum(numbers.values()) if numbers else None
            except ForgeError as error:
                results.append(QueryResult(name, query, problem=error.message))
                continue
            results.append(QueryResult(name, query, values))
        return results

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Source."""
        return self._sums.state()

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`. See Source."""
        self._sums.restore(state)

    async def close(self) -> None:
        """Let go of connections. See Source."""
        await self._client.close()

    def _path(self, version: str) -> str:
        return filled(self._config.path, version, self._environment, lambda word: quote(word, safe=""))

    def _asked(self) -> dict[str, str]:
        config = self._config
        named = {"requests": config.requests, "errors": config.errors, "log_errors": config.log_errors}
        named |= {**config.values, **{name: gauge.query for name, gauge in config.gauges.items()}}
        return {name: query for name, query in named.items() if query}

    def _reading(self, version: str, document: Any, now: float) -> Reading | None:
        config = self._config
        counted = {
            name: self._numbers(query, version, document)
            for name, query in (("requests", config.requests), ("errors", config.errors), ("log", config.log_errors))
            if query
        }
        if any(not numbers for numbers in counted.values()):
            return None
        values = {name: self._one(query, version, document) for name, query in config.values.items()}
        gauges = {name: self._one(gauge.query, version, document) for name, gauge in config.gauges.items()}
        if not counted and all(value is None for value in (*values.values(), *gauges.values())):
            return None
        sums = self._sums.take({f"{name}/{version}": numbers for name, numbers in counted.items()}, now)
        totals = {name: round(sums[f"{name}/{version}"]) for name in counted}
        at = self._one(config.time, version, document) if config.time else None
        return Reading(
            at=min(at, now) if at is not None else None,
            good_for=GOOD_FOR,
            requests=totals.get("requests"),
            errors=min(totals.get("errors", 0), totals["requests"]) if "requests" in totals else None,
            log_errors=totals.get("log"),
            values=tuple((name, value) for name, value in values.items() if value is not None),
            gauges=tuple(
                Gauge(name, value, config.gauges[name].limit, config.gauges[name].grows_with_load)
                for name, value in gauges.items()
                if value is not None
            ),
        )

    def _one(self, query: str, version: str, document: Any) -> float | None:
        numbers = self._numbers(query, version, document)
        return max(numbers.values()) if numbers else None

    def _numbers(self, query: str, version: str, document: Any) -> dict[str, float]:
        """Return the numbers that a path finds, by where they stand."""
        path = self._compile(filled(query, version, self._environment, _in_path))
        found: dict[str, float] = {}
        for match in path.finditer(document):
            value = number(match.obj)
            if math.isfinite(value):
                found[match.path] = value
            elif match.obj is not None:
                raise DependencyFailed(
                    f"{self._name}: {query} finds {msgspec.json.encode(match.obj)[:60].decode(errors='replace')}, "
                    "which is no number"
                )
        return found

    def _compile(self, query: str) -> JSONPath:
        import jsonpath

        known = self._compiled.get(query)
        if known is None:
            try:
                compiled = jsonpath.compile(query)
            except jsonpath.JSONPathError as error:
                raise UsageError(f"signals `{self._name}`: {query} is no JSONPath: {error}") from None
            if not isinstance(compiled, jsonpath.JSONPath):
                raise UsageError(f"signals `{self._name}`: {query} joins several paths", hint="write one path")
            if len(self._compiled) > 500:
                self._compiled.clear()
            known = self._compiled[query] = compiled
        return known


def _in_path(word: str) -> str:
    return word.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"')


def open_json(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener. Raises UsageError for a path that is wrong."""
    config = msgspec.convert(plan.config, Config)
    client = StoreClient(plan.name, config.http, context.secrets)
    return JsonSource(plan.name, config, client, context.environment.name)
