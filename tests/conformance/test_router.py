"""What every router keeps of its contract: Envoy and the one in memory."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from forge.adapters.routers.base import Router
from forge.adapters.routers.memory import MemoryRouter
from forge.adapters.targets.base import Target
from forge.adapters.targets.local.environment import open_local, shutdown
from forge.adapters.targets.memory import MemoryTarget
from forge.model.errors import DependencyFailed, StaleLease, UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Route, TrafficTable, Version


@dataclass
class Split:
    target: Target
    router: Router

    async def up(self, *versions: str) -> None:
        for version in versions:
            await self.target.ensure(Version(version), 1, None, 1)
        deadline = time.monotonic() + 15
        while sum(count.ready for count in (await self.target.observe()).values()) < len(versions):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    async def settles(self, table: TrafficTable) -> None:
        deadline = time.monotonic() + 10
        while await self.router.observed() != table:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


@pytest.fixture(params=["envoy", "memory"])
async def split(request, tmp_path) -> AsyncIterator[Split]:
    if request.param == "memory":
        target = MemoryTarget(time.monotonic)
        yield Split(target, MemoryRouter(time.monotonic, target, delay=0.02))
        return
    listen = (
        "import os, socket, time; s = socket.create_server(('127.0.0.1', int(os.environ['PORT']))); time.sleep(600)"
    )
    config = {"command": [sys.executable, "-I", "-S", "-c", listen], "stop_grace": 1.0}
    config["ready"] = {"tcp": True, "interval": 0.05}
    folder = tmp_path / "environment"
    opened = open_local(EnvironmentPlan("production", target_config=config), folder)
    await opened.router.address()
    yield Split(opened.target, opened.router)
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
        TrafficTable({"1.2": 10000}, 6),
        TrafficTable({"1.2": 10000}, 6),
    ]
    for table in tables:
        await split.router.apply(table, 1)
        await split.settles(table)


async def test_it_can_all_that_the_contract_names(split) -> None:
    assert split.router.capabilities == {"weights", "header_routes", "cookie_routes", "sticky", "mirror"}


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
        with pytest.raises(error):
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
