"""Log stores on loopback that really filter, group and count what they are sent: Elasticsearch and Loki."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stores.server import Asked, StoreServer


@dataclass
class Document:
    """One log line in a store."""

    at: float
    version: str
    level: str
    message: str
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Documents:
    """What was logged. `failed`, `timed_out` and `warning` make answers partial."""

    lines: list[Document] = field(default_factory=list)
    failed: int = 0
    timed_out: bool = False
    warning: str = ""
    indices: tuple[str, ...] = ("logs-shop-1",)

    def log(self, version: str, at: float, level: str, message: str = "x", times: int = 1, **more: Any) -> None:
        self.lines += [Document(at, version, level, message, more) for _ in range(times)]


# --- Elasticsearch -------------------------------------------------------------------------------------------------


def elasticsearch(documents: Documents) -> Callable[[Asked], bytes]:
    def answer(asked: Asked) -> bytes:
        found = re.fullmatch(r"/([^/]+)/_search", asked.path)
        assert found, asked.path
        assert asked.method == "POST"
        assert asked.query == {"allow_partial_search_results": "false"}
        assert asked.headers["content-type"] == "application/json"
        assert asked.headers["authorization"] == "ApiKey the-key"
        body = json.loads(asked.body)
        assert body["size"] == 0
        indices = [name for name in documents.indices if fnmatch.fnmatch(name, found[1])]
        shards = {"total": len(indices), "successful": len(indices) - documents.failed, "skipped": 0}
        shards["failed"] = documents.failed
        if documents.failed:
            reason = {"type": "circuit_breaking_exception", "reason": "data too large"}
            shards["failures"] = [{"shard": 0, "index": "x", "node": "n", "reason": reason}]
        sources = [(number, _source(one)) for number, one in enumerate(documents.lines)]
        hits = [one for one in sources if indices and matches(body["query"], one[1])]
        whole: dict[str, Any] = {"took": 3, "timed_out": documents.timed_out, "_shards": shards}
        whole["hits"] = {"max_score": None, "hits": []}
        if indices:
            whole["aggregations"] = {name: aggregate(one, hits) for name, one in body["aggs"].items()}
        return json.dumps(whole).encode()

    return answer


def _source(one: Document) -> dict[str, Any]:
    return {"@timestamp": one.at, "service": {"version": one.version}, "log.level": one.level, "message": one.message,
            **one.more}  # fmt: skip


def value_of(source: Any, name: str) -> Any:
    if not isinstance(source, dict):
        return None
    if name in source:
        return source[name]
    first, _, rest = name.partition(".")
    return value_of(source.get(first), rest) if rest else None


def matches(query: dict[str, Any], source: dict[str, Any]) -> bool:
    """Tell whether a document matches query DSL, as far as these tests use it; anything else is an error."""
    ((kind, inner),) = query.items()
    if kind == "bool":
        assert set(inner) <= {"filter", "must_not", "should", "minimum_should_match"}
        wanted = all(matches(one, source) for one in inner.get("filter", []))
        unwanted = any(matches(one, source) for one in inner.get("must_not", []))
        some = any(matches(one, source) for one in inner["should"]) if "should" in inner else True
        return wanted and not unwanted and some
    if kind == "match_all":
        return True
    if kind == "exists":
        return value_of(source, inner["field"]) is not None
    ((name, wanted),) = inner.items()
    value = value_of(source, name)
    if kind == "terms":
        return value in wanted
    if kind in ("match", "match_phrase", "term"):
        return str(value) == str(wanted)
    if kind == "range":
        if value is None:
            return False
        if wanted.get("format") == "epoch_millis":
            value = value * 1000
        tests = {"gte": float.__ge__, "lt": float.__lt__, "gt": float.__gt__, "lte": float.__le__}
        return all(
            tests[word](float(value), float(limit)) for word, limit in wanted.items() if word != "format"
        )  # fmt: skip
    raise AssertionError(f"a query that the test did not expect: {kind}")


def aggregate(asked: dict[str, Any], hits: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Return one aggregation over documents, with those inside it."""
    inside = asked.get("aggs", {})

    def bucket(some: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        return {"doc_count": len(some), **{name: aggregate(one, some) for name, one in inside.items()}}

    ((kind, inner),) = ((key, value) for key, value in asked.items() if key != "aggs")
    if kind == "filter":
        return bucket([one for one in hits if matches(inner, one[1])])
    if kind == "max":
        values = [value_of(source, inner["field"]) * 1000 for _, source in hits]
        return {"value": max(values, default=None)}
    if kind == "terms":
        groups: dict[str, list[Any]] = {}
        for one in hits:
            groups.setdefault(value_of(one[1], inner["field"]), []).append(one)
        largest = sorted(groups.items(), key=lambda group: -len(group[1]))[: inner["size"]]
        return {"buckets": [{"key": key, **bucket(some)} for key, some in largest]}
    if kind == "date_histogram":
        step = int(inner["fixed_interval"].removesuffix("s"))
        times: dict[int, list[Any]] = {}
        for one in hits:
            times.setdefault(math.floor(value_of(one[1], inner["field"]) / step) * step, []).append(one)
        assert inner["min_doc_count"] == 1
        return {"buckets": [{"key": at * 1000, **bucket(some)} for at, some in sorted(times.items())]}
    assert kind == "top_hits"
    assert inner["size"] <= 100, "the store's own limit"
    ((name, order),) = inner["sort"][0].items()
    assert order == {"order": "desc"}
    newest = sorted(hits, key=lambda one: -value_of(one[1], name))[: inner["size"]]
    shown = [
        {"_index": "logs-shop-1", "_id": f"id{number}",
         "_source": {key: value for key, value in source.items() if key in inner["_source"]["includes"]}}
        for number, source in newest
    ]  # fmt: skip
    return {"hits": {"total": {"value": len(hits), "relation": "eq"}, "hits": shown}}


# --- Loki ----------------------------------------------------------------------------------------------------------

_STAGE = re.compile(r'\s*(?:\|\s*(\w+)\s*=~\s*"((?:[^"\\]|\\.)*)"|\|=\s*"((?:[^"\\]|\\.)*)")')


def loki(documents: Documents) -> Callable[[Asked], bytes]:
    def answer(asked: Asked) -> bytes:
        assert (asked.method, asked.path) == ("POST", "/loki/api/v1/query_range")
        assert asked.headers["x-scope-orgid"] == "shop"
        assert asked.headers["authorization"] == "Bearer the-key"
        form = asked.form
        start, end = int(form["start"]) / 1e9, int(form["end"]) / 1e9
        metric = re.fullmatch(
            r"sum( by \((\w+)\))? \(?\(?count_over_time\((.*) \[(\d+)s\]\)\)", form["query"].replace("sum(", "sum (")
        )
        if metric:
            assert "limit" not in form
            result = _matrix(documents, metric, start, end, float(form["step"]))
            data: dict[str, Any] = {"resultType": "matrix", "result": result}
        else:
            assert form["direction"] == "backward"
            data = {"resultType": "streams", "result": _streams(documents, form, start, end)}
        data["stats"] = {"summary": {"totalLinesProcessed": 1}}
        warned = {"warnings": [documents.warning]} if documents.warning else {}
        return json.dumps({"status": "success", "data": data, **warned}).encode()

    return answer


def _matrix(documents: Documents, metric: re.Match[str], start: float, end: float, step: float) -> list[Any]:
    assert float(metric[4]) == step
    assert start % step == 0, "Loki would move points to multiples of the step"
    found: dict[str, dict[float, int]] = {}
    for one in selected(documents, metric[3]):
        at = math.ceil(one.at / step) * step  # the point at T counts (T - step, T]
        if start <= at <= end:
            points = found.setdefault(one.version if metric[2] else "", {})
            points[at] = points.get(at, 0) + 1
    return [
        {"metric": {metric[2]: name} if metric[2] else {}, "values": [[at, str(n)] for at, n in sorted(points.items())]}
        for name, points in found.items()
    ]


def _streams(documents: Documents, form: dict[str, str], start: float, end: float) -> list[Any]:
    lines = [one for one in selected(documents, form["query"]) if start <= one.at < end]
    streams: dict[tuple[str, str], list[list[str]]] = {}
    for one in sorted(lines, key=lambda one: -one.at)[: int(form["limit"])]:
        streams.setdefault((one.version, one.level), []).append([str(round(one.at * 1e9)), one.message])
    return [{"stream": {"version": version, "level": level}, "values": values}
            for (version, level), values in streams.items()]  # fmt: skip


def selected(documents: Documents, query: str) -> list[Document]:
    """Return the lines that a LogQL log query selects, as far as these tests use it."""
    found = re.match(r'\{app="shop"(?:, version="((?:[^"\\]|\\.)*)")?\}', query)
    assert found, query
    lines = [one for one in documents.lines if found[1] is None or one.version == _unquoted(found[1])]
    rest = query[found.end() :]
    while rest.strip():
        stage = _STAGE.match(rest)
        assert stage, f"a pipeline that the test did not expect: {rest}"
        if stage[1] is None:
            lines = [one for one in lines if _unquoted(stage[3]) in one.message]
        else:
            attribute = {"version": "version", "detected_level": "level"}[stage[1]]
            pattern = re.compile(_unquoted(stage[2]))
            lines = [one for one in lines if pattern.fullmatch(getattr(one, attribute))]
        rest = rest[stage.end() :]
    return lines


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


SHAPES: dict[str, Callable[[Documents], Callable[[Asked], bytes]]] = {
    "elasticsearch": elasticsearch,
    "loki": loki,
    "loki_apart": loki,
}


def served(shape: str, documents: Documents) -> StoreServer:
    return StoreServer(SHAPES[shape](documents))
