"""What the source `prometheus` keeps, against a server that answers in Prometheus' shape: presets, outages, histograms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stores.server import FAULTS, Asked, StoreServer

from forge.adapters.signals.base import Source
from forge.adapters.signals.prometheus_presets import PRESETS
from forge.adapters.signals.registry import SourceContext, open_source
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan, SourcePlan

SECRET = "the-key"
NOW = 1_790_000_000.0
Labels = dict[str, str]


class Store:
    """Keeps samples by labels (`__name__` among them) and answers selectors over a range, and instant ones."""

    def __init__(self) -> None:
        self.series: list[tuple[Labels, list[tuple[float, Any]]]] = []
        self.more: dict[str, Any] = {}

    def put(self, name: str, at: float, value: Any, **labels: str) -> None:
        wanted = {"__name__": name, **labels}
        for known, samples in self.series:
            if known == wanted:
                samples.append((at, value))
                return
        self.series.append((wanted, [(at, value)]))

    def __call__(self, asked: Asked) -> bytes:
        assert (asked.method, asked.path) == ("POST", "/api/v1/query")
        assert asked.headers["authorization"] == f"Bearer {SECRET}"
        query, at = asked.form["query"], float(asked.form["time"])
        ranged = re.fullmatch(r"(\w+)\{(.*)\}\[(\d+)s\]", query)
        if ranged is None:
            found = re.fullmatch(r"(?:sum by \([^)]*\) \()?(\w+)\{(.*?)\}\)?(?: or .*)?", query)
            assert found, query
            vector = [
                {"metric": labels, "value": [at, str(samples[-1][1])]}
                for labels, samples in self._found(found[1], found[2])
            ]
            return self._answer("vector", vector)
        matrix = []
        for labels, samples in self._found(ranged[1], ranged[2]):
            inside = [(when, value) for when, value in samples if at - int(ranged[3]) < when <= at]
            numbers = [[when, str(value)] for when, value in inside if not isinstance(value, dict)]
            natives = [[when, value] for when, value in inside if isinstance(value, dict)]
            if numbers or natives:
                row: dict[str, Any] = {"metric": labels}
                row |= {"values": numbers} if numbers else {}
                row |= {"histograms": natives} if natives else {}
                matrix.append(row)
        return self._answer("matrix", matrix)

    def _found(self, name: str, matchers: str) -> list[tuple[Labels, list[tuple[float, Any]]]]:
        rules = re.findall(r'(\w+)(=~|=)"((?:[^"\\]|\\.)*)"', matchers)
        return [
            (labels, samples)
            for labels, samples in self.series
            if labels["__name__"] == name
            and all(
                re.fullmatch(json.loads(f'"{value}"') if sign == "=~" else re.escape(value), labels.get(label, ""))
                for label, sign, value in rules
            )
        ]

    def _answer(self, kind: str, result: Any) -> bytes:
        return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}, **self.more}).encode()


async def secret(name: str) -> str:
    assert name == "TOKEN"
    return SECRET


class World:
    def __init__(self, server: StoreServer, store: Store) -> None:
        self.server, self.store = server, store

    def source(self, *, url: str = "", timeout: float = 4.0, **config: Any) -> Source:
        http = {"url": url or self.server.url, "bearer": "TOKEN", "timeout": timeout}
        plan = SourcePlan("prometheus", "the store", {"http": http, "preset": "plain", "interval": 5.0, **config})
        return open_source(plan, SourceContext(EnvironmentPlan("production"), Path("/nonexistent"), secret))

    def count(self, at: float, value: float, *, version: str = "1.0", code: str = "200", pod: str = "a") -> None:
        self.store.put("http_requests_total", at, value, version=version, code=code, pod=pod)


@pytest.fixture
def world() -> Iterator[World]:
    store = Store()
    with StoreServer(store) as server:
        yield World(server, store)


async def test_increments_of_all_pods_add_up_through_a_restart_between_two_looks(world: World) -> None:
    source = world.source()
    world.count(NOW, 1000)
    world.count(NOW, 500, pod="b")
    first = (await source.read(["1.0"], NOW + 1))["1.0"]
    for at, value in ((5, 1010), (10, 2), (15, 7)):
        world.count(NOW + at, value)
    world.count(NOW + 15, 530, pod="b")
    second = (await source.read(["1.0"], NOW + 16))["1.0"]
    assert (first.requests, first.errors, first.at) == (0, 0, NOW)
    assert (second.requests, second.at) == (10 + 7 + 30, NOW + 15)
    assert second.groups == (("a", 17, 0), ("b", 30, 0))
    assert (await source.read(["1.0"], NOW + 17))["1.0"].requests == 47
    await source.close()


async def test_the_first_error_of_a_known_replica_counts_and_that_of_a_new_one_does_not(world: World) -> None:
    source = world.source()
    world.count(NOW, 10)
    await source.read(["1.0"], NOW + 1)
    world.count(NOW + 5, 3, code="500")
    world.count(NOW + 5, 900, code="500", pod="new")
    read = (await source.read(["1.0"], NOW + 6))["1.0"]
    assert (read.requests, read.errors) == (3, 3)


async def test_a_restart_of_forge_goes_on_without_a_jump(world: World) -> None:
    source = world.source()
    world.count(NOW, 10)
    await source.read(["1.0"], NOW + 1)
    again = world.source()
    again.restore(msgspec.json.decode(msgspec.json.encode(source.state())))
    world.count(NOW + 5, 15)
    world.count(NOW + 5, 2, code="503")
    read = (await again.read(["1.0"], NOW + 6))["1.0"]
    assert (read.requests, read.errors) == (7, 2)
    assert SECRET not in repr(again.state())


@pytest.mark.parametrize("state", [{"counters": 3}, {"asked": {"a": "b"}}, {"histograms": {"bounds": {"v": ["x"]}}}])
async def test_a_state_that_does_not_fit_is_ignored(world: World, state: dict[str, object]) -> None:
    source = world.source()
    source.restore(state)
    world.count(NOW, 10)
    assert (await source.read(["1.0"], NOW + 1))["1.0"].requests == 0


async def test_old_data_is_told_as_old_then_as_nothing_and_nan_is_no_number(world: World) -> None:
    source = world.source()
    world.count(NOW, 10)
    await source.read(["1.0"], NOW + 1)
    world.count(NOW + 1, float("nan"))
    world.count(NOW + 2, float("inf"))
    world.count(NOW + 3, 12)
    assert (await source.read(["1.0"], NOW + 12))["1.0"].at == NOW + 3
    assert (await source.read(["1.0"], NOW + 13))["1.0"].requests == 2
    assert await source.read(["1.0"], NOW + 60) == {}


async def test_a_clock_that_is_ahead_of_the_stores_is_no_fresh_data(world: World) -> None:
    source = world.source()
    world.count(NOW + 100, 10)
    assert await source.read(["1.0"], NOW + 1000) == {}
    read = (await source.read(["1.0"], NOW + 100))["1.0"]
    assert read.at == NOW + 100


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_store_that_fails_is_never_a_zero(world: World, fault: str) -> None:
    source = world.source(timeout=1.0 if fault in ("hang", "endless") else 4.0)
    world.count(NOW, 10)
    await source.read(["1.0"], NOW + 1)
    world.server.fault = fault
    with pytest.raises(DependencyFailed, match="the store at http") as failure:
        await source.read(["1.0"], NOW + 6)
    assert SECRET not in f"{failure.value.message} {failure.value.hint}"
    examined = await source.examine(["1.0"], NOW + 6)
    assert all(one.problem for one in examined)
    world.server.fault = ""
    world.count(NOW + 10, 30)
    assert (await source.read(["1.0"], NOW + 11))["1.0"].requests == 20


@pytest.mark.parametrize(
    "more", [{"warnings": ["store 10.0.0.7 is away"]}, {"isPartial": True}, {"status": "error", "error": "too many"}]
)
async def test_a_part_of_an_answer_is_none(world: World, more: dict[str, Any]) -> None:
    world.count(NOW, 10)
    world.store.more = more
    with pytest.raises(DependencyFailed, match=r"away|in part|too many"):
        await world.source().read(["1.0"], NOW + 1)


async def test_a_remark_on_a_query_is_no_gap(world: World) -> None:
    world.count(NOW, 10)
    world.store.more = {"warnings": ["PromQL warning: a metric might not be a counter"], "infos": ["x"]}
    assert "1.0" in await world.source().read(["1.0"], NOW + 1)


@pytest.mark.parametrize("result", ["x", [{"metric": 3}], [{"metric": {}, "values": [[1]]}], {"a": 1}])
async def test_what_is_not_of_prometheus_shape_is_told(world: World, result: Any) -> None:
    world.store.more = {"data": {"resultType": "matrix", "result": result}}
    with pytest.raises(DependencyFailed, match="shape that is not Prometheus'"):
        await world.source().read(["1.0"], NOW)


SERIES: dict[str, tuple[Labels, Labels]] = {
    "plain": ({"version": "1.4.0", "status": "200"}, {"version": "1.4.0", "status": "502"}),
    "envoy": (
        {"envoy_cluster_name": "1.4.0", "envoy_response_code_class": "2"},
        {"envoy_cluster_name": "1.4.0", "envoy_response_code_class": "5"},
    ),
    "envoy_gateway": (
        {"envoy_cluster_name": "httproute/shop/shop-1-4-0/rule/0", "envoy_response_code_class": "2"},
        {"envoy_cluster_name": "httproute/shop/shop-1-4-0/rule/0", "envoy_response_code_class": "5"},
    ),
    "istio": (
        {"destination_version": "1.4.0", "reporter": "source", "response_code": "200"},
        {"destination_version": "1.4.0", "reporter": "source", "response_code": "0"},
    ),
    "ingress_nginx": (
        {"service": "shop-1-4-0", "canary": "", "status": "200"},
        {"service": "shop-1-3-9", "canary": "shop-shop-1-4-0-80", "status": "500"},
    ),
    "linkerd": (
        {"dst_deployment": "shop-1-4-0", "direction": "outbound", "classification": "success"},
        {"dst_deployment": "shop-1-4-0", "direction": "outbound", "classification": "failure"},
    ),
}


@pytest.mark.parametrize("name", [*PRESETS])
async def test_every_preset_counts_by_its_own_names(world: World, name: str) -> None:
    preset, (good, bad) = PRESETS[name], SERIES[name]
    source = world.source(preset=name)
    for at, grown in ((0.0, 0), (5.0, 10)):
        world.store.put(preset.counter, NOW + at, 100 + grown, pod="a", **good)
        world.store.put(preset.counter, NOW + at, 100 + grown * 2, pod="a", **bad)
        world.store.put(f"{preset.histogram}_bucket", NOW + at, grown, pod="a", le="100", **good)
        world.store.put(f"{preset.histogram}_bucket", NOW + at, grown, pod="a", le="+Inf", **good)
        found = await source.read(["1.4.0", "11.4.0", "1.4"], NOW + at + 1)
    assert [*found] == ["1.4.0"]
    assert (found["1.4.0"].requests, found["1.4.0"].errors) == (30, 20)
    assert found["1.4.0"].latency == ((100 * preset.unit, 10), (float("inf"), 10))


async def test_native_histograms_are_sorted_into_seconds(world: World) -> None:
    source = world.source(counter="http_requests_total", histogram="took", preset="plain")
    for at, slow in ((0.0, 0), (5.0, 4)):
        world.count(NOW + at, 10 + slow)
        buckets = [[0, "0.08", "0.09", "6"], [0, "0.7", "0.8", str(slow)]]
        value = {"count": str(6 + slow), "sum": "1", "buckets": buckets}
        world.store.put("took", NOW + at, value, version="1.0", pod="a")
        found = await source.read(["1.0"], NOW + at + 1)
    latency = dict(found["1.0"].latency)
    assert (latency[0.5], latency[1.0], latency[float("inf")]) == (0, 4, 4)


async def test_own_counter_labels_and_a_version_in_the_name_of_the_pod(world: World) -> None:
    source = world.source(
        preset="", counter="answers_total", status=["outcome"], failures=["bad", "timeout"], version="pod",
        pattern="shop-$version-.*", replica=["pod"],
    )  # fmt: skip
    for at, grown in ((0.0, 0), (5.0, 10)):
        world.store.put("answers_total", NOW + at, grown, pod="shop-1-0-7d9f-x2", outcome="fine")
        world.store.put("answers_total", NOW + at, grown, pod="shop-1-0-7d9f-x3", outcome="timeout")
        found = await source.read(["1.0"], NOW + at + 1)
    assert (found["1.0"].requests, found["1.0"].errors) == (20, 10)
    assert [name for name, _, _ in found["1.0"].groups] == ["shop-1-0-7d9f-x2", "shop-1-0-7d9f-x3"]


async def test_all_versions_are_read_with_one_query_a_metric_and_the_state_stays_small(world: World) -> None:
    source = world.source()
    versions = [f"v{index}" for index in range(1000)]
    for hour in range(8):
        for version in versions[:20]:
            world.count(NOW + hour * 3600, 1, version=version, pod=f"{version}-{hour}")
        world.server.asked.clear()
        await source.read(versions, NOW + hour * 3600 + 1)
        assert len(world.server.asked) == 3
    totals = source.state()["counters"]["totals"]  # type: ignore[index]
    assert len(totals) <= 20 * 4
    await source.read(["other"], NOW + 20 * 3600)
    assert source.state()["counters"]["totals"] == {}  # type: ignore[index]


async def test_nobody_answers(world: World) -> None:
    with pytest.raises(DependencyFailed, match=r"the store at http://127\.0\.0\.1:1"):
        await world.source(url="http://127.0.0.1:1").read(["1.0"], NOW)
