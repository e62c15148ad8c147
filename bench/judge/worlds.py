"""Releases second by second: 5, 25 and 50 % of the traffic for 300 s each, then all of it for 300 s."""

from __future__ import annotations

import math
from functools import cached_property
from random import Random
from typing import NamedTuple

from forge.core.judge.calibrate import Calibration, calibrate
from forge.core.judge.evidence import Counts
from forge.model.traffic import Sample
from forge.simulate.draws import binomial, poisson

HISTORY, COMPARED, SECONDS = 1800, 900, 1200
"""Seconds before the release, with a stable version beside it, and in all."""
WEIGHTS = (0.05, 0.25, 0.5, 1.0)
NULLS = ("clean", "diurnal", "bursts", "clumps", "arm noise")
MEMORY = 30.0


class Cell(NamedTuple):
    """One kind of release: stable's error rate, requests a second, what is odd about it, and the arm's fault.

    `times` multiplies stable's rate; `fault` replaces it.
    """

    rate: float
    rps: float
    scenario: str = "clean"
    fault: float | None = None
    times: float = 1.0

    @property
    def good(self) -> bool:
        return self.fault is None and self.times == 1.0


class World:
    """Requests and errors of any version, second by second."""

    def __init__(self, cell: Cell, seed: int) -> None:
        self.cell, self.rng = cell, Random(f"{cell}/{seed}")
        self.noise = {name: self.rng.gauss(0, 0.5) for name in ("one", "two", "arm")}
        self.burst = (0.0, 0.0, 0.0)
        self.next_burst = -HISTORY + self.rng.expovariate(1 / 180)

    def second(self, t: int, name: str, share: float) -> Counts:
        cell, rng = self.cell, self.rng
        rate, rps = cell.rate, cell.rps
        if cell.scenario == "diurnal":
            rate *= 1 + 0.5 * math.sin(2 * math.pi * t / 1200)
            rps *= 1 + 0.3 * math.sin(2 * math.pi * t / 900)
        if name == "arm" and t >= 0:
            rate = rate * cell.times if cell.fault is None else cell.fault
        requests = poisson(rng, rps * share)
        if cell.scenario == "bursts":
            rate = max(rate, self._shared(t))
        if cell.scenario == "arm noise":
            keep = math.exp(-1 / MEMORY)
            self.noise[name] = keep * self.noise[name] + rng.gauss(0, 0.5 * math.sqrt(1 - keep * keep))
            rate *= math.exp(self.noise[name] - 0.125)
        if cell.scenario == "clumps":
            errors = sum(
                1 + int(math.log(1 - rng.random()) / math.log(0.9)) for _ in range(poisson(rng, requests * rate / 10))
            )
            return Counts(requests, min(requests, errors))
        return Counts(requests, binomial(rng, requests, min(1.0, rate)))

    def _shared(self, t: int) -> float:
        while t >= self.next_burst:
            self.burst = (t, t + self.rng.uniform(5, 30), self.rng.uniform(0.02, 0.2))
            self.next_burst = self.burst[1] + self.rng.expovariate(1 / 180)
        return self.burst[2] if self.burst[0] <= t < self.burst[1] else 0.0


class Total(NamedTuple):
    """Cumulative counts: item t is what was counted in the first t seconds."""

    requests: list[int]
    errors: list[int]

    @classmethod
    def begun(cls) -> Total:
        return cls([0], [0])

    def add(self, counts: Counts) -> None:
        self.requests.append(self.requests[-1] + counts.requests)
        self.errors.append(self.errors[-1] + counts.errors)

    def rate(self, since: int, until: int) -> float:
        """Return the part that failed from `since` to `until`; 0 where nothing was asked."""
        since = max(0, since)
        requests = self.requests[until] - self.requests[since]
        return (self.errors[until] - self.errors[since]) / requests if requests else 0.0

    def samples(self, until: int) -> list[Sample]:
        """Return the readings at 0, 1, 2 … `until` seconds."""
        counts = zip(self.requests[: until + 1], self.errors[: until + 1], strict=True)
        return [Sample(float(t), requests, errors) for t, (requests, errors) in enumerate(counts)]


class Release:
    """What was read of one release: stable's two halves before it, then stable and the arm."""

    def __init__(self, cell: Cell, seed: int, *, history: int = HISTORY, seconds: int = SECONDS) -> None:
        world = World(cell, seed)
        self.cell, self.seconds = cell, seconds
        self.past = [(world.second(t, "one", 0.5), world.second(t, "two", 0.5)) for t in range(-history, 0)]
        self.stable, self.arm = Total.begun(), Total.begun()
        for t in range(seconds):
            weight = WEIGHTS[t // 300]
            halves = [world.second(t, name, (1 - weight) / 2) for name in ("one", "two")]
            self.stable.add(halves[0] + halves[1])
            self.arm.add(world.second(t, "arm", weight))

    @cached_property
    def calibration(self) -> Calibration:
        """What the history says of clumps and of how long errors are correlated."""
        return calibrate(self.past)

    @cached_property
    def whole(self) -> Total:
        """What both versions answered together."""
        pairs = zip(self.stable.requests, self.arm.requests, strict=True)
        errors = zip(self.stable.errors, self.arm.errors, strict=True)
        return Total([sum(pair) for pair in pairs], [sum(pair) for pair in errors])
