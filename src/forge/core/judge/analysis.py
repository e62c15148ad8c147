"""One release that is recorded, judged from its readings: the evidence of the sequential judge, without its machine.

The same statistics as in a running release, advanced by one pair of readings at a time (docs/judge.md). All arms
are judged at once, so that the bound on false alarms holds for the release and not for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from forge.core.judge.calibrate import Calibration
from forge.core.judge.combine import closed_log_e, combine_metrics, log_mean
from forge.core.judge.evidence import CountEvidence, Counts, fresh_counts, log_e, update_counts
from forge.core.judge.interval import RatioInterval, excluded, interval_of, ratio_interval
from forge.core.judge.latency import (
    LatencyCalibration,
    LatencyEvidence,
    common_bounds,
    fresh_latency,
    increments,
    latency_log_e,
    update_latency,
)
from forge.core.judge.settings import SequentialSettings
from forge.core.judge.slo import SloEvidence, fresh_slo, slo_log_e, update_slo
from forge.core.judge.spread import shapes, slower_words
from forge.model.traffic import Sample

VerdictKind = Literal["rollback", "promote", "hold", "inconclusive"]
STALE_STEPS = 3
"""Readings that may be missing at the end before the data says nothing of now."""
SHARED = 15.0
"""Seconds over which stable's own error rate tells whether an outage is shared."""
POINTS = 60
"""Points of the picture over time."""


class AnalysisSettings(msgspec.Struct, frozen=True):
    """`limit`: the error rate that no arm may exceed (None: no such limit). `margin`: the additional error rate, and
    `multiple` how many times stable's, that has to be excluded before a release is promoted."""

    judge: SequentialSettings = SequentialSettings()
    limit: float | None = 0.05
    margin: float = 0.001
    multiple: float = 1.5


class Point(msgspec.Struct, frozen=True):
    """What was known of one arm at `t`: evidence as its natural logarithm, and the ratios not excluded."""

    t: float
    log_e: float
    interval: tuple[float, float]


class ArmResult(msgspec.Struct, frozen=True):
    """What the readings of one arm say. `log_evidence` and `largest` (of all evidence, then and at most) are natural
    logarithms; `t` is when the verdict was first said without being taken back; `failed` counts until then."""

    arm: str
    verdict: VerdictKind
    t: float
    log_evidence: float
    largest: float
    interval: tuple[float, float]
    requests: int
    failed: int
    excess: float
    why: str
    by: Literal["evidence", "limit", ""] = ""
    trace: tuple[Point, ...] = ()


