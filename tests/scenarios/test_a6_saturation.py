"""A6: the mean over all replicas hides an overloaded canary; what stops the ramp is the canary's own saturation."""

from __future__ import annotations

import pytest
from world import Behaviour, World, canary

from forge.model.strategy import Threshold
from forge.model.units import WHOLE

REPLICAS = 8
RPS = 400
CALM = Behaviour(cpu_per_request=0.005)
HUNGRY = Behaviour(cpu_per_request=0.045)
TARGET = 0.5
"""Cores of a replica at which an autoscaler that looks at the mean of all would begin to act."""


class Means:
    """What such an autoscaler sees, and what the canary's replicas really do, in each tick."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.of_all: list[float] = []
        self.of_the_canary: list[float] = []

    def tick(self) -> None:
        before = {name: counters.cpu for name, counters in self.world.counters.items()}
        self.world.tick()
        used = {name: each.cpu - before.get(name, 0.0) for name, each in self.world.counters.items()}
        ready = {name: self.world.ready(name) for name in self.world.running}
        self.of_all.append(sum(used.values()) / max(1, sum(ready.values())))
        if ready.get("1.4") and self.world.split.get("1.4"):
            self.of_the_canary.append(used["1.4"] / ready["1.4"])


def released(how: Behaviour, *thresholds: Threshold) -> tuple[World, Means]:
    world = World(replicas=REPLICAS, rps=RPS)
    world.behaviour["1.3"] = CALM
    world.established()
    world.run(60)
    world.deploy("1.4", canary(5, 600.0, 50, 600.0, thresholds=thresholds), behaviour=how)
    means = Means(world)
    means.tick()
    return world, means


RULE = (Threshold("cpu", 0.8, 30.0),)


@pytest.mark.parametrize(
    ("rules", "words"),
    [(RULE, "used 0.90 cores"), ((), "uses more than stable")],
    ids=["by a check", "by comparison alone"],
)
def test_a6_an_overloaded_canary_never_gets_to_its_next_step(rules: tuple[Threshold, ...], words: str) -> None:
    world, means = released(HUNGRY, *rules)
    while world.release().status not in {"rolled_back", "promoted"}:
        means.tick()
        assert world.asked.get("1.4", 0) <= 500
    assert world.release().status == "rolled_back"
    assert world.split == {"1.3": WHOLE}
    assert max(means.of_all) < TARGET, "who looks at the mean of all replicas sees nothing"
    assert max(means.of_the_canary) > 0.8
    assert words in world.release().reason
    assert world.release().failed_requests == 0, "it was stopped before anybody noticed"


@pytest.mark.parametrize("rules", [RULE, ()], ids=["by a check", "by comparison alone"])
def test_a6_one_that_needs_what_stable_needs_goes_on(rules: tuple[Threshold, ...]) -> None:
    world, means = released(CALM, *rules)
    while world.release().status not in {"rolled_back", "promoted"}:
        means.tick()
    assert world.release().status == "promoted"
    assert max(means.of_all) < TARGET
