"""A15: rapid consecutive releases with header routes leave no orphan route.
A16: two who write one route object, or two services beside each other, lose no update."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_environment import LocalWorld, new_world
from msgspec.structs import replace
from test_releases_in_the_engine import Forge
from test_releases_in_the_engine import World as EngineWorld
from world import World, canary

from forge.adapters.targets.local.environment import open_local
from forge.core.release.state import RELEASE_FINAL
from forge.model.errors import StaleLease
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep
from forge.model.traffic import Route, TrafficTable
from forge.model.units import WHOLE

__all__ = ["new_world"]


def _orphans(world: World) -> list[Route]:
    """Routes in the table that was asked for, or in the one in effect, whose release is over or version is gone."""
    going = {r.version for r in world.state.releases.values() if r.status not in RELEASE_FINAL}
    tables = [table for table in (world.state.traffic, world.table()) if table is not None]
    asked = [route for route in tables[:1] for route in route.routes]
    return [route for route in asked if route.version not in going or route.version not in world.running]


class TestA15RapidReleases:
    """A15: each release brings a header route of its own; the next one comes before it is finished."""

    @pytest.mark.parametrize("overlap", ["supersede", "queue", "overlap"])
    @given(
        gaps=st.lists(st.integers(0, 9), min_size=3, max_size=7),
        ends=st.lists(st.sampled_from(["", "", "abort", "promote", "rollback"]), min_size=7, max_size=7),
    )
    def test_no_route_outlives_its_release(self, overlap: str, gaps: list[int], ends: list[str]) -> None:
        world = World(policy={"on_overlap": overlap, "max_arms": 3}).established()
        for number, gap in enumerate(gaps):
            route = {"version": "", "header": "x-release", "value": f"2.{number}"}
            world.deploy(f"2.{number}", canary(5, 4.0, 20, 4.0, keep_previous=0.0), routes=[route])
            for _ in range(gap):
                world.tick()
                assert _orphans(world) == []
            if ends[number]:
                world.send(ends[number], full=True)
        world.settle()
        table = world.table()
        assert table is not None
        assert table.routes == ()
        assert table.weights == {world.state.stable: WHOLE}
        assert {release.status for release in world.state.releases.values()} <= RELEASE_FINAL

    def test_a_route_goes_in_the_tick_that_its_release_ends(self) -> None:
        world = World(policy={"on_overlap": "supersede"}).established()
        for number in range(5):
            route = {"version": "", "header": "x-release", "value": str(number)}
            world.deploy(f"2.{number}", canary("resume"), routes=[route])
            world.run(4)
            assert world.state.traffic is not None
            # An arm that is being drained keeps its route until the split confirms that it is empty, and no longer.
            named = {(each.version, each.value) for each in world.state.traffic.routes}
            assert named <= {(f"2.{number - 1}", str(number - 1)), (f"2.{number}", str(number))}
        world.until("progressing", "paused", version="2.4")
        world.run(3)
        assert world.state.traffic is not None
        assert [each.value for each in world.state.traffic.routes] == ["4"]

    async def test_the_real_proxy_forgets_them_too(self, new_world) -> None:
        """Twelve tables within a moment, each with the next release's route: only the newest one's is there."""
        world: LocalWorld = new_world()
        await world.up("1.0", "1.1", "1.2")
        for number in range(12):
            version = f"1.{1 + number % 2}"
            await world.split((Route(version, header="x-release", value=str(number)),), _1_0=WHOLE)
        seen = [(await world.get(x_release=str(number))).version for number in range(12)]
        assert seen == ["1.0"] * 11 + ["1.2"]
        await world.split(_1_0=WHOLE)
        assert (await world.get(x_release="11")).version == "1.0"
        assert (await world.router.observed()).routes == ()


class TestA16OneRouteObject:
    """A16: whoever writes it, an update is never lost, and never mixed with another one."""

    async def test_two_writers_of_one_real_proxy(self, new_world) -> None:
        """Two adapters, as in two processes of Forge, hand over tables at once: every table in effect is a whole one,
        the newest is the last, and one whose lease went to the other changes nothing any more."""
        world: LocalWorld = new_world()
        await world.up("1.0", "1.1", "1.2")
        routers = [world.router, open_local(world.plan, world.folder).router]
        tables = {
            number: TrafficTable(
                {"1.0": WHOLE - 300 * number, "1.1": 200 * number, "1.2": 100 * number}, number,
                (Route("1.1", header="x-writer", value=str(number)),),
            )
            for number in range(1, 25)
        }  # fmt: skip
        seen: list[TrafficTable | None] = []

        async def write(writer: int) -> None:
            for number in range(1 + writer, 25, 2):
                await routers[writer].apply(tables[number], world.token)
                seen.append(await routers[1 - writer].observed())

        await asyncio.gather(write(0), write(1))
        assert all(table is None or table == tables[table.generation] for table in seen)
        newest = tables[24]
        await routers[1].apply(newest, world.token + 1)
        with pytest.raises(StaleLease):
            await routers[0].apply(tables[3], world.token)
        assert await routers[0].observed() == newest
        assert (await world.get(x_writer="24")).version == "1.1"
        assert (await world.get(x_writer="3")).header("x-forge-version") in {"1.0", "1.1", "1.2"}

    async def test_two_environments_of_one_machine(self, new_world) -> None:
        """Two services of one machine change their splits at once, a hundred times: neither sees the other's."""
        shop, till = new_world("shop"), new_world("till")
        await asyncio.gather(shop.up("1.0", "1.1"), till.up("7.0", "7.1"))

        async def move(world: LocalWorld, old: str, new: str, seed: int) -> dict[str, int]:
            rng, last = Random(seed), {}
            for _ in range(50):
                weight = rng.randrange(1, WHOLE)
                last = {old: WHOLE - weight, new: weight}
                await world.route(last)  # asserts that exactly this table is in effect afterwards
                assert (await world.get()).version in last
            return last

        ends = await asyncio.gather(move(shop, "1.0", "1.1", 1), move(till, "7.0", "7.1", 2))
        assert [(await world.router.observed()).weights for world in (shop, till)] == ends

    async def test_two_releases_of_one_environment_with_two_workers(
        self, store_url: str, tmp_path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two arms are moved at once by whichever of two workers has the lease: both have their share in the end."""
        monkeypatch.setattr("forge.core.release.decide.INTERVAL", 0.05)
        world = EngineWorld()
        plan = EnvironmentPlan("production", target_config={"command": ["true"], "replicas": 2}, judge="threshold")
        steps = tuple(StrategyStep(weight=weight) for weight in range(100, 1600, 100))
        up = Strategy("canary", (*steps, StrategyStep(pause=0.0, until_resumed=True)), keep_previous=60.0)
        first = Strategy("canary", (StrategyStep(weight=5000),), keep_previous=0.0)
        async with (
            Forge(store_url, tmp_path / "one", world, lease=1.0) as one,
            Forge(store_url, tmp_path / "two", world, lease=1.0) as two,
        ):
            await one.releases.wait("production", await one.deploy("1.0", first, plan=plan), lambda _line: None)
            await asyncio.gather(one.deploy("1.1", up, plan=plan), two.deploy("1.2", up, plan=plan))
            routed: list[tuple[int, dict[str, int]]] = []
            async with asyncio.timeout(60):
                while True:
                    state, table = await one.state(), await world.router.observed()
                    if table is not None and (not routed or routed[-1][0] != table.generation):
                        routed.append((table.generation, dict(table.weights)))
                    paused = [each for each in state.releases.values() if each.status == "paused"]
                    if len(paused) == 2:
                        break
                    await asyncio.sleep(0.02)
            assert (await world.router.observed()).weights == {"1.0": 7000, "1.1": 1500, "1.2": 1500}
        assert [number for number, _ in routed] == sorted(number for number, _ in routed)
        for arm in ("1.1", "1.2"):
            shares = [weights.get(arm, 0) for _, weights in routed]
            assert shares == sorted(shares), f"a change of {arm} was lost when the other one was moved"


def test_the_check_of_orphans_finds_one() -> None:
    world = World().established()
    world.deploy("2.0", canary("resume"), routes=[{"version": "", "header": "x", "value": "1"}])
    world.run(5)
    assert _orphans(world) == []
    table = world.state.traffic
    assert table is not None
    world.state = replace(world.state, traffic=replace(table, routes=(*table.routes, Route("1.9", header="x"))))
    assert [route.version for route in _orphans(world)] == ["1.9"]
