"""What a screen shows of an environment: which version is where, with how much traffic, and how it fares."""

from __future__ import annotations

import msgspec

from forge.core.release.state import RELEASE_FINAL, EnvironmentState, VersionState
from forge.model.migrations import Contract
from forge.model.traffic import Observation, ReplicaCount, Route, Sample
from forge.views.harm import EnvironmentHarmView, environment_harm_view
from forge.views.release import ReleaseView, release_view


class ReplicasView(msgspec.Struct, frozen=True):
    """What the target says of a version's replicas."""

    desired: int
    running: int
    ready: int
    restarts: int = 0
    message: str = ""


class ArmView(msgspec.Struct, frozen=True):
    """A version that is up. `role`: `stable`, `arm` (has or gets traffic by a release), `warm` (carries nothing).

    Weights are basis points; `actual_weight` None: the router has not said. `requests` and `failed_requests`
    are those of the release that brought it, or, for stable, since Forge counts.
    """

    version: str
    role: str
    set_weight: int
    actual_weight: int | None
    replicas: ReplicasView
    state: str
    release: str = ""
    requests: int = 0
    failed_requests: int = 0


class RouteView(msgspec.Struct, frozen=True):
    """Requests that go to a version whatever the weights."""

    version: str
    text: str


class EnvironmentView(msgspec.Struct, frozen=True):
    """An environment. `state` is that of the release that needs the most attention, else `stable` or `empty`."""

    name: str
    state: str
    stable: str
    arms: tuple[ArmView, ...]
    releases: tuple[ReleaseView, ...]
    """Newest first; those under way before those that are over."""
    target: str = "local"
    router: str = "envoy"
    address: str = ""
    routes: tuple[RouteView, ...] = ()
    previous: tuple[str, ...] = ()
    problem: str = ""
    """What could not be read of the world, and why."""
    data_missing_since: float | None = None
    next: tuple[str, ...] = ()
    harm: EnvironmentHarmView | None = None
    """What the releases of the last 30 days cost together; None: nothing, none had traffic."""
    contracts: tuple[str, ...] = ()
    """Contract migrations that ran, newest first: which versions cannot run any more."""

    @property
    def current(self) -> ReleaseView | None:
        """The release to look at first: the newest under way, else the newest."""
        return self.releases[0] if self.releases else None

    @property
    def under_way(self) -> tuple[ReleaseView, ...]:
        """The releases that are not over."""
        return tuple(release for release in self.releases if not release.final)


_ATTENTION = (
    "rolling_back", "waiting_approval", "paused", "progressing", "promoting", "baking", "starting", "queued",
)  # fmt: skip


def environment_view(
    state: EnvironmentState, now: float, observation: Observation | None = None, *, address: str = ""
) -> EnvironmentView:
    """Return what to show of an environment; a fresher `observation` replaces what the last tick saw."""
    releases = _releases(state, now)
    arms = _arms(state, observation)
    return EnvironmentView(
        name=state.name,
        state=_overall(releases, state.stable),
        stable=state.stable,
        arms=arms,
        releases=releases,
        target=state.plan.target,
        router=state.plan.router,
        address=address,
        routes=tuple(RouteView(route.version, describe_route(route)) for route in _routes(state)),
        previous=state.previous,
        problem=observation.problem if observation else "",
        data_missing_since=state.data_missing_since,
        next=releases[0].next if releases else (),
        harm=environment_harm_view(state, now),
        contracts=tuple(describe_contract(contract) for contract in reversed(state.contracts)),
    )


def describe_contract(contract: Contract) -> str:
    """Return a contract migration in words: `1.4 (drop price of run-7)`."""
    by = f" of {contract.run}" if contract.run else ""
    state = ", failed" if contract.failed else "" if contract.finished_at is not None else ", under way"
    return f"{contract.since} ({contract.step}{by}{state})"


def describe_route(route: Route) -> str:
    """Return a route in words: `header x-canary: yes`, `cookie beta=1`, `mirror 5%`."""
    if route.mirror:
        return f"mirror {route.mirror / 100:g}%"
    kind, name = ("header", route.header) if route.header else ("cookie", route.cookie)
    joined = ": " if kind == "header" else "="
    return f"{kind} {name}{joined}{route.value}" if route.value else f"{kind} {name}"


def _releases(state: EnvironmentState, now: float) -> tuple[ReleaseView, ...]:
    views = [release_view(state, release, now) for release in state.releases.values()]
    views.sort(key=lambda view: (not view.final, view.created_at, _number(view.id)), reverse=True)
    return tuple(views)


def _number(release: str) -> int:
    digits = release.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0


def _overall(releases: tuple[ReleaseView, ...], stable: str) -> str:
    states = {release.state for release in releases if not release.final}
    for attention in _ATTENTION:
        if attention in states:
            return attention
    return "stable" if stable else "empty"


def _routes(state: EnvironmentState) -> tuple[Route, ...]:
    return state.traffic.routes if state.traffic else ()


def _arms(state: EnvironmentState, observation: Observation | None) -> tuple[ArmView, ...]:
    weights = state.traffic.weights if state.traffic else {}
    observed = state.observed if observation is None or observation.weights is None else observation.weights
    seen = observation.replicas if observation and observation.replicas is not None else None
    samples = _latest_samples(state, observation)
    brought_by = {
        release.version: release for release in state.releases.values() if release.status not in RELEASE_FINAL
    }
    arms = []
    for name, version in state.versions.items():
        release = brought_by.get(name)
        sample = samples.get(name)
        replicas = _replicas(version, seen.get(name) if seen is not None else version.seen)
        arms.append(
            ArmView(
                version=name,
                role="stable" if name == state.stable else "arm" if release or weights.get(name) else "warm",
                set_weight=weights.get(name, 0),
                actual_weight=None if observed is None else observed.get(name, 0),
                replicas=replicas,
                state=_health(replicas),
                release=release.id if release else "",
                requests=release.requests if release else sample.requests if sample else 0,
                failed_requests=release.failed_requests if release else sample.errors if sample else 0,
            )
        )
    order = {"stable": 0, "arm": 1, "warm": 2}
    return tuple(sorted(arms, key=lambda arm: (order[arm.role], -arm.set_weight, arm.version)))


def _latest_samples(state: EnvironmentState, observation: Observation | None) -> dict[str, Sample]:
    if observation is not None and observation.samples is not None:
        return observation.samples
    return state.history[-1][1] if state.history else {}


def _replicas(version: VersionState, seen: ReplicaCount | None) -> ReplicasView:
    if seen is None:
        return ReplicasView(version.wanted, 0, 0, message="not seen yet" if version.wanted else "")
    return ReplicasView(seen.desired, seen.running, seen.ready, seen.restarts, seen.message)


def _health(replicas: ReplicasView) -> str:
    if replicas.desired == 0:
        return "stopped" if replicas.running == 0 else "stopping"
    if replicas.ready >= replicas.desired:
        return "ready"
    return "degraded" if replicas.ready else "starting"
