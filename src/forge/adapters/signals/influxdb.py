"""`influxdb`: InfluxDB, asked in InfluxQL (`/query`: 1.x, 2.x, 3) or in Flux (`/api/v2/query`: 2.x)."""

from __future__ import annotations

import csv
import io
import math
from datetime import datetime
from typing import Any, Literal

import msgspec

from forge.adapters.signals.base import Source
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.queried import Points, QueriedSource, Queries, backslashed, number
from forge.adapters.signals.registry import SourceContext
from forge.model.plan import SourcePlan


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Queries hold `$start`, `$end` (times in the query's language) and `$step` (such as `60s`) where they need them.

    `database` is for InfluxQL, `organisation` for Flux.
    """

    http: HttpConfig
    queries: Queries
    language: Literal["influxql", "flux"] = "influxql"
    database: str = ""
    organisation: str = ""


class InfluxStore:
    """An InfluxDB. See PointStore."""

    def __init__(self, client: StoreClient, config: Config) -> None:
        self._client = client
        self._config = config

    async def points(self, query: str, start: float, end: float, step: float) -> Points:
        """Ask one query; several series of it are added up. See PointStore."""
        asked = self._timed(query, start, end, step)
        if self._config.language == "flux":
            found = await self._flux(asked)
        else:
            found = await self._influxql(asked)
        total: dict[float, float] = {}
        for at, value in found:
            if math.isfinite(value):
                total[at] = total.get(at, 0.0) + value
        return [(at, value) for at, value in sorted(total.items()) if start <= at < end]

    def quoted(self, word: str) -> str:
        """See PointStore."""
        return backslashed(word)

    async def close(self) -> None:
        """Let go of connections. See PointStore."""
        await self._client.close()

    def _timed(self, query: str, start: float, end: float, step: float) -> str:
        seconds = f"{max(1, round(step))}s"
        if self._config.language == "flux":
            begins, ends = f"{int(start)}", f"{int(end) + 1}"
        else:
            begins, ends = f"{int(start)}s", f"{int(end) + 1}s"
        return query.replace("$start", begins).replace("$end", ends).replace("$step", seconds)

    async def _influxql(self, query: str) -> Points:
        answer = await self._client.json("POST", "/query", form={"db": self._config.database, "q": query, "epoch": "s"})
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list):
            raise self._client.failed("answered in a shape that is not InfluxDB's")
        points: Points = []
        for result in results:
            if result.get("error"):
                raise self._client.failed(f"does not take the query: {str(result['error'])[:300]}", "check the query")
            for series in result.get("series", []):
                points += self._rows(series)
        return points

    def _rows(self, series: dict[str, Any]) -> Points:
        """Return (time, first column beside the time) of each row."""
        columns, rows = series.get("columns", []), series.get("values", [])
        if "time" not in columns or len(columns) < 2:
            raise self._client.failed(f"answered columns {columns}, where `time` and a number are needed")
        time = columns.index("time")
        value = next(index for index in range(len(columns)) if index != time)
        return [(number(row[time]), number(row[value])) for row in rows]

    async def _flux(self, query: str) -> Points:
        _, _, content = await self._client.ask(
            "POST",
            "/api/v2/query",
            params={"org": self._config.organisation},
            body=query.encode(),
            headers={"Content-Type": "application/vnd.flux", "Accept": "application/csv"},
        )
        if content and not content.endswith(b"\n"):
            raise self._client.failed("answered rows that are cut off")
        points: Points = []
        header: list[str] = []
        for row in csv.reader(io.StringIO(content.decode(errors="replace"))):
            if not any(row):
                header = []
            elif not header:
                header = row
                if "error" in header:
                    raise self._client.failed("does not take the query", "check the query")
                if "_time" not in header or "_value" not in header:
                    raise self._client.failed(f"answered columns {header}, where `_time` and `_value` are needed")
            else:
                points.append((_seconds(row[header.index("_time")]), _float(row[header.index("_value")])))
        return points


def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return math.nan


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def open_influxdb(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener."""
    config = msgspec.convert(plan.config, Config)
    store = InfluxStore(StoreClient(plan.name, config.http, context.secrets), config)
    return QueriedSource(config.queries, store, context.environment.name)
