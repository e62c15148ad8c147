"""A release over time, from the decisions on record: what its charts show, and a table says to who cannot see them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from forge.core.judge.windows import quantile
from forge.core.release.replay import Moment
from forge.core.release.state import RELEASE_FINAL
from forge.model.traffic import Sample

MOST = 300
"""Points at most; of more, every second one is left out, as often as it takes."""
WINDOW = 10.0
"""Seconds of readings that a rate or a quantile is of."""
AFTER = 15.0
"""Seconds after its end that are still shown."""


class ArmPoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version at one time. Weights are basis points; `error_rate` and latencies (seconds) are of the last WINDOW
    seconds, None where there were no requests; `memory` in bytes."""

    asked: int = 0
    observed: int | None = None
    requests: int = 0
    errors: int = 0
    error_rate: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    memory: int | None = None


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """One time, in seconds since the epoch. `log_evidence` is natural; `bound` what it rolls back at, per metric and
    in all; `ratio` and `interval` are of the error ratio to stable, the latter good at every time at once."""

    at: float
    arms: dict[str, ArmPoint] = {}
    log_evidence: float | None = None
    metrics: dict[str, float] = {}
    bound: float | None = None
    rate: float | None = None
    upper_rate: float | None = None
    interval: tuple[float, float | None] | None = None
    failed: int = 0
    excess: float = 0.0
    verdict: str = ""


class Said(msgspec.Struct, frozen=True):
    """A decision that changed something: its words, and what they rest on."""

    at: float
    kind: str
    message: str
    data: dict[str, Any] = {}


class ReleaseHistory(msgspec.Struct, frozen=True):
    """A release over time. `complete`: its beginning is on record."""

    release: str
    version: str
    versions: tuple[str, ...]
    points: tuple[Point, ...]
    said: tuple[Said, ...]
    complete: bool = True


class Historian:
    """Reads decisions in order and keeps the points of one release."""

    def __init__(self, release: str) -> None:
        self._release = release
        self._version = ""
        self._points: list[Point] = []
        self._said: list[Said] = []
        self._recent: dict[str, deque[Sample]] = {}
        self._complete = False
        self._every = self._count = 1
        self._ended: float | None = None

    def read(self, moment: Moment) -> None:
        """Take in one decision."""
        now = moment.recorded.now
        for version, sample in (moment.recorded.observation.samples or {}).items():
            kept = self._recent.setdefault(version, deque(maxlen=200))
            if not kept or sample.at > kept[-1].at:
                kept.append(sample)
        release = moment.decision.state.releases.get(self._release)
        if release is None or (self._ended is not None and now > self._ended + AFTER):
            return
        if not self._version:
            self._version, self._complete = release.version, self._release not in moment.before.releases
        self._said += [
            Said(now, event.kind, event.message, event.data)
            for event in moment.decision.events
            if event.data.get("release", self._release) == self._release
        ]
        if release.status in RELEASE_FINAL and self._ended is None:
            self._ended = release.finished_at or now
        self._keep(_point(moment, self._release, now, self._recent))

    def _keep(self, point: Point) -> None:
        """Keep a point; the newest is always there, of the others not more than MOST."""
        if self._points and self._count % self._every:
            self._points[-1] = point
        else:
            self._points.append(point)
        self._count += 1
        if len(self._points) > MOST:
            self._points = self._points[::2]
            self._every *= 2

    def history(self) -> ReleaseHistory | None:
        """Return what was read; None: no decision knew the release."""
        if not self._version:
            return None
        versions = tuple(dict.fromkeys(name for point in self._points for name in point.arms))
        return ReleaseHistory(
            self._release, self._version, versions, tuple(self._points), tuple(self._said), self._complete
        )


def history(release: str, moments: Iterable[Moment]) -> ReleaseHistory | None:
    """Return a release over time; None when no decision on record knew it."""
    historian = Historian(release)
    for moment in moments:
        historian.read(moment)
    return historian.history()


def _point(moment: Moment, name: str, now: float, recent: dict[str, deque[Sample]]) -> Point:
    state = moment.decision.state
    release = state.releases[name]
    data = release.verdict.data if release.verdict is not None else {}
    asked = state.traffic.weights if state.traffic else {}
    split = moment.recorded.observation.weights
    shown = dict.fromkeys([state.stable, *asked, *(split or {}), release.version])
    arms = {
        version: _arm(asked.get(version, 0), None if split is None else split.get(version, 0), recent.get(version), now)
        for version in shown
        if version
    }
    interval = data.get("ratio_interval")
    return Point(
        at=round(now, 2),
        arms=arms,
        log_evidence=data.get("log_evidence"),
        metrics={key: value for key, value in (data.get("metrics") or {}).items() if isinstance(value, int | float)},
        bound=_bound(data),
        rate=data.get("rate"),
        upper_rate=data.get("upper_rate"),
        interval=(interval[0], interval[1]) if interval else None,
        failed=release.failed_requests,
        excess=round(release.excess_failed, 1),
        verdict=release.verdict.kind if release.verdict else "",
    )


def _bound(data: dict[str, Any]) -> float | None:
    """Return the log of the evidence that rolls back: one over the false alarms that are allowed (Ville, 1939)."""
    alpha = data.get("alpha")
    return round(math.log(1 / alpha), 3) if isinstance(alpha, float) and 0 < alpha < 1 else None


def _arm(asked: int, observed: int | None, kept: deque[Sample] | None, now: float) -> ArmPoint:
    if not kept:
        return ArmPoint(asked, observed)
    last = kept[-1]
    first = next((sample for sample in kept if sample.at >= now - WINDOW), last)
    requests, errors = last.requests - first.requests, last.errors - first.errors
    before = dict(first.latency)
    buckets = tuple((bound, count - before.get(bound, 0)) for bound, count in last.latency)
    some = requests > 0 and errors >= 0
    return ArmPoint(
        asked, observed, last.requests, last.errors, round(errors / requests, 5) if some else None,
        _quantile(buckets, 0.5), _quantile(buckets, 0.95), _quantile(buckets, 0.99), last.memory,
    )  # fmt: skip


def _quantile(buckets: tuple[tuple[float, int], ...], q: float) -> float | None:
    if not buckets or buckets[-1][1] <= 0 or any(count < 0 for _, count in buckets):
        return None
    found = quantile(buckets, q)
    return None if found is None else round(found[0], 5)
