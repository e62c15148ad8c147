"""What is read from a real Prometheus while replicas restart, targets die, and the server goes away."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from forge.model.errors import DependencyFailed

VERSIONS = ["1.0", "1.1"]


async def test_requests_errors_durations_and_gauges_of_each_version(world) -> None:
    gauge = {"pool": {"query": 'max by (instance) (pool_used{version="$version"})', "limit": "vector(20)"}}
    value = {"mean": 'sum(pool_used{version="$version"}) / 2'}
    source = world.source(gauges=gauge, values=value)
    for name, version in (("a", "1.0"), ("b", "1.0"), ("c", "1.1")):
        world.serve(name, version)
        await world.request(name, times=100)
    world.scrape()
    await world.until(source, VERSIONS, lambda found: len(found) == 2 and len(found["1.0"].groups) == 2)
    await world.request("a", times=7, took=0.3)
    await world.request("b", times=5, code=503, pool=9)
    await world.request("c", times=4, code=404)
    found = await world.until(
        source, VERSIONS, lambda read: (read["1.0"].requests, read["1.1"].requests) == (12, 4)
    )  # fmt: skip
    # A code that was never answered before came into being between two scrapes, and counts from its first answer on.
    assert (found["1.0"].errors, found["1.1"].errors) == (5, 0)
    assert sorted(counts[1:] for counts in found["1.0"].groups) == [(5, 5), (7, 0)]
    assert found["1.0"].latency == ((0.05, 5), (0.5, 12), (1.0, 12), (float("inf"), 12))
    assert [(one.name, one.value, one.limit) for one in found["1.0"].gauges] == [("pool", 9.0, 20.0)]
    assert dict(found["1.1"].values)["mean"] == 1.5
    assert abs(found["1.0"].at - time.time()) < 5
    assert "9.9" not in await source.read(["1.0", "9.9"], time.time())


async def test_a_replica_that_restarts_loses_nothing_that_was_scraped_and_adds_nothing(world) -> None:
    source = world.source()
    world.serve("a", "1.0")
    await world.request("a", times=1000)
    world.scrape()
    await world.until(source, ["1.0"], lambda found: "1.0" in found)
    await world.request("a", times=10)
    await world.until(source, ["1.0"], lambda found: found["1.0"].requests == 10)
    world.stop("a")
    world.serve("a", "1.0")
    await world.request("a", times=3)
    await world.until(source, ["1.0"], lambda found: found["1.0"].requests == 13)
    await world.request("a", times=2, code=500)
    found = await world.until(source, ["1.0"], lambda found: found["1.0"].requests == 15)
    assert found["1.0"].errors == 2


async def test_a_server_that_goes_away_is_no_zero_and_goes_on_where_it_was(world) -> None:
    source = world.source()
    world.serve("a", "1.0")
    await world.request("a")
    world.scrape()
    await world.until(source, ["1.0"], lambda found: "1.0" in found)
    await world.request("a", times=10)
    await world.until(source, ["1.0"], lambda found: found["1.0"].requests == 10)
    world.stop_server()
    with pytest.raises(DependencyFailed, match=r"metrics at http://127\.0\.0\.1"):
        await source.read(["1.0"], time.time())
    await world.request("a", times=5)
    again = world.source()
    again.restore(json.loads(json.dumps(source.state())))
    world.start()
    await world.until(again, ["1.0"], lambda found: "1.0" in found and found["1.0"].requests == 15)


async def test_a_target_that_dies_is_told_as_old_and_then_as_not_known(world) -> None:
    source = world.source()
    world.serve("a", "1.0")
    await world.request("a")
    world.scrape()
    read = await world.until(source, ["1.0"], lambda found: "1.0" in found)
    assert time.time() - read["1.0"].at < 5
    world.stop("a")
    await asyncio.sleep(0.6)
    stopped_at, ages = time.time(), []
    while time.time() - stopped_at < 10:
        read = await source.read(["1.0"], time.time())
        if "1.0" not in read:
            break
        ages.append(read["1.0"].at)
        await asyncio.sleep(0.1)
    assert "1.0" not in read
    assert all(at <= stopped_at for at in ages)


async def test_a_wrong_query_is_told_in_the_words_of_the_server(world) -> None:
    source = world.source(values={"broken": 'sum(rate(x{version="$version"}[)'})
    world.serve("a", "1.0")
    world.scrape()
    await world.until(world.source(), ["1.0"], lambda found: "1.0" in found)
    with pytest.raises(DependencyFailed, match="parse error"):
        await source.read(["1.0"], time.time())
    results = {one.name: one for one in await source.examine(["1.0"], time.time())}
    assert "parse error" in results["broken"].problem
    assert not results["requests"].problem
    assert results["requests"].values["1.0"] is not None


async def test_exemplars_name_the_traces_to_look_at(world) -> None:
    source = world.source(trace_url="https://tempo.example/trace/$trace")
    world.serve("a", "1.0")
    await world.request("a", trace="abc123")
    world.scrape()
    await world.until(source, ["1.0"], lambda found: "1.0" in found)
    for _ in range(50):
        if await source.traces("1.0", time.time() - 60, time.time() + 1):
            break
        await asyncio.sleep(0.1)
    (found,) = await source.traces("1.0", time.time() - 60, time.time() + 1)
    assert (found.trace, found.version, found.url) == ("abc123", "1.0", "https://tempo.example/trace/abc123")
    assert time.time() - 60 < found.at < time.time() + 1
    assert found.seconds is not None
    assert 0 <= found.seconds < 5


async def test_a_version_cannot_break_out_of_its_matcher(world) -> None:
    source = world.source(values={"n": 'count(up{instance=~"$version"})'})
    strange = ['1.0"} or up{x="', "1.0|.*", "1\\.0", "(", "v1 {x}"]
    world.serve("a", "1.0")
    world.scrape()
    await world.until(world.source(), ["1.0"], lambda found: "1.0" in found)
    assert await world.source().read(strange, time.time()) == {}
    assert source.gives >= {"values", "requests"}
