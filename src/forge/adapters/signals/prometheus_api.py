"""Prometheus' HTTP API (v1), as Prometheus itself, Thanos, Mimir and VictoriaMetrics speak it."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from forge.adapters.signals.http import StoreClient

MOST_SERIES = 200_000


class NativeHistogram(msgspec.Struct, frozen=True):
    """A native histogram: `buckets` are [which ends belong to it, lower, upper, count]."""

    count: str
    sum: str = "0"
    buckets: list[tuple[int, str, str, str]] = []


class Series(msgspec.Struct, frozen=True):
    """One series with its raw samples, oldest first: (time, number) or (time, native histogram)."""

    metric: dict[str, str]
    values: list[tuple[float, str]] = []
    histograms: list[tuple[float, NativeHistogram]] = []


class Point(msgspec.Struct, frozen=True):
    """One element of an instant vector."""

    metric: dict[str, str]
    value: tuple[float, str] | None = None


class Exemplar(msgspec.Struct, frozen=True):
    """One request that stands for a bucket: its trace, and when it was."""

    labels: dict[str, str]
    value: str
    timestamp: float


class _ExemplarSeries(msgspec.Struct, frozen=True):
    exemplars: list[Exemplar] = []


class PrometheusApi:
    """Asks one server. Every failure, also one that the server tells in a successful answer, is a DependencyFailed."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client

    async def raw(self, selector: str, seconds: float, at: float) -> list[Series]:
        """Return the raw samples of all series that a selector finds, of the last `seconds` before `at`."""
        result = await self._query(f"{selector}[{max(1, math.ceil(seconds))}s]", at, "matrix")
        found: list[Series] = self._converted(result, list[Series])
        return found

    async def vector(self, query: str, at: float) -> list[Point]:
        """Return what a query answers at that time; a scalar is one point without labels."""
        kind, result = await self._answer(query, at)
        if kind == "scalar":
            return [Point({}, self._converted(result, tuple[float, str]))]
        if kind != "vector":
            raise self._client.failed(
                f"answers {query!r} with a {kind}, where a vector is needed", "aggregate it, for example `sum(...)`"
            )
        points: list[Point] = self._converted(result, list[Point])
        return points

    async def exemplars(self, selector: str, start: float, end: float) -> list[Exemplar]:
        """Return the exemplars of a selector, newest first."""
        answer = await self._client.json(
            "POST", "/api/v1/query_exemplars", form={"query": selector, "start": f"{start:.3f}", "end": f"{end:.3f}"}
        )
        found = self._converted(self._data(answer, selector), list[_ExemplarSeries])
        every = [exemplar for series in found for exemplar in series.exemplars]
        return sorted(every, key=lambda exemplar: -exemplar.timestamp)

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()

    async def _query(self, query: str, at: float, wanted: str) -> Any:
        kind, result = await self._answer(query, at)
        if kind != wanted:
            raise self._client.failed(f"answers {query!r} with a {kind}, where a {wanted} is needed")
        return result

    async def _answer(self, query: str, at: float) -> tuple[str, Any]:
        answer = await self._client.json("POST", "/api/v1/query", form={"query": query, "time": f"{at:.3f}"})
        data = self._data(answer, query)
        if not isinstance(data, dict) or "resultType" not in data or "result" not in data:
            raise self._client.failed("answered in a shape that is not Prometheus'")
        return str(data["resultType"]), data["result"]

    def _data(self, answer: Any, query: str) -> Any:
        if not isinstance(answer, dict) or "status" not in answer:
            raise self._client.failed("answered in a shape that is not Prometheus'")
        if answer["status"] != "success":
            raise self._client.failed(f"does not take {query!r}: {str(answer.get('error', answer['status']))[:300]}")
        # Remarks on the query itself are no gap; a store of Thanos or VictoriaMetrics that is away is one.
        gaps = [str(words) for words in answer.get("warnings") or [] if not str(words).startswith("PromQL ")]
        if gaps or answer.get("isPartial") is True:
            told = "; ".join(gaps)[:300] or "a part of the store is away"
            raise self._client.failed(
                f"answered only in part: {told}", "what is missing would look like fewer requests"
            )
        return answer.get("data")

    def _converted(self, result: Any, shape: Any) -> Any:
        try:
            found = msgspec.convert(result, shape, strict=False)
        except msgspec.ValidationError as error:
            raise self._client.failed(f"answered in a shape that is not Prometheus': {error}") from None
        if len(found) > MOST_SERIES:
            raise self._client.failed(f"answered more than {MOST_SERIES} series", "narrow `match`")
        return found


def number(text: str) -> float:
    """Return a sample's value; what is no number, as a stale marker, is NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan
