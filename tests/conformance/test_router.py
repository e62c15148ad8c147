"""What every router keeps of its contract: Envoy, those of a cluster on a real control plane, and the one in memory."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import routed_shops, shops
from cluster.gateway import FrontDoors
from forge.adapters.routers.base import Router
from forge.adapters.routers.memory import MemoryRouter
from forge.adapters.targets.base import Target
from forge.adapters.targets.local.environment import open_local, shutdown
from forge.adapters.targets.memory import MemoryTarget
from forge.model.configs import MOST_VERSIONS, ROUTER_CAPABILITIES
from forge.model.errors import DependencyFailed, StaleLease, UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Route, TrafficTable, Version

ALL = frozenset({"weights", "header_routes", "cookie_routes", "sticky", "mirror"})
ON_CLUSTER = [pytest.param(name, marks=pytest.mark.kubernetes) for name in routed_shops.ROUTERS]


@dataclass
class Split:
    target: Target
    router: Router
    name: str

    async def up(self, *versions: str) -> None:
        for version in versions:
            await self.target.ensure(Version(version), 1, None, 1)
        deadline = time.monotonic() + 30
        while sum(count.ready for count in (await self.target.observe()).values()) < len(versions):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        await self.endpoints(versions)

    async def endpoints(self, versions: tuple[str, ...]) -> None:
        """A pod is ready a moment before its Service has it: the engine asks again, and so does this."""
        if self.name not in routed_shops.ROUTERS:
            return
        for version in versions:
            deadline = time.monotonic() + 15
            while True:
                try:
                    await self.router.apply(TrafficTable({version: 10_000}, 0), 1)
                    break
                except DependencyFailed:
                    assert time.monotonic() < deadline, version
                    await asyncio.sleep(0.05)

    async def leave(self, table: TrafficTable) -> None:
        """Where replicas make the split, whoever is ready has a share: leave those that the table names, as the engine
        does."""
        if self.name != "replicas":
            return
        asked = {version for version, weight in table.weights.items() if weight}
        for version in {*await self.target.observe(), *asked}:
            await self.target.ensure(Version(version), int(version in asked), None, 1)
        await self.endpoints(tuple(asked))

    def able(self, table: TrafficTable) -> bool:
        """Whether this router can do what a table asks for."""
        asked = {version for version, weight in table.weights.items() if weight}
        versions = asked | {route.version for route in table.routes}
        needs = {
            "sticky": table.sticky,
            "header_routes": any(route.header for route in table.routes),
            "cookie_routes": any(route.cookie for route in table.routes),
            "mirror": any(route.mirror for route in table.routes),
        }
        lacks = {name for name, wanted in needs.items() if wanted} - self.router.capabilities
        return not lacks and len(versions) <= MOST_VERSIONS.get(self.name, 99)

    async def settles(self, table: TrafficTable) -> None:
        deadline = time.monotonic() + 10
        while await self.router.observed() != table:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


@pytest.fixture
def shop_namespace(request) -> tuple[Path, str] | None:
    """Where a real cluster is and a namespace of the test's own; None where the test needs none."""
    if request.node.callspec.params["split"] not in routed_shops.ROUTERS:
        return None
    return request.getfixturevalue("cluster").kubeconfig, request.getfixturevalue("namespace")


@pytest.fixture(params=["envoy", "memory", *ON_CLUSTER])
async def split(request, tmp_path, shop_namespace) -> AsyncIterator[Split]:
    if shop_namespace is not None:
        objects = routed_shops.routes(request.param, shop_namespace[1])
        if objects:
            request.getfixturevalue("kubectl").apply(*objects)
        if request.param == "gateway_api":
            kubernetes = request.getfixturevalue("cluster")
            FrontDoors(lambda path: kubernetes.api("GET", path)).gateway(shop_namespace[1], "edge")  # has its address
        artifact = shops.written(tmp_path, shops.deployment(), shops.service())
        shop = shops.Shop(*shop_namespace, artifact)
        yield Split(shop, routed_shops.open_router(request.param, shop.cluster), request.param)
        await shop.close()
        return
    if request.param == "memory":
        target = MemoryTarget(time.monotonic)
        yield Split(target, MemoryRouter(time.monotonic, target, delay=0.02), "memory")
        return
    listen = (
        "import os, socket, time; s = socket.create_server(('127.0.0.1', int(os.environ['PORT']))); time.sleep(600)"
    )
    config = {"command": [sys.executable, "-I", "-S", "-c", listen], "stop_grace": 1.0}
    config["ready"] = {"tcp": True, "interval": 0.05}
    folder = tmp_path / "environment"
    opened = open_local(EnvironmentPlan("production", target_config=config), folder)
    await opened.router.address()
    yield Split(opened.target, opened.router, "envoy")
    await shutdown(folder)


