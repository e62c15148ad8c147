"""The quality of the data is an axis of its own: what cannot be seen is neither good nor bad.

Pairs the readings of an arm with those of stable, so that only intervals in which both were observed compare them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Literal

from forge.core.judge.base import Series
from forge.core.release.state import Verdict
from forge.model.traffic import Sample

Quality = Literal["fresh", "stale", "missing", "no_traffic"]
TOGETHER = 2.0
"""Readings of two versions that are at most this many seconds apart are of the same moment."""
RECENT = 15.0
"""Seconds without one request after which there is no traffic."""


def quality_of(series: Series, now: float) -> Quality:
    """Return what the version's readings are good for now."""
    if not series.samples:
        return "missing"
    newest = series.samples[-1]
    if newest.at < now - newest.good_for:
        return "stale"
    before = next((sample for sample in reversed(series.samples) if sample.at <= newest.at - RECENT), series.samples[0])
    return "no_traffic" if newest.requests <= before.requests else "fresh"


def with_quality(verdict: Verdict, quality: Quality) -> Verdict:
    """Return the verdict as it stands, with what its data is worth now."""
    return Verdict(verdict.kind, verdict.why, {**verdict.data, "quality": quality})


def partner(sample: Sample, others: tuple[Sample, ...]) -> Sample | None:
    """Return the reading of `others` (oldest first) at the same moment, None when there is none."""
    index = bisect_left(others, sample.at, key=lambda other: other.at)
    near = [other for other in others[max(0, index - 1) : index + 1] if abs(other.at - sample.at) <= TOGETHER]
    return min(near, key=lambda other: abs(other.at - sample.at), default=None)


def unseen(arm: Series, newest: float | None) -> tuple[Sample, ...]:
    """Return the arm's readings after `newest`, oldest first.

    Without one the first is where counting starts: the newest that is not later than `arm.since`, else the oldest.
    """
    if newest is not None:
        return tuple(sample for sample in arm.samples if sample.at > newest)
    start = 0
    for index, sample in enumerate(arm.samples):
        if sample.at <= arm.since:
            start = index
    return arm.samples[start:]
