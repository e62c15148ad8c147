"""What every source keeps that reads error lines from a store, against each store's real HTTP shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stores.log_documents import Documents, served
from stores.server import FAULTS, StoreServer

from forge.adapters.signals.base import Source
from forge.adapters.signals.registry import SourceContext, open_source
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan, SourcePlan

SECRET = "the-key"
NOW = 1_790_000_000.0

KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "elasticsearch": ("elasticsearch", {"scheme": "ApiKey"}, {"index": "logs-shop-*"}),
    "loki": ("loki", {}, {"query": '{app="shop"}', "tenant": "shop"}),
    "loki_apart": ("loki", {}, {"query": '{app="shop", version="$version"}', "tenant": "shop"}),
}


async def secret(name: str) -> str:
    assert name == "THE_KEY"
    return SECRET


class World:
    """One kind of store with a source that reads it."""

    def __init__(self, shape: str, store: StoreServer, documents: Documents) -> None:
        self.shape, self.store, self.documents = shape, store, documents
        self.source = self.another()

    def another(self, url: str = "", timeout: float = 4.0, **changed: Any) -> Source:
        kind, http, more = KINDS[self.shape]
        http = {"url": url or self.store.url, "timeout": timeout, "bearer": "THE_KEY", **http}
        plan = SourcePlan(kind, "the store", {"http": http, **more, **changed})
        return open_source(plan, SourceContext(EnvironmentPlan("production"), Path("/nonexistent"), secret))

    async def errors(self, at: float, *versions: str) -> dict[str, int | None]:
        return {name: one.log_errors for name, one in (await self.source.read([*versions], at)).items()}


@pytest.fixture(params=[*KINDS])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    documents = Documents()
    with served(request.param, documents) as store:
        yield World(request.param, store, documents)


async def test_error_lines_are_counted_once_each(world: World) -> None:
    world.documents.log("v1", NOW + 0.5, "error", "ERROR a 1", times=3)
    world.documents.log("v1", NOW + 0.5, "info", "fine", times=5)
    assert await world.errors(NOW + 1, "v1") == {"v1": 3}
    world.documents.log("v1", NOW + 1.5, "ERROR", "ERROR a 2", times=2)
    world.documents.log("v1", NOW + 11, "fatal", "FATAL b")
    assert await world.errors(NOW + 12, "v1") == {"v1": 6}
    assert await world.errors(NOW + 13, "v1") == {"v1": 6}
    await world.source.close()


async def test_lines_that_arrive_late_are_counted_and_old_ones_are_not(world: World) -> None:
    world.documents.log("v1", NOW - 30, "error", "ERROR old", times=100)
    world.documents.log("v1", NOW + 0.5, "error", "ERROR new")
    assert await world.errors(NOW + 1, "v1") == {"v1": 1}
    world.documents.log("v1", NOW + 5, "error", "ERROR late", times=4)
    assert await world.errors(NOW + 300, "v1") == {"v1": 5}


async def test_versions_are_told_apart_whatever_they_are_called(world: World) -> None:
    strange = 'v"1.*\\'
    world.documents.log("v1", NOW + 0.5, "error")
    world.documents.log("v11", NOW + 0.5, "error", times=2)
    world.documents.log(strange, NOW + 0.5, "error", times=3)
    assert await world.errors(NOW + 1, "v1", strange) == {"v1": 1, strange: 3}


async def test_no_errors_is_a_zero_and_no_lines_is_not_known(world: World) -> None:
    world.documents.log("v1", NOW + 0.5, "info", "fine")
    world.documents.log("v3", NOW - 4000, "error", "ERROR long ago")
    assert await world.errors(NOW + 1, "v1", "v2", "v3") == {"v1": 0}


async def test_the_kinds_of_error_lines(world: World) -> None:
    world.documents.log("v1", NOW - 60, "error", "ERROR card 1 declined")
    world.documents.log("v1", NOW + 0.5, "error", "ERROR card 2 declined")
    world.documents.log("v2", NOW + 0.6, "error", "ERROR card 3 declined")
    world.documents.log(
        "v2", NOW + 0.7, "error", "ERROR no such table\nTraceback (most recent call last):\n  x\nDbError: gone"
    )
    found = await world.source.read(["v1", "v2"], NOW + 1)
    assert [(one.text, one.lines) for one in found["v1"].templates] == [("ERROR card <num> declined", 2)]
    assert {one.text: one.lines for one in found["v2"].templates} == {
        "ERROR card <num> declined": 1,
        "ERROR no such table | DbError: gone": 1,
    }
    world.documents.log("v2", NOW + 2, "error", "ERROR card 4 declined")
    again = (await world.source.read(["v1", "v2"], NOW + 3))["v2"]
    assert {one.text: one.lines for one in again.templates}["ERROR card <num> declined"] == 2


async def test_a_storm_is_counted_whole_and_fetched_in_part(world: World) -> None:
    world.documents.log("v2", NOW + 0.5, "error", "ERROR storm", times=1000)
    world.documents.log("v1", NOW + 0.5, "error", "ERROR quiet")
    found = await world.source.read(["v1", "v2"], NOW + 1)
    assert (found["v1"].log_errors, found["v2"].log_errors) == (1, 1000)
    assert found["v1"].templates[0].text == "ERROR quiet"
    assert 0 < found["v2"].templates[0].lines <= 100


async def test_nothing_is_fetched_while_nothing_grows(world: World) -> None:
    world.documents.log("v1", NOW + 0.5, "error", "ERROR a")
    await world.source.read(["v1"], NOW + 1)
    before = len(world.store.asked)
    await world.source.read(["v1"], NOW + 2)
    assert len(world.store.asked) - before == (1 if world.shape == "elasticsearch" else 2)


async def test_a_restart_of_forge_goes_on_without_a_jump(world: World) -> None:
    world.documents.log("v1", NOW + 0.5, "error", "ERROR a 1", times=2)
    await world.source.read(["v1"], NOW + 1)
    state = json.loads(json.dumps(world.source.state()))
    world.source = world.another()
    world.source.restore(state)
    world.documents.log("v1", NOW + 5, "error", "ERROR a 2")
    found = (await world.source.read(["v1"], NOW + 12))["v1"]
    assert found.log_errors == 3
    assert len(found.templates) == 1


@pytest.mark.parametrize("state", [{"sums": "nonsense"}, {"kinds": 3}, {"fetched": {"v1": "x"}}, {}])
async def test_a_state_that_does_not_fit_is_ignored(world: World, state: dict[str, object]) -> None:
    world.source.restore(state)
    world.documents.log("v1", NOW + 0.5, "error")
    assert await world.errors(NOW + 1, "v1") == {"v1": 1}


async def test_what_is_old_is_told_as_old(world: World) -> None:
    world.documents.log("v1", NOW + 0.5, "error")
    reading = (await world.source.read(["v1"], NOW + 200))["v1"]
    assert reading.at is not None
    assert NOW <= reading.at <= NOW + 10
    assert reading.good_for == 30.0


async def test_clocks_of_the_service_that_are_ahead_do_no_harm(world: World) -> None:
    world.documents.log("v1", NOW + 0.5, "error")
    world.documents.log("v1", NOW + 40, "error", times=3)
    assert await world.errors(NOW + 1, "v1") == {"v1": 1}
    assert await world.errors(NOW + 50, "v1") == {"v1": 4}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_store_that_fails_is_never_a_zero(world: World, fault: str) -> None:
    world.documents.log("v1", NOW + 0.5, "error")
    world.source = world.another(timeout=1.0 if fault in ("hang", "endless") else 4.0)
    await world.source.read(["v1"], NOW + 1)
    world.store.fault = fault
    world.documents.log("v1", NOW + 5, "error")
    with pytest.raises(DependencyFailed) as failure:
        await world.source.read(["v1"], NOW + 11)
    told = f"{failure.value.message} {failure.value.hint}"
    assert "the store" in told
    assert SECRET not in told
    world.store.fault = ""
    assert await world.errors(NOW + 12, "v1") == {"v1": 2}
    assert SECRET not in repr(world.source.state())


async def test_nobody_answers(world: World) -> None:
    with pytest.raises(DependencyFailed, match=r"the store at http://127\.0\.0\.1:1"):
        await world.another("http://127.0.0.1:1").read(["v1"], NOW)


async def test_a_part_of_the_answer_is_never_told_as_all(world: World) -> None:
    world.documents.log("v1", NOW + 0.5, "error")
    if world.shape == "elasticsearch":
        for change, told in (({"failed": 1}, "1 of 1 shards failed: data too large"), ({"timed_out": True}, "in time")):
            for name, value in change.items():
                setattr(world.documents, name, value)
            with pytest.raises(DependencyFailed, match=told):
                await world.source.read(["v1"], NOW + 1)
            world.documents.failed, world.documents.timed_out = 0, False
        world.documents.indices = ("other",)
        with pytest.raises(DependencyFailed, match=r"no index is called `logs-shop-\*`"):
            await world.source.read(["v1"], NOW + 1)
        return
    world.documents.warning = "maximum of series (500) reached"
    with pytest.raises(DependencyFailed, match="only a part: maximum of series"):
        await world.source.read(["v1"], NOW + 1)


async def test_examining_tells_the_counts_and_never_raises(world: World) -> None:
    world.documents.log("v1", NOW - 60, "error", times=2)
    (result,) = await world.source.examine(["v1", "v2"], NOW + 1)
    assert (result.values, result.problem) == ({"v1": 2.0, "v2": None}, "")
    world.store.fault = "500"
    (broken,) = await world.source.examine(["v1"], NOW + 1)
    assert "500" in broken.problem


async def test_what_the_user_says_is_an_error(world: World) -> None:
    world.documents.log("v1", NOW + 0.5, "info", "card declined", status=500)
    world.documents.log("v1", NOW + 0.5, "error", "ERROR other", status=200)
    errors: Any = '|= "declined"'
    if world.shape == "elasticsearch":
        errors = {"range": {"status": {"gte": "500"}}}
    world.source = world.another(errors=errors)
    found = (await world.source.read(["v1"], NOW + 1))["v1"]
    assert found.log_errors == 1
    assert [one.text for one in found.templates] == ["card declined"]


async def test_no_versions_is_no_question(world: World) -> None:
    assert await world.source.read([], NOW) == {}
    assert world.store.asked == []


async def test_what_elasticsearch_is_asked() -> None:
    documents = Documents()
    documents.log("v1", NOW + 0.5, "error", env="production")
    documents.log("v1", NOW + 0.5, "error", env="other")
    with served("elasticsearch", documents) as store:
        world = World("elasticsearch", store, documents)
        source = world.another(query={"match": {"env": "$environment"}}, step=20.0)
        assert (await source.read(["v1"], NOW + 1))["v1"].log_errors == 1
        body = json.loads(store.asked[0].body)
    narrowed = body["query"]["bool"]["filter"]
    assert narrowed[0]["range"]["@timestamp"]["lt"] == round((NOW + 1) * 1000)
    assert narrowed[0]["range"]["@timestamp"]["gte"] % 20_000 == 0
    assert narrowed[1:] == [{"terms": {"service.version": ["v1"]}}, {"match": {"env": "production"}}]
    inside = body["aggs"]["versions"]["aggs"]
    assert inside["errors"]["aggs"]["times"]["date_histogram"]["fixed_interval"] == "20s"


@pytest.mark.parametrize(
    ("config", "pipeline"),
    [
        ({}, '| detected_level=~"(?i)(error|'),
        ({"levels": "label", "level": "severity"}, '| severity=~"(?i)(error|'),
        ({"levels": "json", "level": "log.level"}, '| json forge_level="log.level" | forge_level=~"(?i)(error|'),
        ({"levels": "logfmt"}, '| logfmt forge_level="level" | forge_level=~"(?i)(error|'),
        ({"levels": "text"}, '|~ "(?i)\\\\b(error|'),
        ({"errors": '|= "E"'}, '|= "E"'),
    ],
)
def test_what_loki_is_asked(config: dict[str, Any], pipeline: str) -> None:
    from forge.adapters.signals.http import HttpConfig, StoreClient
    from forge.adapters.signals.loki import Config, LokiStore

    settings = msgspec.convert({"http": {"url": "http://x"}, "query": '{app="$environment"}', **config}, Config)
    store = LokiStore("loki", settings, StoreClient("loki", HttpConfig("http://x"), secret), 'pro"d')
    assert store._several(["1.0", "v|2"], store._pipeline()).startswith(
        '{app="pro\\"d"} | version=~"1\\\\.0|v\\\\|2" ' + pipeline
    )
