"""What every source keeps that is asked with the user's own queries, against each store's real HTTP shape."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stores.queried import STEP, Counts, served
from stores.server import FAULTS, StoreServer

from forge.adapters.signals.base import Source
from forge.adapters.signals.registry import SourceContext, open_source
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan, SourcePlan

SECRET = "the-key"
NOW = 1_790_000_000.0

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "graphite": ("graphite", "{name} version=$version", {}),
    "datadog": ("datadog", "{name} version=$version", {}),
    "newrelic": ("newrelic", "SELECT {name} WHERE version=$version", {"account": 7}),
    "influxql": (
        "influxdb",
        "SELECT sum({name}) WHERE time >= $start AND time < $end AND version=$version",
        {"language": "influxql", "database": "metrics"},
    ),
    "flux": (
        "influxdb",
        "range(start: $start, stop: $end) {name} version=$version",
        {"language": "flux", "organisation": "our org"},
    ),
    "cloudwatch": ("cloudwatch", "SELECT {name} version=$version", {"region": "eu-west-1"}),
}


async def secret(name: str) -> str:
    assert name in ("THE_KEY", "TOKEN")
    return SECRET


class World:
    """One kind of store with a source that reads it."""

    def __init__(self, shape: str, store: StoreServer, counts: Counts) -> None:
        self.shape, self.store, self.counts = shape, store, counts
        self.source = self.another()

    def another(self, url: str = "", timeout: float = 4.0) -> Source:
        kind, query, more = KINDS[self.shape]
        http = {
            "url": url or self.store.url, "timeout": timeout,
            "secret_headers": {"DD-API-KEY": "THE_KEY", "API-Key": "THE_KEY"},
        }  # fmt: skip
        queries = {
            "requests": query.format(name="requests"),
            "errors": query.format(name="errors"),
            "values": {"p99": query.format(name="p99")},
            "gauges": {"pool": {"query": query.format(name="pool"), "limit": 20.0}},
            "step": STEP,
        }
        plan = SourcePlan(kind, "the store", {"http": http, "queries": queries, **more})
        return open_source(plan, SourceContext(EnvironmentPlan("production"), Path("/nonexistent"), secret))

    def answer(self, version: str, at: float, requests: int, errors: int = 0) -> None:
        self.counts.add(version, "requests", at, requests)
        if errors:
            self.counts.add(version, "errors", at, errors)


@pytest.fixture(params=[*KINDS])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    counts = Counts()
    with served(request.param, counts) as store:
        yield World(request.param, store, counts)


async def test_counts_add_up_over_intervals_and_each_counts_once(world: World) -> None:
    world.answer("v1", NOW, 100, 1)
    first = (await world.source.read(["v1"], NOW + 1))["v1"]
    world.answer("v1", NOW, 50)
    world.answer("v1", NOW + 10, 70, 2)
    second = (await world.source.read(["v1"], NOW + 11))["v1"]
    third = (await world.source.read(["v1"], NOW + 12))["v1"]
    assert (first.requests, first.errors) == (100, 1)
    assert (second.requests, second.errors) == (220, 3)
    assert (third.requests, third.errors) == (220, 3)
    await world.source.close()


async def test_what_was_before_the_first_look_is_not_counted(world: World) -> None:
    world.answer("v1", NOW - 30, 1000, 900)
    world.answer("v1", NOW, 10)
    reading = (await world.source.read(["v1"], NOW + 1))["v1"]
    assert (reading.requests, reading.errors) == (10, 0)


async def test_versions_are_told_apart(world: World) -> None:
    world.answer("v1", NOW, 10)
    world.answer("v2", NOW, 20, 5)
    found = await world.source.read(["v1", "v2", "v3"], NOW + 1)
    assert {version: (one.requests, one.errors) for version, one in found.items()} == {"v1": (10, 0), "v2": (20, 5)}


async def test_values_and_gauges_are_the_newest(world: World) -> None:
    world.answer("v1", NOW, 10)
    world.counts.add("v1", "p99", NOW - 10, 0.2)
    world.counts.add("v1", "p99", NOW, 0.3)
    world.counts.add("v1", "pool", NOW, 12)
    reading = (await world.source.read(["v1"], NOW + 1))["v1"]
    assert reading.values == (("p99", 0.3),)
    assert [(gauge.name, gauge.value, gauge.limit) for gauge in reading.gauges] == [("pool", 12.0, 20.0)]


async def test_a_restart_of_forge_goes_on_without_a_jump(world: World) -> None:
    world.answer("v1", NOW, 10)
    await world.source.read(["v1"], NOW + 1)
    again = world.another()
    again.restore(msgspec.json.decode(msgspec.json.encode(world.source.state())))
    world.answer("v1", NOW + 10, 5)
    assert (await again.read(["v1"], NOW + 11))["v1"].requests == 15


async def test_a_state_that_does_not_fit_is_ignored(world: World) -> None:
    world.source.restore({"sums": "nonsense"})
    world.answer("v1", NOW, 10)
    assert (await world.source.read(["v1"], NOW + 1))["v1"].requests == 10


async def test_old_data_is_told_as_old(world: World) -> None:
    world.answer("v1", NOW, 10)
    await world.source.read(["v1"], NOW + 1)
    reading = (await world.source.read(["v1"], NOW + 40))["v1"]
    assert reading.at == NOW + 10
    assert reading.good_for is not None
    assert reading.good_for >= 3 * STEP


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_store_that_fails_is_never_a_zero(world: World, fault: str) -> None:
    world.answer("v1", NOW, 10)
    world.source = world.another(timeout=1.0 if fault in ("hang", "endless") else 4.0)
    before = (await world.source.read(["v1"], NOW + 1))["v1"]
    world.store.fault = fault
    world.answer("v1", NOW + 10, 10)
    shapeless = fault in ("html", "wrong_shape") and world.shape == "flux"
    if shapeless:
        # CSV has no shape that could be wrong as a whole: rows that are not there are no rows.
        found = await _or_failed(world.source, NOW + 11)
        assert found is None or found.requests in (None, before.requests, 20)
    else:
        with pytest.raises(DependencyFailed) as failure:
            await world.source.read(["v1"], NOW + 11)
        told = f"{failure.value.message} {failure.value.hint}"
        assert "the store" in told
        assert SECRET not in told
    world.store.fault = ""
    assert (await world.source.read(["v1"], NOW + 12))["v1"].requests == 20
    assert SECRET not in repr(world.source.state())


async def _or_failed(source: Source, now: float) -> Any:
    try:
        return (await source.read(["v1"], now)).get("v1")
    except DependencyFailed:
        return None


async def test_nobody_answers(world: World) -> None:
    source = world.another("http://127.0.0.1:1")
    with pytest.raises(DependencyFailed, match=r"the store at http://127\.0\.0\.1:1"):
        await source.read(["v1"], NOW)


async def test_examining_tells_the_newest_value_of_each_query_and_never_raises(world: World) -> None:
    world.answer("v1", NOW, 10)
    results = {result.name: result for result in await world.source.examine(["v1", "v2"], NOW + 1)}
    assert results["requests"].values == {"v1": 10.0, "v2": None}
    assert not results["requests"].problem
    world.store.fault = "500"
    broken = await world.source.examine(["v1"], NOW + 1)
    assert all("500" in result.problem for result in broken)


async def test_many_versions_are_read_with_few_connections(world: World) -> None:
    versions = [f"v{index}" for index in range(20)]
    for version in versions:
        world.answer(version, NOW, 1)
    async with asyncio.timeout(20):
        assert len(await world.source.read(versions, NOW + 1)) == 20
