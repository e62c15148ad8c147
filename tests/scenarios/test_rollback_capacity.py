"""Going back is as fast as ready capacity allows, and never faster: whatever was lost of the version to go back to."""

from __future__ import annotations

import pytest
from world import Behaviour, World, canary

from forge.model.strategy import Strategy
from forge.model.units import WHOLE

SLOW = Behaviour(ready_after=6.0)
STRATEGIES = {
    "canary": canary(50, 600.0),
    "canary at all of it": canary(50, 1.0, bake=600.0, thresholds=()),
    "rolling": Strategy("rolling", bake=600.0, thresholds=()),
    "blue-green": Strategy("blue_green", bake=600.0, thresholds=()),
}


def at_work(strategy: Strategy, share: int) -> World:
    """1.4 has `share` of the traffic beside 1.3, whose replicas take six seconds to get ready."""
    world = World(replicas=6, judge="none")
    world.behaviour["1.3"] = SLOW
    world.established()
    world.deploy("1.4", strategy, behaviour=SLOW)
    for _ in range(400):
        world.tick()
        if world.split.get("1.4", 0) >= share:
            return world
    raise AssertionError(f"never at {share}: {world.split}, {world.release().waits_for}")


def go_back(world: World, *, target: str = "1.3", leaves: str = "1.4", limit: int = 200) -> list[int]:
    """Tick until the target has everything; hold every step against what is ready at that instant."""
    weights = []
    for _ in range(limit):
        ready = {name: min(world.ready(name), 6) for name in (target, leaves) if name in world.running}
        world.tick()
        asked = world.asked.get(target, 0)
        can = -(-ready.get(target, 0) * WHOLE // 6)
        if sum(ready.values()) >= 6:
            assert asked <= can, (asked, can, ready)
            assert world.asked.get(leaves, 0) <= WHOLE - min(can, asked), world.asked
        weights.append(asked)
        if asked == WHOLE and world.split == {target: WHOLE}:
            return weights
    raise AssertionError(f"not back: {world.asked}, {world.log[-10:]}")


@pytest.mark.parametrize("lost", [0, 1, 3, 6])
@pytest.mark.parametrize("name", STRATEGIES)
def test_replicas_of_stable_that_are_broken_hold_it_up_and_no_longer(name: str, lost: int) -> None:
    world = at_work(STRATEGIES[name], 4000 if name in {"canary", "rolling"} else WHOLE)
    world.overload_allowed = True
    world.running["1.3"].broken = lost
    world.send("abort")
    for second in range(8):
        world.tick()
        mended = world.ready("1.3")
        assert world.release("1.4").status in {"rolling_back", "aborted"}
        if "1.4" not in world.running:
            break
        if mended + world.ready("1.4") >= 6:
            assert world.asked.get("1.3", 0) <= -(-mended * WHOLE // 6) or second == 0
    world.running["1.3"].broken = 0
    weights = go_back(world)
    assert len(weights) <= 12  # as soon as replicas are ready, and the router has followed
    assert world.until("aborted", version="1.4").status == "aborted"
    assert world.settle().asked == {"1.3": WHOLE}
    assert world.ready("1.3") == 6


@pytest.mark.parametrize("left", [0, 2, 5])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_stable_that_somebody_scaled_down_is_brought_back_and_takes_traffic_as_it_gets_ready(
    name: str, left: int
) -> None:
    world = at_work(STRATEGIES[name], 4000 if name in {"canary", "rolling"} else WHOLE)
    world.overload_allowed = True
    del world.running["1.3"].started[left:]
    world.running["1.3"].desired = left
    world.send("abort")
    weights = go_back(world)
    assert weights == sorted(weights) or name in {"canary", "rolling"}
    assert world.ready("1.3") == 6


@pytest.mark.parametrize("left", [0, 3])
def test_going_back_after_a_promotion_waits_for_replicas_and_takes_what_there_is(left: int) -> None:
    world = at_work(canary(50, 1.0, keep_previous=300.0, thresholds=()), WHOLE)
    world.until("promoted", version="1.4")
    del world.running["1.3"].started[left:]
    world.running["1.3"].desired = left
    world.tick()
    world.send("undo")
    weights = go_back(world)
    assert weights[0] <= left * WHOLE // 6 + 1
    assert weights == sorted(weights)


def test_what_goes_back_never_gets_more_again_also_when_stable_loses_replicas_meanwhile() -> None:
    """Too much for stable is bad; more for a version that was found bad is not the remedy."""
    world = at_work(STRATEGIES["blue-green"], WHOLE)
    world.overload_allowed = True
    world.running["1.3"].broken = 3
    world.send("abort")
    world.run(3)
    assert world.asked == {"1.3": 5000, "1.4": 5000}
    world.running["1.3"].broken = 4
    world.run(2)
    assert world.asked == {"1.3": 5000, "1.4": 5000}
    world.running["1.3"].broken = 0
    go_back(world)


def test_with_nobody_ready_anywhere_the_split_stays_until_somebody_is() -> None:
    world = at_work(STRATEGIES["canary"], 5000)
    world.overload_allowed = True
    before = dict(world.asked)
    world.running["1.3"].broken = world.running["1.4"].broken = 6
    world.send("abort")
    world.run(5)
    assert world.asked == before
    world.running["1.3"].broken = 0
    go_back(world)
