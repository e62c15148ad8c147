"""A JSON endpoint as a source: counters found by JSONPath, resets, old data, and every way to fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stores.server import FAULTS, Asked, StoreServer

from forge.adapters.signals.base import Source
from forge.adapters.signals.registry import SourceContext, open_source
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import EnvironmentPlan, SourcePlan

NOW = 1_790_000_000.0


class World:
    def __init__(self, store: StoreServer, documents: dict[str, Any]) -> None:
        self.store, self.documents = store, documents

    def source(self, **more: Any) -> Source:
        config: dict[str, Any] = {
            "http": {"url": self.store.url, "bearer": "TOKEN", "timeout": 1.0},
            "path": "/stats/$version",
            "requests": "$.replicas[*].requests",
            "errors": "$.replicas[*].errors",
            **more,
        }
        context = SourceContext(EnvironmentPlan("production"), Path("/nonexistent"), secret)
        return open_source(SourcePlan("json", "own statistics", config), context)

    def counted(self, version: str, *replicas: tuple[int, int], **more: Any) -> None:
        rows = [{"requests": requests, "errors": errors} for requests, errors in replicas]
        self.documents[f"/stats/{version}"] = {"replicas": rows, **more}


async def secret(name: str) -> str:
    assert name == "TOKEN"
    return "s3cret-value"


@pytest.fixture
def world() -> Iterator[World]:
    documents: dict[str, Any] = {}

    def answer(asked: Asked) -> bytes:
        assert asked.headers["authorization"] == "Bearer s3cret-value"
        return json.dumps(documents[asked.path]).encode()

    with StoreServer(answer) as store:
        yield World(store, documents)


async def test_counters_begin_at_their_first_value_and_add_up_over_replicas(world: World) -> None:
    source = world.source()
    world.counted("1.4", (1000, 10), (2000, 20))
    first = (await source.read(["1.4"], NOW))["1.4"]
    world.counted("1.4", (1100, 11), (2050, 20))
    second = (await source.read(["1.4"], NOW + 5))["1.4"]
    assert (first.requests, first.errors) == (0, 0)
    assert (second.requests, second.errors) == (150, 1)


async def test_a_replica_that_restarted_counts_from_nothing(world: World) -> None:
    source = world.source()
    world.counted("1.4", (1000, 10))
    await source.read(["1.4"], NOW)
    world.counted("1.4", (30, 2))
    reading = (await source.read(["1.4"], NOW + 5))["1.4"]
    assert (reading.requests, reading.errors) == (30, 2)


async def test_a_path_without_the_version_is_one_document_for_all(world: World) -> None:
    source = world.source(path="/all", requests="$['$version'].n", errors="$['$version'].bad")
    world.documents["/all"] = {"1.4": {"n": 5, "bad": 1}, "it's": {"n": 7, "bad": 0}}
    await source.read(["1.4", "it's"], NOW)
    world.documents["/all"] = {"1.4": {"n": 6, "bad": 2}, "it's": {"n": 9, "bad": 0}}
    world.store.asked.clear()
    found = await source.read(["1.4", "it's", "2.0"], NOW + 5)
    assert {name: (one.requests, one.errors) for name, one in found.items()} == {"1.4": (1, 1), "it's": (2, 0)}
    assert len(world.store.asked) == 1


async def test_values_gauges_and_the_time_of_the_data(world: World) -> None:
    source = world.source(
        values={"queue": "$.queue"}, gauges={"pool": {"query": "$.pool", "limit": 20}}, time="$.at"
    )  # fmt: skip
    world.counted("1.4", (1, 0), queue=12.5, pool=7, at=NOW - 30)
    reading = (await source.read(["1.4"], NOW))["1.4"]
    assert reading.values == (("queue", 12.5),)
    assert [(gauge.name, gauge.value, gauge.limit) for gauge in reading.gauges] == [("pool", 7.0, 20.0)]
    assert reading.at == NOW - 30


async def test_a_store_with_a_clock_ahead_does_not_give_data_from_the_future(world: World) -> None:
    source = world.source(time="$.at")
    world.counted("1.4", (1, 0), at=NOW + 3600)
    assert (await source.read(["1.4"], NOW))["1.4"].at == NOW


async def test_a_document_without_the_counters_is_no_zero(world: World) -> None:
    source = world.source()
    world.documents["/stats/1.4"] = {"replicas": []}
    assert await source.read(["1.4"], NOW) == {}


async def test_what_is_no_number_is_said(world: World) -> None:
    source = world.source()
    world.documents["/stats/1.4"] = {"replicas": [{"requests": "many", "errors": 0}]}
    with pytest.raises(DependencyFailed, match=r'own statistics: .* finds "many", which is no number'):
        await source.read(["1.4"], NOW)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "wrong_shape"])
async def test_an_endpoint_that_fails_is_never_a_zero(world: World, fault: str) -> None:
    source = world.source()
    world.counted("1.4", (10, 0))
    await source.read(["1.4"], NOW)
    world.counted("1.4", (20, 0))
    world.store.fault = fault
    with pytest.raises(DependencyFailed, match="own statistics") as failure:
        await source.read(["1.4"], NOW + 5)
    assert "s3cret-value" not in f"{failure.value.message}{failure.value.hint}"
    world.store.fault = ""
    assert (await source.read(["1.4"], NOW + 10))["1.4"].requests == 10


async def test_another_shape_leaves_the_version_out(world: World) -> None:
    source = world.source()
    world.counted("1.4", (10, 0))
    world.store.fault = "wrong_shape"
    assert await source.read(["1.4"], NOW) == {}


async def test_a_restart_of_forge_goes_on_without_a_jump(world: World) -> None:
    source = world.source()
    world.counted("1.4", (10, 0))
    await source.read(["1.4"], NOW)
    again = world.source()
    again.restore(msgspec.json.decode(msgspec.json.encode(source.state())))
    world.counted("1.4", (25, 0))
    assert (await again.read(["1.4"], NOW + 5))["1.4"].requests == 15
    assert "s3cret-value" not in repr(again.state())


async def test_examining_tells_what_each_path_finds(world: World) -> None:
    source = world.source()
    world.counted("1.4", (10, 1), (20, 2))
    found = {result.name: result for result in await source.examine(["1.4"], NOW)}
    assert found["requests"].values == {"1.4": 30.0}
    world.store.fault = "500"
    assert all("answered 500" in result.problem for result in await source.examine(["1.4"], NOW))


def test_a_path_that_is_none_is_told_before_anything_is_asked(world: World) -> None:
    with pytest.raises(UsageError, match="is no JSONPath"):
        world.source(requests="$.[")
