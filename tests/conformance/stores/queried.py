"""What the stores that are asked with queries look like from outside, with counts that a test puts in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stores.server import Asked, StoreServer

STEP = 10.0


@dataclass
class Counts:
    """Counts per interval of 10 s by version and name, as a store would have aggregated them."""

    counts: dict[tuple[str, str], dict[float, float]] = field(default_factory=dict)

    def add(self, version: str, name: str, at: float, count: float) -> None:
        begin = math.floor(at / STEP) * STEP
        series = self.counts.setdefault((version, name), {})
        series[begin] = series.get(begin, 0.0) + count

    def between(self, version: str, name: str, start: float, end: float) -> list[tuple[float, float]]:
        return sorted((at, n) for at, n in self.counts.get((version, name), {}).items() if start <= at < end)


_QUERY = re.compile(r"(requests|errors|p99|pool).*?version=(\S+?)[\s\"'}]*$")


def asked_for(query: str) -> tuple[str, str]:
    found = _QUERY.search(query)
    assert found, f"a query that the test did not write: {query}"
    return found.group(2), found.group(1)


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def graphite(counts: Counts) -> Callable[[Asked], bytes]:
    def answer(asked: Asked) -> bytes:
        assert (asked.method, asked.path) == ("POST", "/render")
        assert asked.form["format"] == "json"
        version, name = asked_for(asked.form["target"])
        points = counts.between(version.replace("_", "."), name, float(asked.form["from"]), float(asked.form["until"]))
        series = {"target": asked.form["target"], "datapoints": [*[[n, at] for at, n in points], [None, 1.0]]}
        return dumped([series] if points else [])

    return answer


def datadog(counts: Counts) -> Callable[[Asked], bytes]:
    def answer(asked: Asked) -> bytes:
        assert (asked.method, asked.path) == ("GET", "/api/v1/query")
        assert asked.headers["dd-api-key"] == "the-key"
        version, name = asked_for(asked.query["query"])
        points = counts.between(version, name, float(asked.query["from"]), float(asked.query["to"]))
        series = [{"interval": 10, "pointlist": [[at * 1000, n] for at, n in points], "tag_set": []}] if points else []
        return dumped({"status": "ok", "res_type": "time_series", "series": series})

    return answer


def newrelic(counts: Counts) -> Callable[[Asked], bytes]:
    def answer(asked: Asked) -> bytes:
        assert (asked.method, asked.path) == ("POST", "/graphql")
        assert asked.headers["api-key"] == "the-key"
        body = json.loads(asked.body)
        assert body["variables"]["account"] == 7
        query, rest = body["variables"]["nrql"].split(" TIMESERIES ")
        found = re.fullmatch(r"10 seconds SINCE (\d+) UNTIL (\d+)", rest)
        assert found
        version, name = asked_for(query)
        start, end = int(found.group(1)) / 1000, int(found.group(2)) / 1000
        rows = [
            {"beginTimeSeconds": at, "endTimeSeconds": at + STEP, "count": n}
            for at, n in counts.between(version, name, start, end)
        ]
        return dumped({"data": {"actor": {"account": {"nrql": {"results": rows}}}}})

    return answer


def influxql(counts: Counts) -> Callable[[Asked], bytes]:
    def answer(asked: Asked) -> bytes:
        assert (asked.method, asked.path) == ("POST", "/query")
        assert (asked.form["db"], asked.form["epoch"]) == ("metrics", "s")
        found = re.search(r"time >= (\d+)s AND time < (\d+)s", asked.form["q"])
        assert found
        version, name = asked_for(asked.form["q"])
        points = counts.between(version, name, float(found.group(1)), float(found.group(2)))
        series = [{"name": "http", "columns": ["time", "sum"], "values": [[at, n] for at, n in points]}]
        return dumped({"results": [{"statement_id": 0, **({"series": series} if points else {})}]})

    return answer


def flux(counts: Counts) -> Callable[[Asked], bytes]:
    def answer(asked: Asked) -> bytes:
        assert (asked.method, asked.path, asked.query["org"]) == ("POST", "/api/v2/query", "our org")
        assert asked.headers["content-type"] == "application/vnd.flux"
        text = asked.body.decode()
        found = re.search(r"range\(start: (\d+), stop: (\d+)\)", text)
        assert found
        version, name = asked_for(text)
        points = counts.between(version, name, float(found.group(1)), float(found.group(2)))
        lines = [",result,table,_time,_value"]
        lines += [
            f",_result,0,{datetime.fromtimestamp(at, UTC).isoformat().replace('+00:00', 'Z')},{n}" for at, n in points
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() if points else b"\r\n"

    return answer


def cloudwatch(counts: Counts) -> Callable[[Asked], bytes]:
    def answer(asked: Asked) -> bytes:
        assert (asked.method, asked.path) == ("POST", "/")
        assert asked.headers["x-amz-target"] == "GraniteServiceVersion20100801.GetMetricData"
        assert asked.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        body = json.loads(asked.body)
        (query,) = body["MetricDataQueries"]
        assert query["Period"] == 10
        version, name = asked_for(query["Expression"])
        points = counts.between(version, name, body["StartTime"], body["EndTime"])
        half = len(points) // 2
        page = points[half:] if body.get("NextToken") else points[:half]
        result = {"Id": "q", "Label": "x", "StatusCode": "Complete", "Timestamps": [at for at, _ in page],
                  "Values": [n for _, n in page]}  # fmt: skip
        more = {} if body.get("NextToken") or not half else {"NextToken": "more"}
        if not more and not body.get("NextToken"):
            result |= {"Timestamps": [at for at, _ in points], "Values": [n for _, n in points]}
        return dumped({"MetricDataResults": [result], "Messages": [], **more})

    return answer


SHAPES: dict[str, Callable[[Counts], Callable[[Asked], bytes]]] = {
    "graphite": graphite,
    "datadog": datadog,
    "newrelic": newrelic,
    "influxql": influxql,
    "flux": flux,
    "cloudwatch": cloudwatch,
}


def served(shape: str, counts: Counts) -> StoreServer:
    return StoreServer(SHAPES[shape](counts), kind="text/csv" if shape == "flux" else "application/json")
