"""`datadog`: Datadog's metrics, asked with its own query language (`GET /api/v1/query`)."""

from __future__ import annotations

import msgspec

from forge.adapters.signals.base import Source
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.queried import Points, QueriedSource, Queries, number
from forge.adapters.signals.registry import SourceContext
from forge.model.plan import SourcePlan


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query that counts is one of `.as_count()` with `.rollup(sum, 60)`, `step` seconds long.

    The API key and the application key are `http.secret_headers`.
    """

    http: HttpConfig
    queries: Queries


class Series(msgspec.Struct, frozen=True):
    """One series: pairs of time in milliseconds and value."""

    pointlist: list[tuple[float, float | None]]


class Answer(msgspec.Struct, frozen=True):
    """What `/api/v1/query` says; `status` is `ok` or `error`."""

    status: str
    error: str = ""
    series: list[Series] = []


class DatadogStore:
    """A Datadog site. See PointStore."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client

    async def points(self, query: str, start: float, end: float, step: float) -> Points:
        """Ask for the time series of one query; several series of it are added up. See PointStore."""
        del step  # `.rollup` says it
        answer = await self._client.json(
            "GET", "/api/v1/query", params={"from": str(int(start)), "to": str(int(end) + 1), "query": query}
        )
        try:
            told = msgspec.convert(answer, Answer)
        except msgspec.ValidationError as error:
            raise self._client.failed(f"answered in a shape that is not Datadog's: {error}") from None
        if told.status != "ok" or told.error:
            raise self._client.failed(f"does not take the query: {told.error or told.status}", "check the query")
        total: dict[float, float] = {}
        for series in told.series:
            for milliseconds, value in series.pointlist:
                if value is not None:
                    total[milliseconds / 1000] = total.get(milliseconds / 1000, 0.0) + number(value)
        return [(at, value) for at, value in sorted(total.items()) if start <= at < end]

    def quoted(self, word: str) -> str:
        """A tag's value holds letters, digits and `_-:./`; Datadog turns all else into `_`. See PointStore."""
        return "".join(letter if letter.isalnum() or letter in "_-:./" else "_" for letter in word.lower())

    async def close(self) -> None:
        """Let go of connections. See PointStore."""
        await self._client.close()


def open_datadog(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener."""
    config = msgspec.convert(plan.config, Config)
    store = DatadogStore(StoreClient(plan.name, config.http, context.secrets))
    return QueriedSource(config.queries, store, context.environment.name)
