"""One tick under way: the state as it changes, and what the decision will say."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from forge.core.release.capacity import full_size, ready_capacity
from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState, VersionState
from forge.model.configs import SPLIT_BY_REPLICAS
from forge.model.decision import Action, Event
from forge.model.traffic import Observation

MOVERS = frozenset({"promoting", "baking"})
"""Statuses in which a release takes, or has taken, stable's place: only one release at a time."""


class Tick:
    """The working copy of one decision. Every change to the state goes through here."""

    def __init__(self, state: EnvironmentState, observation: Observation, now: float) -> None:
        self.state = state
        self.observation = observation
        self.now = now
        self.events: list[Event] = []
        self.actions: list[Action] = []

    def say(self, kind: str, message: str, **data: Any) -> None:
        """Record an event for people and programs."""
        self.events.append(Event(kind, message, {"environment": self.state.name, **data}))

    def act(self, kind: str, name: str, payload: dict[str, Any]) -> None:
        """Order an action under a key of its own: the generation counter never repeats."""
        generation = self.next_generation()
        self.actions.append(Action(f"{kind}#{generation}" + (f":{name}" if name else ""), kind, payload))

    def next_generation(self) -> int:
        """Advance the environment's generation counter and return it."""
        self.change(generation=self.state.generation + 1)
        return self.state.generation

    def change(self, **fields: Any) -> None:
        """Replace fields of the environment's state."""
        self.state = replace(self.state, **fields)

    def put(self, release: ReleaseState) -> None:
        """Store a release."""
        self.change(releases={**self.state.releases, release.id: release})

    def change_version(self, version: str, **fields: Any) -> None:
        """Replace fields of a version that is known."""
        changed = replace(self.state.versions[version], **fields)
        self.change(versions={**self.state.versions, version: changed})

    @property
    def active(self) -> list[ReleaseState]:
        """Releases under way, oldest first; queued ones are not."""
        return [r for r in self.state.releases.values() if r.status not in RELEASE_FINAL and r.status != "queued"]

    @property
    def queued(self) -> list[ReleaseState]:
        """Releases that wait for their turn, oldest first."""
        return [release for release in self.state.releases.values() if release.status == "queued"]

    @property
    def asked(self) -> dict[str, int]:
        """The weights that were last asked for."""
        return self.state.traffic.weights if self.state.traffic else {}

    def observed(self, version: str) -> int | None:
        """Return the weight that the router reports for the version now; None when it cannot be read."""
        return None if self.split is None else self.split.get(version, 0)

    @property
    def split(self) -> dict[str, int] | None:
        """The split that the router reports now. Before the first table was asked for, nothing carries traffic."""
        if self.observation.weights is None and self.state.traffic is None:
            return {}
        return self.observation.weights

    @property
    def confirmed(self) -> bool:
        """Whether what the router reports is what was last asked for, and no older split can come after it."""
        if self.split is None:
            return False
        seen = self.observation.generation
        return self.state.traffic is None or seen is None or seen >= self.state.traffic_generation

    @property
    def split_by_replicas(self) -> bool:
        """Whether a version carries requests as long as it has ready replicas, whatever its weight."""
        return self.state.plan.router in SPLIT_BY_REPLICAS

    def version(self, version: str) -> VersionState | None:
        """Return what is known of the version."""
        return self.state.versions.get(version)

    @property
    def stable(self) -> VersionState | None:
        """The stable version, or None before the first release."""
        return self.state.versions.get(self.state.stable)

    def ready(self, version: str) -> int:
        """Return how many replicas of the version were ready at the last look."""
        known = self.version(version)
        return known.seen.ready if known and known.seen else 0

    def full(self, version: str) -> int:
        """Return how many replicas of the version carry all of the traffic."""
        known = self.version(version)
        return full_size(known.version) if known else 1

    def capacity(self, version: str) -> int:
        """Return the basis points that the version's ready replicas can carry."""
        known = self.version(version)
        return ready_capacity(known.version, known.seen) if known else 0

    @property
    def blind(self) -> str:
        """What of the world cannot be seen that every change needs; empty when all can be."""
        if self.observation.replicas is None:
            return "the target cannot be read"
        if self.observation.weights is None and self.state.traffic is not None:
            return "the router cannot be read"
        return ""


def takes_over(release: ReleaseState) -> bool:
    """Whether the release takes, or has taken, stable's place (also while it is paused at that)."""
    return release.status in MOVERS or (release.status == "paused" and release.paused_from in MOVERS)