class _Arm:
    """One arm while it is judged: the evidence's states, which are values, and what was counted."""

    def __init__(
        self, name: str, settings: AnalysisSettings, found: Calibration, *, latency: bool,
        slow: LatencyCalibration | None = None,
    ) -> None:  # fmt: skip
        self.name, self.settings, self.found = name, settings, found
        judge = settings.judge
        shares = {"errors": judge.weights.get("errors", 0.0)}
        if latency:
            shares["latency"] = judge.weights.get("latency", 0.0)
        self.shares = shares if sum(shares.values()) > 0 else {"errors": 1.0}
        self.counts_settings = judge.counts(found)
        self.errors: CountEvidence = fresh_counts(self.counts_settings)
        self.latency_settings = judge.latencies(found)
        if slow is not None:
            self.latency_settings = slow.beside(self.latency_settings)
        self.latency: LatencyEvidence | None = None
        self.slo_settings = judge.slo(settings.limit, found) if settings.limit is not None else None
        self.slo: SloEvidence | None = fresh_slo(self.slo_settings) if self.slo_settings else None
        self.pair: tuple[Sample, Sample] | None = None
        self.blocks: list[tuple[Counts, Counts]] = []
        self.own, self.other = Counts(), Counts()
        self.first: Sample | None = None
        self.newest: Sample | None = None
        self.expected = 0.0
        self.share: float | None = None
        self.log_e = self.largest = 0.0
        self.recent: list[tuple[float, Counts]] = []
        self.promotable_since: tuple[float, int, int, float] | None = None
        self.trace: list[tuple[float, float, int]] = []
        self.leading = "errors"

    def advance(self, arm: Sample, stable: Sample | None) -> None:
        """Take in one reading of the arm and the one of stable at the same time."""
        self.first = self.first or arm
        self.newest = arm
        if stable is None:
            return
        before, self.pair = self.pair, (arm, stable)
        if before is None:
            return
        own = Counts(arm.requests - before[0].requests, arm.errors - before[0].errors)
        other = Counts(stable.requests - before[1].requests, stable.errors - before[1].errors)
        moved = self._moved(own, other)
        self._take_errors(own, other, arm.at, moved=moved)
        self._take_limit(own, other, arm.at)
        if "latency" in self.shares:
            self._take_latency(before, arm, stable, moved=moved)
        self.log_e = self._log_e()
        self.largest = max(self.largest, self.log_e)
        self._note_promotable(arm.at)

    def _log_e(self) -> float:
        """Return all evidence against the arm now: that it is worse than stable, or above the hard limit.

        Their average is evidence too, so that one bound holds for both.
        """
        metrics = {"errors": log_e(self.errors)}
        if self.latency is not None:
            metrics["latency"] = latency_log_e(self.latency)
        self.leading = max(metrics, key=lambda name: math.log(self.shares[name]) + metrics[name])
        worse = combine_metrics(self.shares, metrics)
        part = self._limit_part
        return worse if not part else log_mean([(1 - part, worse), (part, self._limit_log_e())])

    @property
    def by(self) -> Literal["evidence", "limit"]:
        """Which of both says more."""
        part = self._limit_part
        return "limit" if part and math.log(part) + self._limit_log_e() > self.log_e - math.log(2) else "evidence"

    @property
    def _limit_part(self) -> float:
        judge = self.settings.judge
        return min(0.5, judge.slo_alpha / judge.alpha) if self.slo is not None else 0.0

    def _limit_log_e(self) -> float:
        """Evidence of the limit; nothing while stable is above it too."""
        return slo_log_e(self.slo) if self.slo is not None and not self._shared_outage() else -700.0

    def interval(self, blocks: int | None = None) -> tuple[float, float]:
        """Return the ratios that the blocks so far do not exclude; the open block is shown too."""
        open_block = (self.errors.sensitive.arm, self.errors.sensitive.stable) if blocks is None else None
        seen = [*self.blocks, open_block] if open_block is not None else self.blocks[:blocks]
        state: RatioInterval = interval_of(seen, self.counts_settings.clump)
        return ratio_interval(state)

    @property
    def failed(self) -> int:
        """Failed requests of the arm since its first reading."""
        return self.newest.errors - self.first.errors if self.newest and self.first else 0

    @property
    def requests(self) -> int:
        """Requests of the arm since its first reading."""
        return self.newest.requests - self.first.requests if self.newest and self.first else 0

    def _take_errors(self, own: Counts, other: Counts, at: float, *, moved: bool) -> None:
        if other.requests:
            self.expected += own.requests * other.errors / other.requests
            self.own += own
            self.other += other
        if moved and self.errors.at is not None and self.errors.at + 0.001 < at:
            # The interval in which the traffic moved belongs to no block but its own.
            self._count(Counts(), Counts(), self.errors.at + 0.001, close=True)
        self._count(own, other, at, close=moved)

    def _count(self, own: Counts, other: Counts, at: float, *, close: bool) -> None:
        held = self.errors.sensitive
        self.errors = update_counts(self.errors, self.counts_settings, own, other, at, close_block=close)
        if self.errors.sensitive.opened == at:
            block = (held.arm + own, held.stable + other)
            if (block[0].errors or block[1].errors) and block[0].requests and block[1].requests:
                self.blocks.append(block)

    def _take_limit(self, own: Counts, other: Counts, at: float) -> None:
        """What stable shares is left out, which is decided without looking at the arm."""
        if self.slo is None or self.slo_settings is None:
            return
        self.recent = [(t, counts) for t, counts in self.recent if t > at - SHARED] + [(at, other)]
        above = other.requests and other.errors > self.slo_settings.limit * other.requests
        if not above and not self._shared_outage():
            self.slo = update_slo(self.slo, self.slo_settings, own, at)

    def _shared_outage(self) -> bool:
        requests = sum(counts.requests for _, counts in self.recent)
        errors = sum(counts.errors for _, counts in self.recent)
        return bool(requests) and errors > (self.settings.limit or 1.0) * requests

    def _take_latency(self, before: tuple[Sample, Sample], arm: Sample, stable: Sample, *, moved: bool) -> None:
        if self.latency is None:
            bounds = common_bounds(arm, stable)
            if not bounds:
                return
            self.latency = fresh_latency(bounds, self.latency_settings)
        own = increments(before[0], arm, self.latency.bounds)
        other = increments(before[1], stable, self.latency.bounds)
        if own is not None and other is not None:
            self.latency = update_latency(
                self.latency, own, other, arm.at, self.latency_settings, close_block=moved
            )  # fmt: skip

    def _moved(self, own: Counts, other: Counts) -> bool:
        """Whether the arm's share of the requests changed by more than chance; errors have no say in it."""
        whole = own.requests + other.requests
        if not whole:
            return False
        share = own.requests / whole
        if self.share is None:
            self.share = share
            return False
        spread = math.sqrt(max(self.share * (1 - self.share), 1 / whole) / whole)
        if abs(share - self.share) <= 6 * spread + 0.1 * self.share:
            return False
        self.share = share
        return True

    def _note_promotable(self, at: float) -> None:
        rate = (self.other.errors + 0.5) / (self.other.requests + 1)
        bound = max(self.settings.multiple * rate, rate + self.settings.margin)
        fine = self.log_e < math.log(self.settings.judge.doubt)
        if not fine or not self.other.requests or not excluded(self.own.errors, self.own.requests, bound):
            self.promotable_since = None
        elif self.promotable_since is None:
            self.promotable_since = (at, self.requests, self.failed, self.failed - self.expected)


