"""What a simulated policy did: harm, time, false alarms; each release and the totals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from forge.core.release.state import ReleaseState

Outcome = Literal["promoted", "caught", "missed", "false_alarm", "stopped", "unfinished", "not_started"]
ROLLED_BACK = frozenset({"rolled_back", "failed"})
_GOING = frozenset({"starting", "progressing", "paused", "waiting_approval", "promoting", "baking", "rolling_back"})


class Told(msgspec.Struct, frozen=True):
    """One release. Times are seconds of the story; counts are what users really experienced until it ended."""

    id: str
    version: str
    kind: str
    bad: bool
    status: str
    outcome: Outcome
    reason: str
    asked: float
    seconds: float | None = None
    """From its start to its end."""
    to_verdict: float | None = None
    """From its first request to the verdict."""
    requests: int = 0
    failed: int = 0
    excess: float = 0.0
    """Expected failures above those of the best version beside it."""
    counted_failed: int = 0
    """What Forge itself counted."""


class Point(msgspec.Struct, frozen=True):
    """One moment of a release, for the plot. Counts are increments since the point before."""

    at: float
    weights: dict[str, int]
    requests: dict[str, int]
    errors: dict[str, int]
    evidence: float | None = None
    failed: int = 0
    """Of the release, so far."""


class Totals(msgspec.Struct, frozen=True):
    """Sums and rates. Rates are None where there was nothing to rate."""

    releases: int
    promoted: int
    caught: int
    missed: int
    false_alarms: int
    stopped: int
    unfinished: int
    false_alarm_rate: float | None
    detection_rate: float | None
    failed_requests: int
    excess_failed: float
    requests: int
    median_promotion: float | None
    median_detection: float | None
    worst: str = ""
    """The release with the most failures above normal."""


class Report(msgspec.Struct, frozen=True):
    """A whole simulation."""

    name: str
    seed: int
    days: float
    policy: str
    judge: str
    totals: Totals
    releases: tuple[Told, ...]
    decisions: int
    checked: bool
    """Whether the invariants were checked after every decision."""
    traced: str = ""
    trace: tuple[Point, ...] = ()


def outcome_of(release: ReleaseState, *, bad: bool) -> Outcome:
    """Return what a release came to, given the truth about its version."""
    if release.status == "promoted":
        return "missed" if bad else "promoted"
    if release.status in ROLLED_BACK:
        return "caught" if bad else "false_alarm"
    if release.status in _GOING:
        return "unfinished"
    return "not_started" if release.status == "queued" or release.started_at is None else "stopped"


def total(releases: Sequence[Told]) -> Totals:
    """Add up."""
    by = {name: [one for one in releases if one.outcome == name] for name in all_outcomes()}
    good = len(by["promoted"]) + len(by["false_alarm"])
    bad = len(by["caught"]) + len(by["missed"])
    worst = max(releases, key=lambda one: one.excess, default=None)
    return Totals(
        releases=len(releases),
        promoted=len(by["promoted"]),
        caught=len(by["caught"]),
        missed=len(by["missed"]),
        false_alarms=len(by["false_alarm"]),
        stopped=len(by["stopped"]),
        unfinished=len(by["unfinished"]) + len(by["not_started"]),
        false_alarm_rate=len(by["false_alarm"]) / good if good else None,
        detection_rate=len(by["caught"]) / bad if bad else None,
        failed_requests=sum(one.failed for one in releases),
        excess_failed=round(math.fsum(one.excess for one in releases), 1),
        requests=sum(one.requests for one in releases),
        median_promotion=_median(one.seconds for one in by["promoted"]),
        median_detection=_median(one.to_verdict for one in by["caught"]),
        worst=worst.id if worst is not None and worst.excess > 0 else "",
    )


def all_outcomes() -> tuple[Outcome, ...]:
    """Return every outcome."""
    return ("promoted", "caught", "missed", "false_alarm", "stopped", "unfinished", "not_started")


def _median(values: Iterable[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    middle = len(known) // 2
    return known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
