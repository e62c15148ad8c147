"""A12: the mean of the latency stays, its spread does not. Judges of means see nothing.

An explosion is harm to those who wait, and is named as what it is. A collapse is none: nobody waits longer than
before, or hardly, and nothing speaks against such a release.
"""

from __future__ import annotations

import pytest
from world import Behaviour, World, canary

STEADY = tuple(0.11 + 0.005 * index for index in range(26))
"""0.11 to 0.235 s, 0.17 s in the mean."""
WIDE = (0.03, 0.03, 0.03, 0.03, 0.75)
"""0.17 s in the mean too: four of five requests are quicker, and the fifth takes four times as long."""
NARROW = (0.172,)
STEPS = (10, 300.0, 50, 300.0)


def released(stable: tuple[float, ...], arm: tuple[float, ...]) -> World:
    world = World(rps=100)
    world.behaviour["1.3"] = Behaviour(latencies=stable)
    world.established()
    world.run(40)
    world.deploy("1.4", canary(*STEPS), behaviour=Behaviour(latencies=arm))
    return world


def test_an_explosion_is_found_and_named() -> None:
    assert sum(STEADY) / len(STEADY) == pytest.approx(sum(WIDE) / len(WIDE), rel=0.02)
    world = released(STEADY, WIDE)
    release = world.until("rolled_back", "promoted", "paused", limit=1200)
    assert release.status == "rolled_back"
    assert release.failed_requests == 0
    assert "another variance than stable, not another mean" in release.reason
    assert "p95 242 ms to" in release.reason
    shown = release.verdict.data["shapes"]
    assert shown["change"] == "spread"
    assert shown["arm"]["p50"] < shown["stable"]["p50"]
    assert shown["arm"]["p99"] > 2 * shown["stable"]["p99"]
    assert not [line for line in world.events("traffic") if "1.4 50%" in line], "it never got to its second step"


def test_a_collapse_is_no_harm() -> None:
    """Values as wide as `STEADY` and more, and then all the same; both in the mean 0.17 s."""
    world = released((0.06, *STEADY, 0.28), NARROW)
    release = world.until("rolled_back", "promoted", "paused", limit=1200)
    assert release.status == "promoted"


def test_slower_on_the_whole_is_called_that() -> None:
    release = released(STEADY, tuple(3 * each for each in STEADY)).until("rolled_back", "promoted", limit=1200)
    assert release.status == "rolled_back"
    assert "answers more slowly than stable (p5 " in release.reason
    assert "variance" not in release.reason
