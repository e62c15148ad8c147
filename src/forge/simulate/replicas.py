"""The simulated target: replicas that take their time, die, never get ready, or are changed by somebody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from forge.model.errors import DependencyFailed
from forge.model.traffic import ReplicaCount, Version
from forge.simulate.faults import Fault, Weather
from forge.simulate.versions import Behaviour

CRASH_SECONDS = 2.0


@dataclass(slots=True)
class Replica:
    """One replica: when it was started and gets ready (inf: never), and by how much its error rate is larger."""

    started: float
    ready_at: float
    factor: float = 1.0
    name: str = ""
    deviates: float = 1.0
    """By how much its error rate is off at present, beside that."""


@dataclass(slots=True)
class Running:
    """One version on the target."""

    version: Version
    desired: int = 0
    replicas: list[Replica] = field(default_factory=list)
    restarts: int = 0

    def up(self, now: float) -> list[Replica]:
        """Return the replicas that can answer."""
        return [replica for replica in self.replicas if replica.ready_at <= now]


class Replicas:
    """What runs. Everything takes effect on the world's clock; nothing here knows of Forge."""

    def __init__(
        self, clock: Callable[[], float], weather: Weather, rng: Random, behaviour: Callable[[str], Behaviour]
    ) -> None:  # fmt: skip
        self.running: dict[str, Running] = {}
        self._clock, self._weather, self._rng, self._behaviour = clock, weather, rng, behaviour
        self._started = 0

    def ensure(self, version: Version, replicas: int) -> None:
        """Want so many replicas. Raises DependencyFailed while the target is away or refuses."""
        self._reach("ensure")
        if self._weather.on("actions_lost"):
            return
        running = self.running.setdefault(version.id, Running(version))
        running.version, running.desired = version, replicas
        self._settle(running)

    def remove(self, version: str) -> None:
        """Stop and forget a version. Raises DependencyFailed while the target is away or refuses."""
        self._reach("remove")
        if not self._weather.on("actions_lost"):
            self.running.pop(version, None)

    def observe(self) -> dict[str, ReplicaCount]:
        """Return what runs. Raises DependencyFailed while the target is away."""
        if self._weather.on("target_away"):
            raise DependencyFailed("the target does not answer")
        return {version: self.count(version) for version in self.running}

    def count(self, version: str) -> ReplicaCount:
        """Return what there is of one version, whether or not anybody can see it."""
        running = self.running.get(version)
        if running is None:
            return ReplicaCount(0, 0, 0)
        ready, restarts, message = self.ready(version), running.restarts, ""
        if ready < running.desired:
            message = "starting"
        if self._behaviour(version).crash_loops:
            now = self._clock()
            restarts += sum(int((now - replica.started) // CRASH_SECONDS) for replica in running.replicas)
            message = "exited with 1 after 0.3 s"
        return ReplicaCount(running.desired, len(running.replicas), ready, message, restarts)

    def ready(self, version: str) -> int:
        """Return how many replicas of the version can answer."""
        running, now = self.running.get(version), self._clock()
        return sum(1 for replica in running.replicas if replica.ready_at <= now) if running else 0

    def heal(self) -> None:
        """Let replicas that would never have got ready be ready now, but for those that crash."""
        for version, running in self.running.items():
            for replica in running.replicas:
                if replica.ready_at == float("inf") and not self._behaviour(version).crash_loops:
                    replica.ready_at = self._clock()

    def strike(self, fault: Fault) -> None:
        """Let a fault that happens at a moment happen."""
        for version, running in self.running.items():
            if fault.version not in {"", version}:
                continue
            if fault.kind == "replicas_lost":
                lost = max(1, round(len(running.replicas) * fault.amount)) if running.replicas else 0
                running.replicas = running.replicas[lost:]
                running.restarts += lost
            elif fault.kind == "autoscaled":
                running.desired = max(1, round(running.desired * fault.amount)) if running.desired else 0
            self._settle(running)

    def _settle(self, running: Running) -> None:
        del running.replicas[running.desired :]
        while len(running.replicas) < running.desired:
            running.replicas.append(self._start(running.version.id))

    def _start(self, version: str) -> Replica:
        how, now = self._behaviour(version), self._clock()
        late = self._weather.on("slow_start", version)
        takes = how.ready_after * (0.7 + 0.6 * self._rng.random()) + (late.amount if late else 0.0)
        never = how.crash_loops or (how.unready > 0 and self._rng.random() < how.unready)
        factor = self._rng.lognormvariate(0.0, how.uneven) if how.uneven else 1.0
        self._started += 1
        return Replica(now, float("inf") if never else now + takes, factor, f"{version}/{self._started}")

    def _reach(self, what: str) -> None:
        if self._weather.on("target_away"):
            raise DependencyFailed("the target does not answer")
        if self._weather.on("actions_refused"):
            raise DependencyFailed(f"the target refuses `{what}`: quota exceeded")
