"""Answers of log stores that are not what they should be: always a told failure, never a number made of nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.signals.elasticsearch import Config as ElasticConfig
from forge.adapters.signals.elasticsearch import ElasticsearchStore
from forge.adapters.signals.http import HttpConfig
from forge.adapters.signals.loki import Config as LokiConfig
from forge.adapters.signals.loki import LokiStore
from forge.adapters.signals.stored_logs import StoredLine, StoredLogs, VersionCounts
from forge.model.errors import DependencyFailed

HTTP = HttpConfig("http://127.0.0.1:1")
NOW = 1_790_000_000.0


class Answering:
    """A client whose store answers anything with the same JSON."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def json(self, *_: Any, **__: Any) -> Any:
        return self.answer


def stores(answer: Any) -> list[Any]:
    client: Any = Answering(answer)
    return [
        ElasticsearchStore("store", ElasticConfig(HTTP), client, "production"),
        LokiStore("store", LokiConfig(HTTP, '{app="shop"}'), client, "production"),
    ]


KEYS = ("aggregations", "versions", "buckets", "errors", "times", "newest", "value", "hits", "_shards", "failed", "total",
        "data", "result", "resultType", "status", "values", "metric", "version", "stream", "key", "doc_count")  # fmt: skip
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 3)
    | st.floats()
    | st.sampled_from(["v1", "success", "matrix", "streams"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


def understood(answer: Any) -> None:
    for store in stores(answer):
        for ask in (store.counts, store.lines):
            told = ""
            try:
                assert isinstance(asyncio.run(ask(["v1"], NOW - 600, NOW)), dict)
            except DependencyFailed as failure:
                told = failure.message
            assert not told or "store" in told


@given(ANY)
def test_any_answer_is_understood_or_told(answer: Any) -> None:
    understood(answer)


@given(st.lists(ANY, max_size=3), ANY, st.sampled_from(["matrix", "streams"]))
def test_any_rows_are_understood_or_told(rows: list[Any], inner: Any, kind: str) -> None:
    wrapped = [{"metric": inner, "stream": inner, "values": rows}, {"metric": {"version": ["v1"]}, "values": []}, *rows]
    understood({"status": "success", "data": {"resultType": kind, "result": wrapped}})
    understood({"status": "success", "data": {"resultType": kind, "result": wrapped[:1], "stats": inner}})
    buckets = [{"key": "v1", "errors": inner, "newest": {"value": inner, "hits": {"hits": rows}}}, *rows]
    understood({"_shards": {"failed": 0}, "aggregations": {"versions": {"buckets": buckets}}})
    understood({"_shards": {"failed": 2, "failures": inner}})


def elastic(**changed: Any) -> dict[str, Any]:
    bucket = {"key": "v1", "errors": {"times": {"buckets": [{"key": 1000, "doc_count": 3}]}}, "newest": {"value": 5000}}
    shards = {"total": 1, "failed": 0}
    return {"_shards": shards, "aggregations": {"versions": {"buckets": [{**bucket, **changed}]}}}


def test_a_right_answer_is_understood() -> None:
    found = asyncio.run(stores(elastic())[0].counts(["v1"], NOW - 600, NOW))
    assert found == {"v1": VersionCounts({1.0: 3.0}, 5.0)}


@pytest.mark.parametrize(
    "changed",
    [
        {"errors": None},
        {"errors": {"times": {"buckets": [{"key": 1000}]}}},
        {"errors": {"times": {"buckets": [{"key": "x", "doc_count": 3}]}}},
        {"errors": {"times": {"buckets": [{"key": 1000, "doc_count": True}]}}},
        {"errors": {"times": {"buckets": {}}}},
    ],
)
def test_a_count_that_is_none_is_told(changed: dict[str, Any]) -> None:
    with pytest.raises(DependencyFailed, match="store: answered without"):
        asyncio.run(stores(elastic(**changed))[0].counts(["v1"], NOW - 600, NOW))


@pytest.mark.parametrize(
    "values", [[[1, "x"]], [[None, "1"]], [1], "text", None, [[1]]]
)  # fmt: skip
def test_points_that_are_none_are_told(values: Any) -> None:
    row = {"metric": {"version": "v1"}, "values": values}
    answer = {"status": "success", "data": {"resultType": "matrix", "result": [row]}}
    with pytest.raises(DependencyFailed, match="store: answered without"):
        asyncio.run(stores(answer)[1].counts(["v1"], NOW - 600, NOW))


def test_points_that_are_no_numbers_are_left_out() -> None:
    row = {"metric": {"version": "v1"}, "values": [[10, "NaN"], [20, "+Inf"], [30, "4"]]}
    answer = {"status": "success", "data": {"resultType": "matrix", "result": [row]}}
    found = asyncio.run(stores(answer)[1].counts(["v1"], NOW - 600, NOW))
    assert found["v1"].errors == {20.0: 4.0}


class Kept:
    """A store of error lines in memory: (when it arrived, when it was written, key)."""

    def __init__(self) -> None:
        self.written: list[tuple[float, str]] = []

    def query(self) -> str:
        return "everything"

    async def counts(self, version_ids: Any, start: float, end: float) -> dict[str, VersionCounts]:
        found: dict[float, float] = {}
        for at, _ in self.written:
            if start <= at < end:
                found[at // 10 * 10] = found.get(at // 10 * 10, 0) + 1
        return {"v1": VersionCounts(found, end)}

    async def lines(self, version_ids: Any, start: float, end: float) -> dict[str, list[StoredLine]]:
        inside = sorted((one for one in self.written if start <= one[0] < end), reverse=True)[:100]
        return {"v1": [StoredLine(key, "ERROR x") for _, key in inside]}

    async def close(self) -> None:
        pass


LOOKS = st.lists(st.tuples(st.floats(0.5, 20), st.lists(st.floats(0, 25), max_size=5), st.booleans()), max_size=25)


@given(LOOKS)
def test_every_line_counts_once_however_late_it_arrives(looks: Any) -> None:
    store = Kept()
    source = StoredLogs("store", store, 10.0)
    now, number, before = NOW, 0, 0
    asyncio.run(source.read(["v1"], now))
    for passed, late, restarted in looks:
        now += passed
        for seconds in late:
            if now - seconds >= NOW:
                store.written.append((now - seconds, f"key{number}"))
                number += 1
        if restarted:
            state = json.loads(json.dumps(source.state()))
            source = StoredLogs("store", store, 10.0)
            source.restore(state)
        reading = asyncio.run(source.read(["v1"], now + 0.001))["v1"]
        assert reading.log_errors == number >= before
        assert sum(one.lines for one in reading.templates) == number
        before = number
