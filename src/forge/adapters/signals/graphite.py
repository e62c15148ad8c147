"""`graphite`: Graphite's render API, and what speaks it (carbonapi, VictoriaMetrics, Grafana Cloud)."""

from __future__ import annotations

import msgspec

from forge.adapters.signals.base import Source
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.queried import Points, QueriedSource, Queries, backslashed, number
from forge.adapters.signals.registry import SourceContext
from forge.model.plan import SourcePlan


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query is a target, such as `summarize(shop.$version.requests, "1min", "sum")`."""

    http: HttpConfig
    queries: Queries


class Series(msgspec.Struct, frozen=True):
    """One series of the answer: pairs of value (or null) and time."""

    datapoints: list[tuple[float | None, float]]


class GraphiteStore:
    """A Graphite. See PointStore."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client

    async def points(self, query: str, start: float, end: float, step: float) -> Points:
        """Ask /render. Several series of one target are added up. See PointStore."""
        del step  # the target says how it is summarized
        answer = await self._client.json(
            "POST",
            "/render",
            form={"target": query, "from": str(int(start)), "until": str(int(end) + 1), "format": "json"},
        )
        try:
            series = msgspec.convert(answer, list[Series])
        except msgspec.ValidationError as error:
            raise self._client.failed(f"answered in a shape that is not Graphite's: {error}") from None
        total: dict[float, float] = {}
        for one in series:
            for value, at in one.datapoints:
                if value is not None:
                    total[at] = total.get(at, 0.0) + number(value)
        return [(at, value) for at, value in sorted(total.items()) if start <= at < end]

    def quoted(self, word: str) -> str:
        """A path's element cannot hold a dot: Graphite's own clients write `_` there. See PointStore."""
        return backslashed(word).replace(".", "_")

    async def close(self) -> None:
        """Let go of connections. See PointStore."""
        await self._client.close()


def open_graphite(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener."""
    config = msgspec.convert(plan.config, Config)
    store = GraphiteStore(StoreClient(plan.name, config.http, context.secrets))
    return QueriedSource(config.queries, store, context.environment.name)
