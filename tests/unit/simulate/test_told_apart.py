"""Readings that tell replicas apart: they add up, failures come in clumps on one replica, and a judge learns that."""

from __future__ import annotations

from random import Random

import pytest

from forge.core.judge.history import calibration_of
from forge.model.decision import Action
from forge.model.traffic import Sample, Version
from forge.simulate.nulls import good_month
from forge.simulate.run import Simulation
from forge.simulate.traffic import Shape
from forge.simulate.versions import Behaviour
from forge.simulate.world import World


def serving(shape: Shape, how: Behaviour, seconds: float = 600.0, replicas: int = 4) -> tuple[World, Sample]:
    world = World(shape, Random(5), 0.0)
    version = Version("1.0", config={"replicas": replicas})
    world.behaviours["1.0"] = how
    world.perform(Action("ensure#1:1.0", "ensure", {"version": "1.0", "replicas": replicas}), version)
    world.advance(30.0)
    table = {"weights": {"1.0": 10_000}, "generation": 2}
    world.perform(Action("traffic#2", "traffic", {"table": table}), None)
    world.advance(30.0 + seconds)
    return world, world.meters.read(["1.0"])["1.0"]


@pytest.mark.parametrize("clump", [1.0, 8.0])
def test_replicas_add_up_to_their_version(clump: float) -> None:
    _, sample = serving(Shape(rps=200.0, clump=clump, told_apart=True), Behaviour(errors=0.02))
    assert len(sample.groups) == 4
    assert sum(requests for _, requests, _ in sample.groups) == sample.requests > 100_000
    assert sum(errors for _, _, errors in sample.groups) == sample.errors > 1000
    assert all(abs(requests / sample.requests - 0.25) < 0.02 for _, requests, _ in sample.groups)


def test_without_it_nobody_tells_them_apart() -> None:
    _, sample = serving(Shape(rps=200.0), Behaviour(errors=0.02))
    assert sample.groups == ()


def test_a_worse_replica_fails_more() -> None:
    world, sample = serving(Shape(rps=500.0, told_apart=True), Behaviour(errors=0.02, uneven=1.0))
    factors = {replica.name: replica.factor for replica in world.replicas.running["1.0"].replicas}
    rates = {name: errors / requests for name, requests, errors in sample.groups}
    assert sorted(factors, key=factors.__getitem__) == sorted(rates, key=rates.__getitem__)


def test_a_source_that_restarts_begins_at_nothing() -> None:
    world, before = serving(Shape(rps=200.0, told_apart=True), Behaviour(errors=0.02))
    world.meters.reset()
    world.advance(world.now + 10.0)
    after = world.meters.read(["1.0"])["1.0"]
    assert after.requests > before.requests
    assert sum(requests for _, requests, _ in after.groups) < before.requests / 10


def test_the_judge_learns_from_them_that_failures_come_together() -> None:
    learnt = {}
    for null in ("clumps, learnt", "clumps"):
        simulation = Simulation(good_month(null, 3))
        simulation.play()
        learnt[null] = calibration_of(simulation.state.own_history)
    assert learnt["clumps, learnt"].seconds > 1200
    assert learnt["clumps"].seconds == 0
    # Geometric clumps of 8 in the mean: a failure stands in one of 15; the judge takes a multiple of what it saw.
    assert 8 < learnt["clumps, learnt"].clump < 80
