"""How many requests come, and what goes wrong with them whoever answers: day and night, bursts, clumps, noise."""

from __future__ import annotations

import math
from random import Random

import msgspec

from forge.simulate.draws import poisson

DAY = 86_400.0


class Shape(msgspec.Struct, frozen=True):
    """The traffic of one service. Rates are requests a second, times are seconds, shares are fractions."""

    rps: float = 100.0
    """The mean over a day."""
    diurnal: float = 0.0
    """How far the rate goes up by day and down by night, as a part of the mean."""
    peak: float = 14 * 3600.0
    """The time of day with the most requests."""
    burst_every: float = 0.0
    """Mean time between bursts in which requests fail whoever answers (a dependency is down); 0: never."""
    burst_lasts: float = 20.0
    burst_errors: float = 0.1
    clump: float = 1.0
    """How many failures come together in the mean: 1 is independent."""
    noise: float = 0.0
    """How much each version's own error rate wanders (sigma of its logarithm)."""
    noise_seconds: float = 30.0
    """How long such a deviation lasts."""
    users: int = 0
    """So many people are there at a time, who come back to the version that answered them; 0: nobody is sticky."""
    stay: float = 600.0
    """How long each of them stays in the mean."""
    told_apart: bool = False
    """Whether readings tell a version's replicas apart, so that a judge can learn from them how failures come."""


class Traffic:
    """Draws arrivals. Everything random comes from `rng`, so that a seed tells the whole history."""

    def __init__(self, shape: Shape, rng: Random, start: float) -> None:
        self.shape = shape
        self._rng = rng
        self._burst = (0.0, 0.0)
        if shape.burst_every > 0:
            self._plan_burst(start)

    def rate(self, at: float) -> float:
        """Return the expected requests a second at a time."""
        if not self.shape.diurnal:
            return self.shape.rps
        turn = math.cos(2 * math.pi * (at % DAY - self.shape.peak) / DAY)
        return self.shape.rps * max(0.0, 1 + self.shape.diurnal * turn)

    def arrivals(self, at: float, seconds: float) -> int:
        """Return how many requests came in the seconds that end at `at`."""
        return poisson(self._rng, self.rate(at - seconds / 2) * seconds)

    def shared_errors(self, at: float, seconds: float) -> float:
        """Return the part of requests that fails whoever answers, in the seconds that end at `at`."""
        if self.shape.burst_every <= 0:
            return 0.0
        while at - seconds >= self._burst[1]:
            self._plan_burst(self._burst[1])
        begin, end = self._burst
        inside = min(at, end) - max(at - seconds, begin)
        return self.shape.burst_errors * max(0.0, inside) / seconds if seconds > 0 else 0.0

    def _plan_burst(self, after: float) -> None:
        begin = after + self._rng.expovariate(1 / self.shape.burst_every)
        self._burst = (begin, begin + self.shape.burst_lasts * (0.5 + self._rng.random()))


class Wander:
    """One version's own wandering error rate: a factor around 1 that forgets itself over `noise_seconds`."""

    def __init__(self, shape: Shape, rng: Random) -> None:
        self._sigma, self._memory = shape.noise, max(1e-9, shape.noise_seconds)
        self._rng = rng
        self._level = rng.gauss(0.0, self._sigma) if self._sigma else 0.0

    def factor(self, seconds: float) -> float:
        """Return the factor `seconds` later; its mean is 1."""
        if not self._sigma:
            return 1.0
        keep = math.exp(-seconds / self._memory)
        self._level = keep * self._level + self._rng.gauss(0.0, self._sigma * math.sqrt(1 - keep * keep))
        return math.exp(self._level - self._sigma * self._sigma / 2)