def analyse_release(
    stable: Sequence[Sample],
    arms: Mapping[str, Sequence[Sample]],
    calibration: Calibration,
    settings: AnalysisSettings,
    *,
    step: float = 1.0,
    traced: bool = False,
    slow: LatencyCalibration | None = None,
) -> list[ArmResult]:
    """Judge all arms of one release; readings are cumulative, never fall, and ascend in time, `step` seconds apart.

    The first reading of each is what counting starts from. A rollback ends the arm; the others go on. The arm that
    is rolled back first comes first, then by evidence. `traced`: with points for a picture. `slow`: what stable's
    own history says of its latency, where it is known.
    """
    found = settings.judge.calibrated(calibration)
    beside = {round(sample.at, 3): sample for sample in stable}
    near = _Nearest(stable, step / 2)
    latency = any(sample.latency for readings in arms.values() for sample in readings[:1])
    going = {name: _Arm(name, settings, found, latency=latency, slow=slow) for name in arms}
    queues: dict[float, list[tuple[str, Sample]]] = {}
    for name, readings in arms.items():
        for sample in readings:
            queues.setdefault(sample.at, []).append((name, sample))
    ended: list[ArmResult] = []
    needed = math.log(1 / settings.judge.alpha)
    out: dict[str, float] = {}
    for at in sorted(queues):
        for name, sample in queues[at]:
            if name in going:
                going[name].advance(sample, beside.get(round(at, 3)) or near.at(at))
        now = {name: arm.log_e for name, arm in going.items()}
        if traced:
            for name, arm in going.items():
                arm.trace.append((at, now[name], len(arm.blocks)))
        # An arm that is out keeps its evidence: it was tested with the others.
        closed = closed_log_e({**out, **now}) if len(out) + len(now) > 1 else now
        for name in [name for name in going if closed[name] >= needed]:
            arm = going.pop(name)
            out[name] = now[name]
            ended.append(_rolled_back(arm, at, now[name], arm.by))
    last = max([sample.at for readings in (*arms.values(), stable) for sample in readings[-1:]], default=0.0)
    rest = [_at_the_end(arm, last, step) for arm in going.values()]
    return ended + sorted(rest, key=lambda one: -one.largest)


class _Nearest:
    """The reading of stable at about the same moment; both scrapers do not tick together."""

    def __init__(self, stable: Sequence[Sample], within: float) -> None:
        self._stable, self._within, self._index = stable, within, 0

    def at(self, t: float) -> Sample | None:
        """Return the nearest reading; `t` never falls."""
        stable = self._stable
        while self._index + 1 < len(stable) and abs(stable[self._index + 1].at - t) <= abs(stable[self._index].at - t):
            self._index += 1
        found = stable[self._index] if stable else None
        return found if found is not None and abs(found.at - t) <= self._within else None


def _rolled_back(arm: _Arm, at: float, now: float, by: Literal["evidence", "limit"]) -> ArmResult:
    why = f"{arm.failed} of {arm.requests} requests failed; "
    if by == "limit":
        why += f"the error rate is above the limit of {(arm.settings.limit or 0) * 100:g} %"
    else:
        if arm.leading == "latency" and arm.latency is not None:
            why = f"{slower_words(shapes(arm.latency))}{why}"
        why += f"bound on false alarms {arm.settings.judge.alpha * 100:g} %"
    return _result(arm, "rollback", at, now, why, by)


def _at_the_end(arm: _Arm, last: float, step: float) -> ArmResult:
    newest = arm.newest
    if newest is None or not arm.own.requests:
        return _result(arm, "hold", last, arm.log_e, "nothing was measured that could be compared with stable")
    if newest.at < last - max(STALE_STEPS * step, 0.001):
        return _result(
            arm, "hold", last, arm.log_e, f"its readings end at {newest.at:g} s, {last - newest.at:g} s early"
        )
    if arm.promotable_since is not None:
        at, requests, failed, excess = arm.promotable_since
        why = f"more errors than {arm.settings.multiple:g}x stable's or +{arm.settings.margin * 100:g} points are excluded"
        told = _result(arm, "promote", at, arm.log_e, why)
        return msgspec.structs.replace(told, requests=requests, failed=failed, excess=excess)
    return _result(arm, "inconclusive", last, arm.log_e, "neither a fault nor its absence is proven by these data")


def _result(
    arm: _Arm, verdict: VerdictKind, at: float, now: float, why: str, by: Literal["evidence", "limit", ""] = ""
) -> ArmResult:
    return ArmResult(
        arm.name, verdict, at, now, arm.largest, arm.interval(), arm.requests, arm.failed,
        arm.failed - arm.expected, why, by, _picture(arm),
    )  # fmt: skip


def _picture(arm: _Arm) -> tuple[Point, ...]:
    every = max(1, math.ceil(len(arm.trace) / POINTS))
    shown = arm.trace[every - 1 :: every]
    if arm.trace and shown[-1:] != arm.trace[-1:]:
        shown = [*shown, arm.trace[-1]]
    return tuple(Point(at, log, arm.interval(blocks)) for at, log, blocks in shown)
