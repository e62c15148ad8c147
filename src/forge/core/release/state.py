"""The state of an environment: which version is stable, which arms have traffic, which releases are under way.

The environment is the durable machine (one row, one lease, one writer); its releases are its parts, so that
releases may overlap and one decision sees all of them. Weights are basis points: 10,000 is all traffic.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.model.traffic import ReplicaCount, Route, Sample, TrafficTable, Version

ReleaseStatus = Literal[
    "queued", "starting", "progressing", "paused", "waiting_approval", "promoting", "baking", "rolling_back",
    "promoted", "rolled_back", "aborted", "superseded", "failed",
]  # fmt: skip
RELEASE_FINAL = frozenset({"promoted", "rolled_back", "aborted", "superseded", "failed"})
"""`failed`: the target or the router could not do it; the environment is as it was before."""


class VersionState(msgspec.Struct, frozen=True):
    """A version that the target knows: what is wanted of it and what was last seen."""

    version: Version
    wanted: int = 0
    seen: ReplicaCount | None = None
    wanted_since: float = 0.0
    idle_since: float | None = None
    """Since when the observed split gives it nothing."""


class Verdict(msgspec.Struct, frozen=True):
    """A judge's word on one arm: what, why in words, and the numbers behind it."""

    kind: Literal["rollback", "promote", "hold", "inconclusive"]
    why: str
    data: dict[str, Any] = {}


class ReleaseState(msgspec.Struct, frozen=True):
    """One release. `step` counts the strategy's steps done; times are seconds since the epoch."""

    id: str
    version: str
    strategy: Strategy
    status: ReleaseStatus = "queued"
    actor: str = ""
    run: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    step: int = 0
    step_started_at: float | None = None
    paused_by: str = ""
    votes: tuple[str, ...] = ()
    """Who approved the gate that it stands at."""
    previous: str = ""
    """The version that was stable when it started: where a rollback goes."""
    routes: tuple[Route, ...] = ()
    verdict: Verdict | None = None
    judge_state: dict[str, Any] = {}
    baseline: Sample | None = None
    """The version's counters when the release gave it its first traffic."""
    requests: int = 0
    failed_requests: int = 0
    """Answered 5xx by this version since the release gave it traffic."""
    reason: str = ""
    """Why it is final, or is rolling back."""
    waits_for: str = ""
    """For every waiting state: what, on which data."""
    earliest: float | None = None
    """The earliest time at which that can change by itself."""


class EnvironmentState(msgspec.Struct, frozen=True):
    """One environment."""

    name: str
    plan: EnvironmentPlan
    stable: str = ""
    """Id of the stable version; empty: nothing was ever released."""
    previous: tuple[str, ...] = ()
    """Versions that were stable before, newest first: where a rollback can go."""
    versions: dict[str, VersionState] = {}
    releases: dict[str, ReleaseState] = {}
    traffic: TrafficTable | None = None
    """The table that was last asked for."""
    observed: dict[str, int] | None = None
    """The split that the router last confirmed."""
    history: tuple[tuple[float, dict[str, Sample]], ...] = ()
    """Recent samples by version, oldest first, as long as the longest window needs."""
    data_missing_since: float | None = None
    next_release: int = 1
    generation: int = 0
