"""A17: sticky users at 10 % for two hours: the share stays 10 percent, give or take one."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import pytest
from local_environment import Connection, LocalWorld, new_world

from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep
from forge.simulate.run import Simulation
from forge.simulate.story import Kind, Story
from forge.simulate.traffic import Shape
from forge.simulate.versions import Behaviour

__all__ = ["new_world"]

HOURS = 2 * 3600.0
AT_TEN = Strategy("canary", (StrategyStep(weight=1000), StrategyStep(pause=HOURS)), keep_previous=0.0)
USERS = 20_000


@pytest.mark.parametrize(("stay", "begin"), [(60.0, 600.0), (600.0, 2400.0), (1e9, 0.0)])
def test_for_two_hours_at_ten_percent_the_share_stays(stay: float, begin: float) -> None:
    """Whether users come and go or stay for ever: in each five minutes 9 to 11 % of the requests.

    Those who were there before the release leave within `begin` seconds; where nobody ever leaves, all come anew.
    """
    story = Story(
        seconds=HOURS + 600.0, shape=Shape(rps=200.0, users=USERS, stay=stay), strategy=AT_TEN,
        plan=EnvironmentPlan("production", judge="threshold", router_config={"sticky": True}),
        kinds=(Kind(Behaviour(ready_after=1.0)),), sequence=((0.0, 0),),
    )  # fmt: skip
    simulation = Simulation(story, checked=True)
    users, truth = simulation.world.users, simulation.world.truth
    assert users is not None
    marks: list[tuple[float, int, int]] = []
    while simulation.step() is not None:
        if simulation.world.router.split.get("v1") != 1000:
            continue
        now = simulation.world.now
        if not marks and not begin:
            users.pinned.clear()
        if not marks or now - marks[-1][0] >= 300.0:
            marks.append((now, truth("v0").requests, truth("v1").requests))
    assert simulation.state.traffic is not None
    assert simulation.state.traffic.sticky
    settled = [mark for mark in marks if mark[0] - marks[0][0] >= begin]
    assert settled[-1][0] - settled[0][0] >= HOURS - begin - 600.0
    for (_, old, new), (_, old_after, new_after) in pairwise(settled):
        share = (new_after - new) / (old_after - old + new_after - new)
        assert 0.09 <= share <= 0.11


def test_users_who_were_there_before_stay_with_the_old_version() -> None:
    """Why the share is told from what the proxy counts and not from the weight: sticky users come in slowly."""
    story = Story(
        seconds=1800.0, shape=Shape(rps=200.0, users=USERS, stay=3600.0), strategy=AT_TEN,
        plan=EnvironmentPlan("production", judge="threshold", router_config={"sticky": True}),
        kinds=(Kind(Behaviour(ready_after=1.0)),), sequence=((0.0, 0),),
    )  # fmt: skip
    simulation = Simulation(story)
    simulation.play()
    (told,) = simulation.report().releases
    share = told.requests / (200.0 * 1800.0)
    assert 0.005 < share < 0.05


class TestTheRealProxy:
    """Thousands of people with cookies, through Envoy, in seconds instead of hours."""

    async def _ask(self, world: LocalWorld, cookies: list[str], clients: int = 8) -> list[tuple[str, str]]:
        """Let everybody ask once; return (version, cookie) for each. An empty cookie: a new user."""
        address = await world.router.address()
        answers: list[tuple[str, str]] = [("", "")] * len(cookies)

        async def some(first: int) -> None:
            connection = Connection(address)
            for index in range(first, len(cookies), clients):
                headers = {"cookie": cookies[index]} if cookies[index] else {}
                reply = await connection.get(**headers)
                assert reply.code == 200
                given = reply.header("set-cookie").split(";")[0]
                answers[index] = (reply.version, given or cookies[index])
            connection.close()

        await asyncio.gather(*(some(number) for number in range(clients)))
        return answers

    async def test_users_are_shared_out_at_ten_percent_and_come_back(self, new_world) -> None:
        world: LocalWorld = new_world()
        await world.up("1.0", "1.1", replicas=2)
        await world.split(sticky=True, _1_0=9000, _1_1=1000)
        first = await self._ask(world, [""] * 9000)
        share = Counter(version for version, _ in first)["1.1"] / len(first)
        assert 0.09 <= share <= 0.11
        known = [cookie for _, cookie in first]
        assert all(known), "everybody got a cookie, those of the stable version too"
        for _ in range(2):  # who comes back gets what they had
            again = await self._ask(world, known[:1500])
            assert [version for version, _ in again] == [version for version, _ in first[:1500]]

    async def test_a_larger_weight_moves_nobody_back(self, new_world) -> None:
        world: LocalWorld = new_world()
        await world.up("1.0", "1.1")
        await world.split(sticky=True, _1_0=9000, _1_1=1000)
        first = await self._ask(world, [""] * 1000)
        known = [cookie for _, cookie in first]
        for weight in (2500, 5000):
            await world.split(sticky=True, _1_0=10_000 - weight, _1_1=weight)
            again = await self._ask(world, known)
            assert [version for version, _ in again] == [version for version, _ in first]
            new = Counter(version for version, _ in await self._ask(world, [""] * 1000))
            assert abs(new["1.1"] / 1000 - weight / 10_000) < 0.08
        await world.split(sticky=True, _1_0=10_000)
        assert {version for version, _ in await self._ask(world, known)} == {"1.0"}
