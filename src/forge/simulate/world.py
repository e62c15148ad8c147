"""One service in virtual time: versions on a target, users before a router, counters; and what is wrong with them.

Nothing here decides anything: the world is what target, router and signals would show and do. `advance` lets
time pass; all else happens at the present moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import msgspec

from forge.model.decision import Action, Outcome
from forge.model.errors import DependencyFailed
from forge.model.traffic import Observation, TrafficTable, Version
from forge.model.units import WHOLE
from forge.simulate.draws import clumped, spread
from forge.simulate.faults import Fault, Weather
from forge.simulate.meters import Meter, Meters
from forge.simulate.replicas import Replica, Replicas, Running
from forge.simulate.router import SplitRouter
from forge.simulate.traffic import Shape, Traffic, Wander
from forge.simulate.users import Users
from forge.simulate.versions import Behaviour, bucket_shares

LONGEST_STRIDE = 900.0
"""While nobody looks, traffic is counted in strides of at most so many seconds."""
QUICK_STRIDE = 5.0
SHORTEST_STRIDE = 0.001
"""A fault that happens at a moment happens then, and not when somebody looks next."""


class World:
    """The world of one environment. The same seed gives the same history for the same deeds."""

    def __init__(
        self,
        shape: Shape,
        rng: Random,
        start: float,
        faults: Iterable[Fault] = (),
        *,
        headroom: float = 1.5,
        stride: float = 0.0,
    ) -> None:
        """`headroom`: how much more than the peak a version at its full size can carry.

        `stride`: traffic of several versions is counted in strides of so many seconds at least.
        """
        self.now = start
        self.weather = Weather(faults)
        self.traffic = Traffic(shape, rng, start)
        self.behaviours: dict[str, Behaviour] = {}
        self.replicas = Replicas(lambda: self.now, self.weather, rng, self.behaviour)
        self.router = SplitRouter(lambda: self.now, self.weather, self.replicas)
        self.meters = Meters(lambda: self.now, self.weather)
        self.generations: dict[str, int] = {}
        self.forgot = False
        """Whether Forge lost its memory since the last look; who reads it sets it back."""
        self.users = Users(rng, shape.users, shape.stay) if shape.users else None
        self._apart = Random(shape.clump) if shape.told_apart else None  # noqa: S311  a story, no secret
        self._rng, self._shape = rng, shape
        self._stride = max(QUICK_STRIDE, stride)
        self._peak = shape.rps * (1 + shape.diurnal) * headroom
        self._wander: dict[str, Wander] = {}
        self._shares: dict[tuple[float, float], tuple[float, ...]] = {}

    def behaviour(self, version: str) -> Behaviour:
        """Return how the version behaves."""
        return self.behaviours.get(version, _ORDINARY)

    # --- time

    def advance(self, to: float) -> None:
        """Let time pass: faults begin and end, users send requests."""
        while self.now < to:
            stride = self._stride if len(self.router.split) > 1 else max(self._stride, LONGEST_STRIDE)
            until = min(to, self.now + stride, max(self.weather.next_at(), self.now + SHORTEST_STRIDE))
            seconds, self.now = until - self.now, until
            for fault in self.weather.step(self.now):
                self._strike(fault)
            self._serve(seconds)

    def _strike(self, fault: Fault) -> None:
        if fault.kind == "metrics_reset":
            self.meters.reset()
        elif fault.kind == "forgets":
            self.forgot = True
        else:
            self.replicas.strike(fault)

    def _serve(self, seconds: float) -> None:
        split = self.router.split
        if not split:
            return
        arrived = self.traffic.arrivals(self.now, seconds)
        shared = self.traffic.shared_errors(self.now, seconds)
        shares = self.users.shares(split, seconds) if self.users else tuple(each / WHOLE for each in split.values())
        counts = spread(self._rng, arrived, shares)
        normal = min((self.behaviour(version).errors for version in split), default=0.0)
        for version, requests in zip(split, counts, strict=True):
            self._answer(version, requests, shared, normal, seconds)

    def _answer(self, version: str, requests: int, shared: float, normal: float, seconds: float) -> None:
        how, running = self.behaviour(version), self.replicas.running.get(version)
        meter = self.meters.meter(version)
        age = self.now - meter.first if meter.first is not None else 0.0
        own = self._own_rate(how, running, age) * self._deviation(version, running, seconds)
        refused = self._overload(running, requests, seconds)
        chance = 1 - (1 - min(1.0, own)) * (1 - shared) * (1 - refused)
        errors = clumped(self._rng, requests, chance, self._shape.clump)
        self.meters.count(version, requests, errors, self._latency(how, requests))
        meter.excess += requests * (chance - (1 - (1 - normal) * (1 - shared)))
        if self._apart is not None and running is not None:
            _tell_apart(self._apart, meter, running.up(self.now), requests, errors, self._shape.clump)
        meter.cpu += requests * how.cpu
        meter.memory = how.memory + int(how.leak * age)

    def _deviation(self, version: str, running: Running | None, seconds: float) -> float:
        """By how much the version's error rate is off by itself: as a whole, or, told apart, each replica alone."""
        if self._apart is None or running is None:
            return self._wandering(version).factor(seconds)
        factors = []
        for replica in running.up(self.now):
            replica.deviates = self._wandering(replica.name).factor(seconds)
            factors.append(replica.deviates)
        return sum(factors) / len(factors) if factors else 1.0

    def _wandering(self, name: str) -> Wander:
        return self._wander.get(name) or self._wander.setdefault(name, Wander(self._shape, self._rng))

    def _own_rate(self, how: Behaviour, running: Running | None, age: float) -> float:
        """The mean over the replicas that answer: each is as bad as it is, and worse while it warms up."""
        rate = how.error_rate(age)
        if running is None or not (how.uneven or how.warm_up):
            return rate
        rates = [
            rate * each.factor + (how.warm_up_errors if self.now - each.ready_at < how.warm_up else 0.0)
            for each in running.replicas
            if each.ready_at <= self.now
        ]
        return sum(rates) / len(rates) if rates else rate

    def _overload(self, running: Running | None, requests: int, seconds: float) -> float:
        """The part of requests that nobody can answer: no ready replica, or too few of them."""
        ready = self.replicas.ready(running.version.id) if running else 0
        if running is None or not ready:
            return 1.0
        full = running.version.config.get("replicas", 2)
        can = self._peak * ready / max(1, full) * max(1.0, seconds)  # what comes in a moment may queue for a second
        return max(0.0, 1 - can / requests) if requests > can else 0.0

    def _latency(self, how: Behaviour, requests: int) -> list[int]:
        key = (how.latency, how.tail)
        shares = self._shares.get(key) or self._shares.setdefault(key, bucket_shares(*key))
        return spread(self._rng, requests, shares)

    # --- what Forge sees and does

    def observe(self, versions: list[str]) -> Observation:
        """Return what can be seen now; what cannot is None, with the reason."""
        problems: list[str] = []
        replicas = weights = samples = generation = None
        try:
            replicas = self.replicas.observe()
        except DependencyFailed as error:
            problems.append(f"replicas: {error.message}")
        try:
            table = self.router.observed()
            weights = dict(table.weights) if table else {}
            generation = table.generation if table else 0
        except DependencyFailed as error:
            problems.append(f"traffic: {error.message}")
        try:
            samples = self.meters.read(versions)
        except DependencyFailed as error:
            problems.append(f"metrics: {error.message}")
        return Observation(self.now, replicas, weights, samples, "; ".join(problems), generation)

    def perform(self, action: Action, version: Version | None) -> Outcome:
        """Do what Forge asks for. What is older than the newest wish of its kind is not done any more."""
        kind, _, rest = action.key.partition("#")
        number, _, name = rest.partition(":")
        slot = name or kind
        if int(number) < self.generations.get(slot, 0):
            return Outcome(action.key, "succeeded", self.now, "out of date: a newer wish follows")
        self.generations[slot] = int(number)
        try:
            if action.kind == "traffic":
                self.router.apply(msgspec.convert(action.payload["table"], TrafficTable))
            elif action.kind == "remove":
                self.replicas.remove(action.payload["version"])
            elif version is not None:
                self.replicas.ensure(version, int(action.payload["replicas"]))
        except DependencyFailed as error:
            return Outcome(action.key, "error", self.now, error.message)
        return Outcome(action.key, "succeeded", self.now)

    def truth(self, version: str) -> Meter:
        """Return what users really experienced of a version."""
        return self.meters.of.get(version) or Meter()

    def forget(self, version: str) -> None:
        """Drop what is kept of a version that will never come back."""
        self.meters.forget(version)
        for name in [name for name in self._wander if name == version or name.startswith(f"{version}/")]:
            del self._wander[name]
        self.behaviours.pop(version, None)
        self.generations.pop(version, None)


_ORDINARY = Behaviour()


def _tell_apart(
    rng: Random, meter: Meter, replicas: list[Replica], requests: int, errors: int, clump: float
) -> None:  # fmt: skip
    """Count by replica: requests evenly, failures in clumps that each meet one replica, the worse ones more often."""
    if not replicas:
        return
    for replica, count in zip(replicas, spread(rng, requests, (1 / len(replicas),) * len(replicas)), strict=True):
        meter.groups.setdefault(replica.name, [0, 0])[0] += count
    chances = [replica.factor * replica.deviates for replica in replicas]
    while errors > 0:
        size = 1
        while size < errors and rng.random() < 1 - 1 / max(1.0, clump):
            size += 1
        meter.groups[rng.choices(replicas, chances)[0].name][1] += size
        errors -= size
