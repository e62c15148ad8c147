"""Months in which no version is worse than the one before: whatever is rolled back in them is a false alarm.

Each null is a way in which good versions look bad: by day and night, together with stable, in clumps, each by
itself for a while, replica by replica. The real core decides, under the default judge.
"""

from __future__ import annotations

import math

import msgspec

from forge.core.release.state import RELEASE_FINAL
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep
from forge.simulate.run import Simulation
from forge.simulate.story import Kind, People, Story
from forge.simulate.traffic import Shape
from forge.simulate.versions import Behaviour

STEP = 300.0
"""Seconds at 10 %, and again at 50 %."""
LOOK = 2.0
STRATEGY = Strategy(
    "canary",
    (StrategyStep(weight=1000), StrategyStep(pause=STEP), StrategyStep(weight=5000), StrategyStep(pause=STEP)),
    keep_previous=0.0,
)
CLEAN = Shape(rps=100.0)
NULLS: dict[str, tuple[Shape, Behaviour]] = {
    "clean": (CLEAN, Behaviour(ready_after=1.0)),
    "by day and night": (Shape(rps=100.0, diurnal=0.8), Behaviour(ready_after=1.0)),
    "shared bursts": (
        Shape(rps=100.0, burst_every=120.0, burst_lasts=10.0, burst_errors=0.2), Behaviour(ready_after=1.0),
    ),
    "clumps": (Shape(rps=100.0, clump=8.0), Behaviour(ready_after=1.0, errors=0.004)),
    "noisy arms": (Shape(rps=100.0, noise=0.5, noise_seconds=30.0), Behaviour(ready_after=1.0, errors=0.01)),
    "clumps, learnt": (Shape(rps=100.0, clump=8.0, told_apart=True), Behaviour(ready_after=1.0, errors=0.004)),
    "noisy arms, learnt": (
        Shape(rps=100.0, noise=0.5, noise_seconds=30.0, told_apart=True), Behaviour(ready_after=1.0, errors=0.01),
    ),
    "uneven replicas": (CLEAN, Behaviour(ready_after=1.0, errors=0.01, uneven=0.3)),
}  # fmt: skip


class FalseAlarms(msgspec.Struct, frozen=True):
    """What became of good releases in one null. `others` were ended by a person or did not finish."""

    null: str
    releases: int
    rolled_back: int
    promoted: int
    others: int
    decisions: int

    def at_most(self, confidence: float = 0.95) -> float:
        """Return the largest rate that these counts do not contradict (exact one-sided binomial bound)."""
        return upper_bound(self.rolled_back, self.releases, confidence)


def good_month(null: str, releases: int, seed: int = 1, judge: str = "sequential") -> Story:
    """Return the story of so many good releases, one after the other."""
    shape, how = NULLS[null]
    apart = 2 * STEP + 100.0
    return Story(
        name=null, seconds=releases * apart + 60.0, replicas=4, shape=shape, first=how, kinds=(Kind(how),),
        sequence=tuple((place * apart, 0) for place in range(releases)), strategy=STRATEGY,
        plan=EnvironmentPlan("production", judge=judge, policy={"on_overlap": "queue"}), look=LOOK, seed=seed,
        people=People(5.0, "promote"),
    )  # fmt: skip


def false_alarms(null: str, releases: int, seed: int = 1, judge: str = "sequential") -> FalseAlarms:
    """Play a month of good releases under a judge and count."""
    simulation = Simulation(good_month(null, releases, seed, judge))
    simulation.play()
    told = simulation.report().releases
    final = [each for each in told if each.status in RELEASE_FINAL]
    back = sum(each.outcome == "false_alarm" for each in final)
    promoted = sum(each.outcome == "promoted" for each in final)
    return FalseAlarms(null, len(final), back, promoted, len(told) - back - promoted, simulation.decisions)


def upper_bound(hits: int, trials: int, confidence: float) -> float:
    """Return the rate at which so few hits in so many trials have the probability 1 - confidence (Clopper-Pearson)."""
    if hits >= trials:
        return 1.0
    low, high = hits / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(hits, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(hits: int, trials: int, rate: float) -> float:
    """Return the probability of at most so many hits."""
    return math.fsum(math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(hits + 1))
