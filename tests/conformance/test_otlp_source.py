"""OpenTelemetry metrics that are pushed: protobuf and JSON, cumulative and delta, and pushes that are refused."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from forge.adapters.signals.otlp import OtlpSource
from forge.adapters.signals.registry import SourceContext, open_source
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import EnvironmentPlan, SourcePlan

CUMULATIVE, DELTA = 2, 1


async def secret(name: str) -> str:
    return {"TOKEN": "s3cret-value"}[name]


def opened(**config: Any) -> OtlpSource:
    context = SourceContext(EnvironmentPlan("production"), Path("/nonexistent"), secret)
    source = open_source(SourcePlan("otlp", "pushed", {"port": 0, **config}), context)
    assert isinstance(source, OtlpSource)
    return source


@pytest.fixture
async def source() -> AsyncIterator[OtlpSource]:
    made = opened(gauges={"db.client.connections.usage": 20.0})
    await made.read([], time.time())
    yield made
    await made.close()


def push(
    ok: int, failed: int = 0, *, version: str = "1.4", instance: str = "a", temporality: int = CUMULATIVE,
    unit: str = "s", pool: float | None = None,
) -> ExportMetricsServiceRequest:  # fmt: skip
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    for key, value in (("service.version", version), ("service.instance.id", instance), ("service.name", "shop")):
        attribute = resource.resource.attributes.add()
        attribute.key, attribute.value.string_value = key, value
    metrics = resource.scope_metrics.add().metrics
    duration = metrics.add(name="http.server.request.duration", unit=unit)
    duration.histogram.aggregation_temporality = temporality
    at = time.time_ns()  # an exporter gives all of its points one time
    for status, count in ((200, ok), (503, failed)):
        point = duration.histogram.data_points.add(count=count, time_unix_nano=at)
        code = point.attributes.add(key="http.response.status_code")
        code.value.int_value = status
        point.explicit_bounds.extend([0.1, 0.5] if unit == "s" else [100, 500])
        point.bucket_counts.extend([count, 0, 0])
    if pool is not None:
        metrics.add(name="db.client.connections.usage").gauge.data_points.add(as_double=pool)
    return request


async def send(source: OtlpSource, request: ExportMetricsServiceRequest | bytes, **headers: str) -> httpx.Response:
    body = request if isinstance(request, bytes) else request.SerializeToString()
    sent = {
        "Content-Type": "application/x-protobuf",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    async with httpx.AsyncClient() as client:
        return await client.post(f"http://127.0.0.1:{source.port}/v1/metrics", content=body, headers=sent)


async def read(source: OtlpSource, version: str = "1.4") -> Any:
    return (await source.read([version], time.time())).get(version)


async def test_cumulative_counters_begin_at_their_first_value(source: OtlpSource) -> None:
    assert (await send(source, push(100, 5))).status_code == 200
    first = await read(source)
    await send(source, push(150, 7, pool=12))
    second = await read(source)
    assert (first.requests, first.errors) == (0, 0)
    assert (second.requests, second.errors) == (52, 2)
    assert dict(second.latency)[0.1] == 52
    assert [(gauge.value, gauge.limit) for gauge in second.gauges] == [(12.0, 20.0)]


async def test_instances_and_versions_are_kept_apart(source: OtlpSource) -> None:
    for instance, count in (("a", 10), ("b", 20)):
        await send(source, push(count, instance=instance))
    await send(source, push(7, version="1.3"))
    await source.read(["1.3", "1.4"], time.time())
    await send(source, push(3, instance="a"))  # restarted: counts from nothing
    await send(source, push(25, instance="b"))
    found = await source.read(["1.3", "1.4", "2.0"], time.time())
    assert {version: one.requests for version, one in found.items()} == {"1.3": 0, "1.4": 8}


async def test_delta_counters_are_added_up(source: OtlpSource) -> None:
    await send(source, push(10, 1, temporality=DELTA))
    await read(source)
    for _ in range(3):
        await send(source, push(5, 1, temporality=DELTA))
    reading = await read(source)
    assert (reading.requests, reading.errors) == (29, 4)


async def test_the_first_error_of_an_instance_that_is_known_counts(source: OtlpSource) -> None:
    first = push(100)
    del first.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points[1]
    await send(source, first)
    await send(source, push(110, 3))
    reading = await read(source)
    assert (reading.requests, reading.errors) == (13, 3)


async def test_milliseconds_become_seconds(source: OtlpSource) -> None:
    await send(source, push(10, unit="ms"))
    await read(source)
    await send(source, push(15, unit="ms"))
    assert [bound for bound, _ in (await read(source)).latency] == [0.1, 0.5, float("inf")]


async def test_json_and_gzip_are_taken(source: OtlpSource) -> None:
    await send(source, push(10))
    await read(source)
    text = MessageToJson(push(20)).encode()
    assert (await send(source, text, Content_Type="application/json")).status_code == 200
    assert (await read(source)).requests == 10
    packed = gzip.compress(push(50).SerializeToString())
    assert (await send(source, packed, Content_Encoding="gzip")).status_code == 200
    assert (await read(source)).requests == 40


async def test_a_version_that_nobody_pushes_is_missing_and_old_data_is_told_as_old(source: OtlpSource) -> None:
    await send(source, push(10))
    assert await read(source, "9.9") is None
    reading = (await source.read(["1.4"], time.time() + 600))["1.4"]
    assert reading.at < time.time() + 1


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff\xff\xff", {}, 400),
        (b"{", {"Content_Type": "application/json"}, 400),
        (b"\xff{}", {"Content_Type": "application/json"}, 400),
        (b"x", {"Content_Type": "text/plain"}, 415),
        (b"x", {"Content_Encoding": "gzip"}, 400),
        (b"x", {"Content_Encoding": "br"}, 415),
        (gzip.compress(b"\0" * (17 * 1024 * 1024)), {"Content_Encoding": "gzip"}, 413),
    ],
)
async def test_what_cannot_be_read_is_refused_and_changes_nothing(
    source: OtlpSource, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert (await send(source, body, **headers)).status_code == status
    assert await read(source) is None
    assert (await send(source, push(1))).status_code == 200


async def test_other_paths_and_methods_are_refused(source: OtlpSource) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{source.port}") as client:
        assert (await client.post("/v1/traces", content=b"")).status_code == 404
        assert (await client.get("/v1/metrics")).status_code == 405


async def test_only_who_knows_the_token_may_push() -> None:
    source = opened(bearer="TOKEN")
    try:
        await source.read([], time.time())
        assert (await send(source, push(1))).status_code == 401
        assert (await send(source, push(1), Authorization="Bearer wrong")).status_code == 401
        assert (await send(source, push(1), Authorization="Bearer s3cret-value")).status_code == 200
        assert "s3cret-value" not in json.dumps(source.state())
    finally:
        await source.close()


async def test_a_port_that_is_taken_is_said() -> None:
    first = opened()
    await first.read([], time.time())
    second = opened(port=first.port)
    try:
        with pytest.raises(DependencyFailed, match=r"cannot listen on 127\.0\.0\.1"):
            await second.read([], time.time())
    finally:
        await first.close()


def test_a_listener_for_everybody_needs_a_token() -> None:
    with pytest.raises(UsageError, match="where anybody could push"):
        opened(listen="0.0.0.0")


async def test_a_restart_of_forge_goes_on_without_a_jump(source: OtlpSource) -> None:
    await send(source, push(10))
    await read(source)
    saved = json.loads(json.dumps(source.state()))
    again = opened()
    again.restore(saved)
    try:
        await again.read([], time.time())
        await send(again, push(25))
        assert (await read(again)).requests == 15
    finally:
        await again.close()