async def test_there_is_an_address_and_no_table_at_first(split) -> None:
    assert (await split.router.address()).startswith("http://")
    assert await split.router.observed() is None


async def test_any_table_that_is_applied_is_the_one_observed(split) -> None:
    await split.up("1.0", "1.1", "1.2")
    tables = [
        TrafficTable({"1.0": 10000}, 1),
        TrafficTable({"1.0": 7000, "1.1": 2500, "1.2": 500}, 2),
        TrafficTable({"1.0": 9999, "1.1": 1, "1.2": 0}, 3, sticky=True),
        TrafficTable({"1.0": 10000}, 4, (Route("1.1", header="x-preview"), Route("1.2", cookie="c", value="v"))),
        TrafficTable({"1.2": 10000}, 5, (Route("1.0", mirror=100),)),
        TrafficTable({"1.0": 10000}, 6, (Route("1.1", header="x-preview", value="yes"),)),
        TrafficTable({"1.0": 9000, "1.1": 1000}, 7, (Route("1.1", cookie="c", value="always"),)),
        TrafficTable({"1.0": 3000, "1.1": 7000}, 8),
        TrafficTable({"1.2": 10000}, 9),
        TrafficTable({"1.2": 10000}, 9),
    ]
    for table in tables:
        if split.able(table):
            await split.leave(table)
            await split.router.apply(table, 1)
            await split.settles(table)
            continue
        before = await split.router.observed()
        with pytest.raises(UsageError):
            await split.router.apply(table, 1)
        assert await split.router.observed() == before


async def test_it_can_all_that_the_plan_takes_it_for(split) -> None:
    assert split.router.capabilities == ROUTER_CAPABILITIES.get(split.name, ALL)


IMPOSSIBLE = [
    (TrafficTable({"1.0": 9999}, 9), UsageError),
    (TrafficTable({}, 9), UsageError),
    (TrafficTable({"1.0": 10001, "1.1": -1}, 9), UsageError),
    (TrafficTable({"1.0": 10000}, 9, (Route("1.0"),)), UsageError),
    (TrafficTable({"1.0": 10000}, 9, (Route("1.0", mirror=10001),)), UsageError),
    (TrafficTable({"9.9": 10000}, 9), DependencyFailed),
    (TrafficTable({"1.0": 5000, "9.9": 5000}, 9), DependencyFailed),
    (TrafficTable({"1.0": 10000}, 9, (Route("9.9", header="x"),)), DependencyFailed),
]


async def test_a_table_that_cannot_be_is_refused_and_changes_nothing(split) -> None:
    await split.up("1.0")
    good = TrafficTable({"1.0": 10000, "gone": 0}, 1)
    await split.router.apply(good, 1)
    await split.settles(good)
    for table, error in IMPOSSIBLE:
        with pytest.raises(error if split.able(table) else UsageError):
            await split.router.apply(table, 1)
        assert await split.router.observed() == good


async def test_an_old_token_is_refused_by_router_and_target_alike(split) -> None:
    await split.up("1.0")
    table = TrafficTable({"1.0": 10000}, 1)
    await split.router.apply(table, 5)
    await split.settles(table)
    with pytest.raises(StaleLease):
        await split.router.apply(TrafficTable({"1.0": 10000}, 2), 4)
    with pytest.raises(StaleLease):
        await split.target.ensure(Version("1.0"), 0, None, 4)
    assert await split.router.observed() == table
