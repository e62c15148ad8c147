"""`newrelic`: New Relic's events and metrics, asked in NRQL through NerdGraph (GraphQL)."""

from __future__ import annotations

from typing import Any

import msgspec

from forge.adapters.signals.base import Source
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.queried import Points, QueriedSource, Queries, backslashed, number
from forge.adapters.signals.registry import SourceContext
from forge.model.plan import SourcePlan

_QUERY = "query($account: Int!, $nrql: Nrql!) { actor { account(id: $account) { nrql(query: $nrql) { results } } } }"
_TIMES = frozenset({"beginTimeSeconds", "endTimeSeconds", "inspectedCount"})


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query is NRQL with one number and without TIMESERIES, SINCE and UNTIL: they are added.

    The user key is a secret header `API-Key`.
    """

    http: HttpConfig
    account: int
    queries: Queries


class Window(msgspec.Struct, frozen=True, rename="camel"):
    """The times of one row of the answer; the number beside them is called as the query calls it."""

    begin_time_seconds: float


class NewRelicStore:
    """A New Relic account. See PointStore."""

    def __init__(self, client: StoreClient, account: int) -> None:
        self._client = client
        self._account = account

    async def points(self, query: str, start: float, end: float, step: float) -> Points:
        """Ask for one number per interval. See PointStore."""
        nrql = (
            f"{query} TIMESERIES {max(1, round(step))} seconds SINCE {int(start) * 1000} UNTIL {(int(end) + 1) * 1000}"
        )
        body = {"query": _QUERY, "variables": {"account": self._account, "nrql": nrql}}
        answer = await self._client.json("POST", "/graphql", body=body)
        rows = self._rows(answer)
        try:
            return [(msgspec.convert(row, Window).begin_time_seconds, _number_of(row)) for row in rows]
        except msgspec.ValidationError as error:
            raise self._client.failed(
                f"answered rows without a time: {error}", "leave TIMESERIES, SINCE and UNTIL out of the query"
            ) from None

    def quoted(self, word: str) -> str:
        """See PointStore."""
        return backslashed(word)

    async def close(self) -> None:
        """Let go of connections. See PointStore."""
        await self._client.close()

    def _rows(self, answer: Any) -> list[dict[str, Any]]:
        if isinstance(answer, dict) and answer.get("errors"):
            told = "; ".join(str(error.get("message", error))[:200] for error in answer["errors"][:3])
            raise self._client.failed(f"does not take the query: {told}", "check the query and the account")
        try:
            rows = answer["data"]["actor"]["account"]["nrql"]["results"]
        except (KeyError, TypeError, IndexError):
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._client.failed("answered in a shape that is not NerdGraph's")
        return rows


def _number_of(row: dict[str, Any]) -> float:
    """Return the one number of a row; aggregates of several percentiles come as a mapping."""
    for name, value in row.items():
        if name in _TIMES:
            continue
        return number(next(iter(value.values()), None) if isinstance(value, dict) else value)
    return number(None)


def open_newrelic(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener."""
    config = msgspec.convert(plan.config, Config)
    store = NewRelicStore(StoreClient(plan.name, config.http, context.secrets), config.account)
    return QueriedSource(config.queries, store, context.environment.name)
