"""Traffic through a real Envoy: weights, routes, stickiness, mirrors, and no request lost while they change."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from forge.adapters.targets.local.environment import open_local
from forge.adapters.targets.local.replicas import choose_port
from forge.model.errors import DependencyFailed, StaleLease, UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Route, TrafficTable, Version


async def test_an_environment_without_versions_says_so(world) -> None:
    reply = await world.get()
    assert (reply.code, await world.router.observed()) == (503, None)
    assert "No version" in reply.body


async def test_a_split_is_what_was_asked_for(world, load) -> None:
    await world.up("1.0", "1.1", replicas=2)
    await world.split(_1_0=9500, _1_1=500)
    async with load(await world.router.address()) as clients:
        while clients.requests < 3000:
            await asyncio.sleep(0.02)
    assert clients.failures == []
    assert 0.03 < clients.versions["1.1"] / clients.versions.total() < 0.07


async def test_weight_changes_under_load_lose_nothing(world, load) -> None:
    await world.up("1.0", "1.1")
    await world.split(_1_0=10000)
    async with load(await world.router.address()) as clients:
        for change in range(60):
            weight = (change * 331) % 10001
            await world.split(_1_0=10000 - weight, _1_1=weight)
            await asyncio.sleep(0.02)
    assert clients.failures == []
    assert min(clients.versions.values()) > 50


async def test_ten_versions_at_once(world, load) -> None:
    names = [f"1.{minor}" for minor in range(10)]
    await world.up(*names)
    await world.route(dict.fromkeys(names, 1000))
    async with load(await world.router.address()) as clients:
        while clients.requests < 1500:
            await asyncio.sleep(0.02)
    assert clients.failures == []
    assert set(clients.versions) == set(names)
    assert all(0.05 < count / clients.versions.total() < 0.15 for count in clients.versions.values())


async def test_a_removed_version_loses_no_request(world, load) -> None:
    await world.up("1.0", "1.1", replicas=2)
    await world.split(_1_0=5000, _1_1=5000)
    pids = [(await world.replica("1.1", number))["pid"] for number in (1, 2)]
    address = await world.router.address()
    async with load(address) as clients, load(address, path="/?sleep=0.5") as slow_clients:
        await world.split(_1_0=10000)
        await world.target.remove("1.1", world.token)
        while "1.1" in await world.target.observe():
            await asyncio.sleep(0.02)
        assert not set(pids) & world.processes()
        await asyncio.sleep(0.2)
    assert clients.failures == slow_clients.failures == []
    assert slow_clients.versions["1.1"] > 0


async def test_requests_in_flight_survive_a_scale_down(world, load) -> None:
    await world.up("1.0", replicas=3)
    await world.split(_1_0=10000)
    async with load(await world.router.address(), path="/?sleep=0.4") as clients:
        await world.want("1.0", 1)
        await world.ready("1.0", 1)
        await asyncio.sleep(0.8)
    assert clients.failures == []


async def test_headers_and_cookies_choose_a_version(world) -> None:
    await world.up("1.0", "1.1")
    await world.split(
        (Route("1.1", header="x-preview", value="yes"), Route("1.1", cookie="tester")), _1_0=10000, _1_1=0
    )
    assert (await world.get(x_preview="yes")).version == "1.1"
    assert (await world.get(x_preview="no")).version == "1.0"
    assert (await world.get(cookie="a=b; tester=ann; c=d")).version == "1.1"
    assert (await world.get(cookie="attester=ann")).version == "1.0"
    assert (await world.get()).header("x-forge-version") == "1.0"


async def test_a_named_route_goes_with_its_version(world) -> None:
    await world.up("1.0", "1.1")
    await world.split((Route("1.1", header="x-preview"),), _1_0=10000)
    await world.target.remove("1.1", world.token)
    assert (await world.get(x_preview="yes")).version == "1.0"
    assert (await world.router.observed()).routes == ()


async def test_sticky_clients_stay_and_move_when_their_version_goes(world) -> None:
    await world.up("1.0", "1.1")
    await world.split(sticky=True, _1_0=5000, _1_1=5000)
    clients = [await world.get() for _ in range(30)]
    cookies = [reply.header("set-cookie").split(";")[0] for reply in clients]
    assert {reply.version for reply in clients} == {"1.0", "1.1"}
    again = [await world.get(cookie=cookie) for cookie in cookies]
    assert [reply.version for reply in again] == [reply.version for reply in clients]
    assert all(reply.header("set-cookie") == "" for reply in again)
    await world.split(sticky=True, _1_0=9900, _1_1=100)
    assert [(await world.get(cookie=cookie)).version for cookie in cookies] == [reply.version for reply in clients]
    await world.split(sticky=True, _1_0=10000, _1_1=0)
    assert {(await world.get(cookie=cookie)).version for cookie in cookies} == {"1.0"}


async def test_a_mirror_gets_copies_whose_answers_nobody_sees(world, load, eventually) -> None:
    await world.up("1.0", "1.1")
    await world.split((Route("1.1", mirror=2000),), _1_0=10000)
    async with load(await world.router.address()) as clients:
        while clients.requests < 1000:
            await asyncio.sleep(0.02)
    assert set(clients.versions) == {"1.0"}
    mirrored = (await world.signals.read(["1.1"]))["1.1"].requests
    assert 0.12 < mirrored / clients.versions.total() < 0.28


async def test_a_request_with_an_effect_is_not_sent_twice(world) -> None:
    await world.up("1.0")
    await world.split(_1_0=10000)
    pid = (await world.replica("1.0"))["pid"]
    slow = asyncio.create_task(world.get("/?sleep=5", method="POST"))
    await asyncio.sleep(0.3)
    os.kill(pid, 9)
    assert (await slow).code == 503


IMPOSSIBLE = [
    (TrafficTable({"1.0": 9000}, 1), UsageError, "sum to 9000"),
    (TrafficTable({"1.0": 11000, "1.1": -1000}, 1), UsageError, "negative"),
    (TrafficTable({"1.0": 10000}, 1, (Route("1.0"),)), UsageError, "matches nothing"),
    (TrafficTable({"2.0": 10000}, 1), DependencyFailed, "version 2.0 has no ready replica"),
    (TrafficTable({"1.0": 10000}, 1, (Route("2.0", header="a"),)), DependencyFailed, "2.0"),
    (TrafficTable({"1.0": 10000}, 1, (Route("1.0", header="bad\nheader"),)), DependencyFailed, "refused"),
]


async def test_an_impossible_table_is_refused_and_changes_nothing(world) -> None:
    await world.up("1.0")
    await world.split(_1_0=10000)
    before = await world.router.observed()
    for table, error, words in IMPOSSIBLE:
        with pytest.raises(error, match=words):
            await world.router.apply(table, world.token)
        assert await world.router.observed() == before
        assert (await world.get()).version == "1.0"
    await world.split(_1_0=10000)


async def test_an_old_token_changes_nothing(world) -> None:
    await world.up("1.0")
    await world.split(_1_0=10000)
    world.token = 7
    await world.split(_1_0=10000)
    for token in (0, 6):
        with pytest.raises(StaleLease):
            await world.router.apply(TrafficTable({"1.0": 10000}, 99), token)
        with pytest.raises(StaleLease):
            await world.target.remove("1.0", token)
    assert (await world.router.observed()).generation == 2


async def test_a_version_with_traffic_is_not_removed(world) -> None:
    await world.up("1.0")
    await world.split(_1_0=10000)
    with pytest.raises(DependencyFailed, match="still has 100% of the traffic"):
        await world.target.remove("1.0", world.token)
    assert (await world.get()).version == "1.0"


async def test_a_taken_port_is_named_and_taken_back_when_free(new_world, eventually) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        world = new_world(port=port)
        with pytest.raises(DependencyFailed, match=f"port {port} of 127.0.0.1 is taken"):
            await world.router.address()

    async def up() -> bool:
        return await world.router.address() == f"http://127.0.0.1:{port}"

    await eventually(up, "the proxy has its port")


async def test_a_changed_router_keeps_the_split(world, eventually) -> None:
    await world.up("1.0", "1.1")
    await world.split(_1_0=5000, _1_1=5000)
    table, port = await world.router.observed(), choose_port(set())
    for router in ({"sticky": True, "request_timeout": 5.0}, {"sticky": True, "port": port}):
        plan = EnvironmentPlan("production", target_config=world.plan.target_config, router_config=router)
        changed = open_local(plan, world.folder)
        await changed.target.ensure(Version("1.0"), 1, None, 1)

        async def settled(router=changed.router) -> bool:
            return await router.observed() == table

        await eventually(settled, "the same table is in effect")
        world.router = changed.router
        assert "forge-version=" in (await world.get()).header("set-cookie")
    assert await world.router.address() == f"http://127.0.0.1:{port}"


async def test_two_environments_do_not_meet(new_world) -> None:
    staging, production = new_world("staging"), new_world("production")
    await staging.up("2.0")
    await production.up("1.0")
    await staging.split(_2_0=10000)
    await production.split(_1_0=10000)
    assert ((await staging.get()).version, (await production.get()).version) == ("2.0", "1.0")
