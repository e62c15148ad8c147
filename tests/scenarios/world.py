"""A small world in virtual time for the release core: replicas that take their time, a router that lags,
users whose requests fail as often as the version they meet, and all the ways in which those can be unreadable.

`World.tick()` is one tick of the engine: observe, decide, perform. Every tick checks the invariants of the
architecture that can be seen from outside, so each scenario is a test of them too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from forge.core.release.decide import decide
from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState
from forge.model.decision import Action, Command, Decision, Outcome
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep
from forge.model.traffic import Gauge, LogTemplate, Observation, ReplicaCount, Sample, TrafficTable, Version
from forge.model.units import WHOLE

START = 1_000_000.0
BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, float("inf"))


@dataclass
class Behaviour:
    """How a version behaves: seconds until a replica is ready, how often it fails, how long it takes."""

    ready_after: float = 2.0
    never_ready: bool = False
    crash_loops: bool = False
    failure_rate: float = 0.0
    latency: float = 0.02
    latencies: tuple[float, ...] = ()
    """Each of them as often as the others, in place of `latency`."""
    memory: int = 50_000_000
    cpu_per_request: float = 0.001
    connections_per_request: float = 0.0
    """Of a pool of 100 a replica; 0: nobody measures it."""
    leaked_per_second: float = 0.0
    """Bytes that each replica loses, of a limit of 1,000,000,000; 0: nobody measures it."""
    values: tuple[tuple[str, float], ...] = ()
    writes: tuple[tuple[str, float], ...] = ()
    """Kinds of error lines, and how many of each a request writes."""


@dataclass
class Running:
    """A version on the target: when each of its replicas was started, and which are broken now."""

    started: list[float] = field(default_factory=list)
    desired: int = 0
    broken: int = 0


@dataclass
class Counters:
    requests: int = 0
    errors: int = 0
    cpu: float = 0.0
    lines: dict[str, float] = field(default_factory=dict)
    buckets: dict[float, int] = field(default_factory=lambda: dict.fromkeys(BOUNDS, 0))


class World:
    """One environment, its users, and the engine's tick."""

    def __init__(
        self, *, rps: int = 100, replicas: int = 2, policy: dict[str, Any] | None = None, judge: str = "sequential"
    ) -> None:
        self.now = START
        self.rps = rps
        self.replicas = replicas
        self.router_lag = 0.0
        self.metrics_away = False
        self.target_away = False
        self.router_away = False
        self.hidden: set[str] = set()
        self.behaviour: dict[str, Behaviour] = {}
        self.running: dict[str, Running] = {}
        self.counters: dict[str, Counters] = {}
        self.plan = EnvironmentPlan("production", policy=policy or {}, judge=judge)
        self.state = EnvironmentState("production", self.plan)
        self.inbox: list[Command] = []
        self.outcomes: list[Outcome] = []
        self.applied: list[tuple[float, TrafficTable]] = []
        self.decisions: list[Decision[EnvironmentState]] = []
        self.log: list[str] = []
        self.asked_log: list[dict[str, int]] = []
        self.lose_actions = False
        self.refuse: dict[str, str] = {}
        self.performed: set[str] = set()
        self.overload_allowed = False
        self.logs_are_read = False
        self.lacks: tuple[str, ...] = ()
        self._command = 0

    # --- what people do

    def send(self, kind: str, actor: str = "ada", **payload: Any) -> None:
        self._command += 1
        self.inbox.append(Command(self._command, kind, actor, self.now, payload))

    def deploy(self, version: str, strategy: Strategy | None = None, *, behaviour: Behaviour | None = None, key: str = "",
               actor: str = "ada", routes: list[dict[str, Any]] | None = None, config: dict[str, Any] | None = None) -> None:  # fmt: skip
        if behaviour is not None:
            self.behaviour[version] = behaviour
        built = Version(version, artifact=f"sha-{version}", config=config or {"replicas": self.replicas})
        request = {"environment": "production", "version": version, "strategy": plain(strategy or Strategy())}
        request["routes"] = routes or []
        self.send("deploy", actor, request=request, version=plain(built), plan=plain(self.plan), run="run-1",
                  key=key or f"key-{self._command + 1}")  # fmt: skip

    # --- time

    def tick(self) -> Decision[EnvironmentState]:
        """One tick, then one second of traffic."""
        observation = self.observe()
        commands, self.inbox = tuple(self.inbox), []
        outcomes, self.outcomes = tuple(self.outcomes), []
        before = self.state
        decision = decide(before, observation, commands, outcomes, self.now)
        check_invariants(before, decision, observation, strict=not self.overload_allowed)
        self.state = decision.state
        self.decisions.append(decision)
        self.log += [f"{self.now - START:6.0f} {event.kind}: {event.message}" for event in decision.events]
        for action in decision.actions:
            self.perform(action)
        self.now += 1.0
        self.serve(1.0)
        return decision

    def run(self, seconds: int) -> World:
        for _ in range(seconds):
            self.tick()
        return self

    def until(self, *statuses: str, version: str = "", limit: int = 600) -> ReleaseState:
        """Tick until the newest release (of `version`) has one of these statuses."""
        for _ in range(limit):
            self.tick()
            release = self.release(version)
            if release.status in statuses:
                return release
        raise AssertionError(
            f"{self.release(version).status}, waits for {self.release(version).waits_for!r}:\n"
            + "\n".join(self.log[-25:])
        )

    def settle(self, limit: int = 900) -> World:
        """Tick until the environment is at rest."""
        for _ in range(limit):
            wake_at = self.tick().wake_at
            if wake_at is None or wake_at > self.now + 60:
                return self
        raise AssertionError("never at rest:\n" + "\n".join(self.log[-25:]))

    def established(self, version: str = "1.3") -> World:
        """Return the world with `version` stable and at rest."""
        self.deploy(version)
        self.until("promoted")
        return self.settle()

    # --- what one sees

    def release(self, version: str = "") -> ReleaseState:
        found = [r for r in self.state.releases.values() if version in {"", r.version}]
        return found[-1]

    def release_of(self, release: str) -> ReleaseState:
        return self.state.releases[release]

    @property
    def split(self) -> dict[str, int]:
        """What the router really does now."""
        table = self.table()
        return dict(table.weights) if table else {}

    @property
    def asked(self) -> dict[str, int]:
        return self.state.traffic.weights if self.state.traffic else {}

    def ready(self, version: str) -> int:
        return self.count(version).ready

    def events(self, kind: str) -> list[str]:
        return [line for line in self.log if f" {kind}: " in line]

    # --- the parts

    def table(self) -> TrafficTable | None:
        current = None
        for at, table in self.applied:
            if at + self.router_lag <= self.now:
                current = table
        return current

    def count(self, version: str) -> ReplicaCount:
        running = self.running[version]
        how = self.behaviour.get(version, Behaviour())
        up = [at for at in running.started if self.now - at >= how.ready_after]
        ready = 0 if how.never_ready or how.crash_loops else max(0, len(up) - running.broken)
        restarts = 0
        message = ""
        if how.crash_loops:
            restarts = sum(int((self.now - at) // 2) for at in running.started)
            message = "crash loop: exited with 1 after 0.3s"
        elif how.never_ready:
            message = "GET /health answers 503"
        return ReplicaCount(running.desired, len(running.started), ready, message, restarts)

    def observe(self) -> Observation:
        problems = []
        replicas = weights = samples = None
        if self.target_away:
            problems.append("the supervisor does not answer")
        else:
            replicas = {version: self.count(version) for version in self.running}
        if self.router_away:
            problems.append("Envoy's admin port does not answer")
        else:
            table = self.table()
            weights = dict(table.weights) if table else None
        if self.metrics_away:
            problems.append("scrape answered 500")
        else:
            samples = {version: self.sample(version) for version in self.running if version not in self.hidden}
        return Observation(self.now, replicas, weights, samples, "; ".join(problems))

    def sample(self, version: str) -> Sample:
        counters = self.counters.setdefault(version, Counters())
        how = self.behaviour.get(version, Behaviour())
        return Sample(
            self.now, counters.requests, counters.errors, tuple(counters.buckets.items()), counters.cpu, how.memory,
            gauges=self.gauges(version, how), values=how.values, lacks=self.lacks, **self.logs(counters),
        )  # fmt: skip

    def logs(self, counters: Counters) -> dict[str, Any]:
        if not self.logs_are_read or self.lacks:
            return {}
        templates = tuple(LogTemplate(text, int(n), f"{text} 42") for text, n in counters.lines.items() if n >= 1)
        return {"log_errors": sum(template.lines for template in templates), "templates": templates}

    def gauges(self, version: str, how: Behaviour) -> tuple[Gauge, ...]:
        found = []
        if how.connections_per_request:
            each = self.rps * self.split.get(version, 0) / WHOLE / max(1, self.ready(version))
            found.append(Gauge("connections", 5 + each * how.connections_per_request, 100.0))
        if how.leaked_per_second and self.running[version].started:
            age = self.now - min(self.running[version].started)
            found.append(Gauge("memory", 1e8 + age * how.leaked_per_second, 1e9, grows_with_load=False))
        return tuple(found)

    def perform(self, action: Action) -> None:
        if self.lose_actions:
            return
        if action.kind in self.refuse:
            self.outcomes.append(Outcome(action.key, "error", self.now, self.refuse[action.kind]))
            return
        if action.kind == "traffic":
            table = msgspec.convert(action.payload["table"], TrafficTable)
            if not self.applied or table.generation > self.applied[-1][1].generation:
                self.applied.append((self.now, table))
        elif action.kind == "ensure":
            self.scale(action.payload["version"], action.payload["replicas"])
        elif action.kind == "remove":
            self.running.pop(action.payload["version"], None)
        else:
            raise AssertionError(action.kind)
        self.outcomes.append(Outcome(action.key, "succeeded", self.now))

    def scale(self, version: str, replicas: int) -> None:
        running = self.running.setdefault(version, Running())
        running.desired = replicas
        while len(running.started) < replicas:
            running.started.append(self.now)
        del running.started[replicas:]

    def serve(self, seconds: float) -> None:
        """Users send requests; each version answers its share as well as it can."""
        for version, weight in self.split.items():
            counters = self.counters.setdefault(version, Counters())
            how = self.behaviour.get(version, Behaviour())
            requests = round(self.rps * seconds * weight / WHOLE)
            ready = self.count(version).ready if version in self.running else 0
            before = counters.requests
            counters.requests += requests
            if ready == 0:
                counters.errors += requests
            else:
                # Spread evenly, so that a rate of 1 % is exactly one in a hundred.
                rate = how.failure_rate
                counters.errors += int((before + requests) * rate + 1e-9) - int(before * rate + 1e-9)
            counters.cpu += requests * how.cpu_per_request
            for text, each in how.writes:
                counters.lines[text] = counters.lines.get(text, 0.0) + requests * each
            for bound in BOUNDS:
                each = how.latencies or (how.latency,)
                part = sum(latency <= bound for latency in each) / len(each)
                counters.buckets[bound] += int((before + requests) * part + 1e-9) - int(before * part + 1e-9)


def plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


def canary(*steps: Any, **options: Any) -> Strategy:
    """`canary(5, 10.0, "resume", {...approval...}, 50)`: int = weight in percent, float = pause in seconds."""
    made = []
    for step in steps:
        if isinstance(step, dict):
            made.append(StrategyStep(approval=step))
        elif step == "resume":
            made.append(StrategyStep(until_resumed=True))
        elif isinstance(step, float):
            made.append(StrategyStep(pause=step))
        else:
            made.append(StrategyStep(weight=step * 100))
    return Strategy(name=options.pop("name", "canary"), steps=tuple(made), **options)


def check_invariants(
    before: EnvironmentState, decision: Decision[EnvironmentState], seen: Observation, *, strict: bool = True
) -> None:
    """Invariants 1, 2 and 8 of the architecture, and the shape of every decision."""
    state = decision.state
    _check_weights(before, state, seen, strict=strict)
    _check_rollbacks(state, seen)
    _check_scaling(before, decision, seen)
    _check_waiting(state)
    keys = [action.key for action in decision.actions]
    assert len(keys) == len(set(keys))
    generations = [int(key.partition("#")[2].partition(":")[0]) for key in keys]
    assert all(generation > before.generation for generation in generations), "keys never repeat"
    encoded = msgspec.json.encode(state)
    assert msgspec.json.decode(encoded, type=EnvironmentState) == state


def capacity_of(state: EnvironmentState, version: str, seen: Observation) -> float:
    """Independently of the code under test: the share of all traffic that the ready replicas can carry."""
    count = (seen.replicas or {}).get(version)
    full = state.versions[version].version.config["replicas"]
    return min(1.0, (count.ready if count else 0) / full) * WHOLE


def _check_weights(before: EnvironmentState, state: EnvironmentState, seen: Observation, *, strict: bool) -> None:
    if state.traffic is None:
        return
    weights = state.traffic.weights
    assert sum(weights.values()) == WHOLE, weights
    assert all(isinstance(weight, int) and weight > 0 for weight in weights.values()), weights
    if seen.replicas is None:
        assert before.traffic is not None
        assert weights == before.traffic.weights, "no change without knowledge of the replicas"
        return
    total = sum(capacity_of(state, version, seen) for version in state.versions if version in weights or version in {
        r.version for r in state.releases.values() if r.status not in RELEASE_FINAL})  # fmt: skip
    if total < 1:
        return
    for version, weight in weights.items():
        if version in {state.stable, before.stable}:
            continue
        can = capacity_of(state, version, seen)
        bound = can if total >= WHOLE else WHOLE * can / total
        assert weight <= bound + 2 or not strict or not before.stable, (version, weight, bound, weights)


def _check_rollbacks(state: EnvironmentState, seen: Observation) -> None:
    """Invariant 3: what rolls back has, in the same tick, no more than what stable cannot carry."""
    if seen.replicas is None or state.traffic is None:
        return
    spare = max(0.0, WHOLE - capacity_of(state, state.stable, seen)) if state.stable else WHOLE
    for release in state.releases.values():
        if release.status == "rolling_back":
            assert state.traffic.weights.get(release.version, 0) <= spare + 2, (release, state.traffic.weights)


def _check_scaling(before: EnvironmentState, decision: Decision[EnvironmentState], seen: Observation) -> None:
    slack = max(
        (r.strategy.max_unavailable for r in decision.state.releases.values() if r.strategy.name == "rolling"),
        default=0,
    )
    for action in decision.actions:
        if action.kind == "remove":
            version = action.payload["version"]
            assert version != decision.state.stable
            assert seen.weights is not None or before.traffic is None
            assert (seen.weights or {}).get(version, 0) == 0, f"{version} removed while it carries traffic"
            assert decision.state.traffic is None or version not in decision.state.traffic.weights
        if action.kind == "ensure" and action.payload["version"] in before.versions:
            version, size = action.payload["version"], action.payload["replicas"]
            if size >= before.versions[version].wanted:
                continue
            assert seen.weights is not None or before.traffic is None, "scaled down without knowing the split"
            full = before.versions[version].version.config["replicas"]
            if version == before.stable == decision.state.stable:
                assert any(r.strategy.name == "rolling" for r in decision.state.releases.values()), (
                    "stable keeps its size"
                )
            asked = decision.state.traffic.weights.get(version, 0) if decision.state.traffic else 0
            carries = max((seen.weights or {}).get(version, 0), asked)
            assert (size + slack) / full * WHOLE >= carries - 2, (version, size, carries)


def _check_waiting(state: EnvironmentState) -> None:
    for release in state.releases.values():
        if release.status in RELEASE_FINAL:
            assert release.reason, release
            assert release.finished_at is not None
        elif release.status != "progressing":
            assert release.waits_for, (release.id, release.status)
