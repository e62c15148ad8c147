"""The state of an environment: which version is stable, which arms have traffic, which releases are under way.

The environment is the durable machine (one row, one lease, one writer); its releases are its parts, so that
releases may overlap and one decision sees all of them. Weights are basis points: 10,000 is all traffic.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from forge.core.judge.history import OwnHistory
from forge.core.judge.saturation import Track
from forge.core.policy.budget import Ledger
from forge.core.release.account import Account
from forge.core.release.adaptive import Growth
from forge.model.migrations import Contract
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
    ensured_at: float = 0.0
    """When the target was last asked; asked again when it does not follow."""
    unready_since: float | None = None
    """Since when fewer replicas than wanted are ready: the progress deadline counts from here."""
    ever_ready: bool = False
    warm_until: float | None = None
    """Kept running, without traffic, until then: a rollback to it takes one step."""
    removing_since: float | None = None
    """When its removal was last asked for; it is gone when the target does not report it any more."""
    failures: int = 0
    """How often in a row the target refused what it was asked."""
    problem: str = ""
    """What the target said when it refused."""
    faulted: str = ""
    """Why it was once rolled back; a rollback without a named version never chooses such a one."""


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
    """The stable version beside it, where a rollback goes: another one when an overlapping release was promoted."""
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
    key: str = ""
    """The idempotency key of the command that asked for it."""
    kind: Literal["deploy", "rollback"] = "deploy"
    """`rollback`: takes the environment back to a version that was stable before, as fast as capacity allows."""
    ends_as: ReleaseStatus = "rolled_back"
    """What a release that is rolling back becomes when its version carries nothing any more."""
    paused_from: str = ""
    """The status that `resume` returns to."""
    held_weight: int = 0
    """The weight that a paused release keeps."""
    traffic_since: float | None = None
    stable_baseline: Sample | None = None
    """Stable's counters at the same moment as `baseline`."""
    excess_failed: float = 0.0
    """Failed requests above what stable would have failed on the same number of requests."""
    data_missing_since: float | None = None
    """Since when something that it needs to know cannot be read."""
    forced: bool = False
    """A person promoted it all the way: missing or too little data does not hold it any more. A bad verdict does."""
    patience_from: float | None = None
    """When a person last resumed it: patience counts from here."""
    note: str = ""
    """What the promotion could not know, for example that there was no request."""
    fix: bool = False
    """It mends something: an empty error budget does not keep it."""
    override: str = ""
    """Why a person let it pass freezes, windows, the rate of releases and the error budget."""
    held_by: tuple[str, ...] = ()
    """The policy gates that keep it from starting, or from growing."""
    growth: Growth | None = None
    """Of an adaptive canary: the weight that it may have now, and what that is based on."""
    gauges: dict[str, Track] = {}
    """What the version uses of things that have an end, while it has traffic."""
    gauges_at: float = 0.0
    """From when the newest reading in `gauges` is."""
    gauges_weight: int = 0
    gauges_since: float = 0.0
    """The weight that they belong to, and since when the version has it."""
    account: Account = Account()
    """What `excess_failed` comes from, and how sure it is."""


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
    """Grows with every action; part of every action's key and of every table."""
    asked_at: float = 0.0
    """When `traffic` was last asked for; asked again when the router does not follow."""
    traffic_problem: str = ""
    """What the router said when it refused the last table."""
    traffic_generation: int = 0
    """From which generation on a table in effect is the one that was last asked for: an older one that still
    comes into effect, or one that was refused, confirms nothing."""
    down: bool = False
    """Taken down by a person: nothing is looked at or asked for until a person or a release needs it again."""
    ledger: Ledger = Ledger()
    """Requests and errors of the whole environment, kept when its policy has an objective (`slo`)."""
    release_starts: tuple[float, ...] = ()
    """When the last releases started, as many as the policy's rate of releases needs."""
    own_history: OwnHistory = OwnHistory()
    """What stable's replicas tell of each other: how this service's errors come, for the judge."""
    signals_state: dict[str, Any] = {}
    """What the reader of the signals needs to go on without a jump after a restart."""
    contracts: tuple[Contract, ...] = ()
    """Steps that took away what older versions need, oldest first."""
