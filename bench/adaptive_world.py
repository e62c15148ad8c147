"""Requests and errors of two versions, second by second, for `bench.adaptive`: good, bad, and noisy ones."""

from __future__ import annotations

import math
from random import Random
from typing import NamedTuple

from forge.core.judge.evidence import Counts
from forge.simulate.draws import binomial, poisson


class Cell(NamedTuple):
    """Stable's error rate, requests a second, what is odd about the service, and the arm's fault (2: twice stable's)."""

    rate: float
    rps: float
    scenario: str = "clean"
    fault: float | None = None


class World:
    """The same seed gives the same seconds for the same questions in the same order."""

    def __init__(self, cell: Cell, seed: int) -> None:
        self.cell, self.rng = cell, Random(seed)
        self.noise = {name: self.rng.gauss(0, 0.5) for name in ("one", "two", "arm")}
        self.burst = (0.0, 0.0, 0.0)
        self.next_burst = self.rng.expovariate(1 / 180)

    def second(self, t: int, name: str, share: float) -> Counts:
        """Return what `name` (a half of stable, or the arm) answered in second `t` at this share of the traffic."""
        cell, rng, rate = self.cell, self.rng, self.cell.rate
        if name == "arm" and cell.fault is not None and t >= 0:
            rate = rate * cell.fault if cell.fault == 2.0 else cell.fault
        requests = poisson(rng, cell.rps * share)
        if cell.scenario == "bursts":
            rate = max(rate, self._shared(t))
        if cell.scenario == "arm noise":
            keep = math.exp(-1 / 30)
            self.noise[name] = keep * self.noise[name] + rng.gauss(0, 0.5 * math.sqrt(1 - keep * keep))
            rate *= math.exp(self.noise[name] - 0.125)
        if cell.scenario == "clumps":
            clumps = poisson(rng, requests * rate / 10)
            errors = sum(1 + int(math.log(1 - rng.random()) / math.log(0.9)) for _ in range(clumps))
            return Counts(requests, min(requests, errors))
        return Counts(requests, binomial(rng, requests, min(1.0, rate)))

    def _shared(self, t: int) -> float:
        if t >= self.next_burst:
            self.burst = (t, t + self.rng.uniform(5, 30), self.rng.uniform(0.02, 0.2))
            self.next_burst = self.burst[1] + self.rng.expovariate(1 / 180)
        return self.burst[2] if self.burst[0] <= t < self.burst[1] else 0.0
