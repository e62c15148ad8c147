"""A scenario in full: the service, its users, the versions that are released, the policy, the faults, the people."""

from __future__ import annotations

import math
from random import Random
from typing import Literal

import msgspec

from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.simulate.faults import Fault, FaultKind
from forge.simulate.traffic import DAY, Shape
from forge.simulate.versions import Behaviour

MONDAY = 1_767_571_200.0
"""Where stories begin: Monday, 5 January 2026, 00:00 UTC."""
SETTLING = 600.0
"""Seconds that the first version has before the story begins to be told."""


class Kind(msgspec.Struct, frozen=True):
    """A kind of version: how it behaves, and its share of all versions."""

    behaviour: Behaviour
    share: float = 1.0


class Occasion(msgspec.Struct, frozen=True):
    """When something happens: at `at` seconds of the story, or `every` so many seconds in the mean."""

    at: float | None = None
    every: float | None = None

    def times(self, rng: Random, seconds: float) -> list[float]:
        """Return the times in a story of so many seconds."""
        if self.at is not None:
            return [self.at] if self.at < seconds else []
        found, at = [], 0.0
        while self.every and (at := at + rng.expovariate(1 / self.every)) < seconds:
            found.append(at)
        return found


class FaultPlan(msgspec.Struct, frozen=True):
    """A fault of the world, once or again and again."""

    kind: FaultKind
    when: Occasion
    lasts: float = 60.0
    amount: float = 0.5
    version: str = ""


class People(msgspec.Struct, frozen=True):
    """What the person on duty does, `after` so many seconds, when Forge asks for one."""

    after: float = 900.0
    paused: Literal["resume", "promote", "abort", "nothing"] = "resume"
    approves: bool = True
    tries: int = 3
    """After so many answers to the same release it is aborted."""


class Deed(msgspec.Struct, frozen=True):
    """A command that somebody gives at a time of the story."""

    at: float
    kind: str


class Story(msgspec.Struct, frozen=True):
    """Everything that a simulation needs but its seed. Times are seconds from the beginning."""

    name: str = "simulation"
    seconds: float = 30 * DAY
    replicas: int = 4
    shape: Shape = Shape()
    headroom: float = 1.5
    first: Behaviour = Behaviour()
    kinds: tuple[Kind, ...] = (Kind(Behaviour()),)
    sequence: tuple[tuple[float, int], ...] = ()
    """Releases at given times: (seconds, number of the kind)."""
    every: float = 0.0
    """Mean time between further releases; 0: none."""
    releases: int = 0
    """At most so many; 0: as many as there are."""
    strategy: Strategy = Strategy("canary")
    plan: EnvironmentPlan = EnvironmentPlan("production")
    faults: tuple[FaultPlan, ...] = ()
    people: People = People()
    deeds: tuple[Deed, ...] = ()
    look: float = 0.0
    """Forge looks no more often than each so many seconds, for stories of very many releases; 0: as it does."""
    seed: int = 1

    def releases_in(self, rng: Random) -> list[tuple[float, int]]:
        """Return all releases of the story: (seconds, number of the kind), in order."""
        drawn = [(at, self._kind(rng)) for at in Occasion(every=self.every or None).times(rng, self.seconds)]
        found = sorted(each for each in (*self.sequence, *drawn) if each[0] < self.seconds)
        return found[: self.releases] if self.releases else found

    def faults_in(self, rng: Random, start: float) -> list[Fault]:
        """Return all faults of the story, at absolute times."""
        return [
            Fault(plan.kind, start + at, plan.lasts, plan.amount, plan.version)
            for plan in self.faults
            for at in plan.when.times(rng, self.seconds)
        ]

    def _kind(self, rng: Random) -> int:
        drawn = rng.random() * math.fsum(kind.share for kind in self.kinds)
        for number, kind in enumerate(self.kinds):
            drawn -= kind.share
            if drawn < 0:
                return number
        return len(self.kinds) - 1
