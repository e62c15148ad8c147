"""Any judge over recorded readings: what it would have said, and when. The same judges as in a running release."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from forge.core.judge.base import Judge, Series
from forge.core.judge.calibrate import FALLBACK, Calibration
from forge.core.release.state import ReleaseState
from forge.model.strategy import Strategy
from forge.model.traffic import Sample

HORIZON = 330.0
"""Seconds of readings that a judge is shown, as in a running release; what is older it must remember itself."""


class RecordedVerdict(msgspec.Struct, frozen=True):
    """What a judge said of one recorded arm: the first `rollback`, or its last word.

    `at` is the time of the reading at which it said so first without changing its mind.
    """

    kind: Literal["rollback", "promote", "hold", "inconclusive"]
    at: float
    why: str
    data: dict[str, Any] = {}
    state: dict[str, Any] = {}


def judge_recorded(
    judge: Judge,
    arm: Sequence[Sample],
    stable: Sequence[Sample],
    *,
    version: str = "arm",
    stable_version: str = "stable",
    strategy: Strategy | None = None,
    since: float | None = None,
    replicas: int = 1,
    weights: Sequence[int] = (),
    calibration: Calibration = FALLBACK,
) -> RecordedVerdict:
    """Let `judge` see the readings one by one, oldest first; both are cumulative and ascend in time.

    `since`: the time from which they count (None: from the first of `arm`); `weights`: the arm's basis points at
    each reading, where they are known. Raises ValueError without readings, or when there are not as many weights.
    """
    if not arm:
        raise ValueError(f"there are no readings of {version}")
    if weights and len(weights) != len(arm):
        raise ValueError(f"there are {len(weights)} weights for {len(arm)} readings")
    since = arm[0].at if since is None else since
    release = ReleaseState(
        "recorded-1", version, strategy or Strategy(), "progressing", created_at=since, started_at=since,
        traffic_since=since, baseline=arm[0], stable_baseline=stable[0] if stable else None, previous=stable_version,
    )  # fmt: skip
    state: dict[str, Any] = {}
    said: RecordedVerdict | None = None
    stable_times = [sample.at for sample in stable]
    arm_times = [sample.at for sample in arm]
    for index, sample in enumerate(arm):
        now = sample.at
        first = bisect_left(arm_times, now - HORIZON)
        shown = arm[first : index + 1] if first == 0 else (arm[0], *arm[first : index + 1])
        last = bisect_left(stable_times, now + 0.001)
        other = stable[bisect_left(stable_times, now - HORIZON) : last]
        split = (weights[index],) if weights else ()
        verdict, state = judge.judge(
            state,
            release,
            Series(version, tuple(shown), since, replicas, split, calibration),
            Series(stable_version, tuple(other), since, replicas, calibration=calibration),
            now,
        )
        at = said.at if said is not None and said.kind == verdict.kind else now
        said = RecordedVerdict(verdict.kind, at, verdict.why, verdict.data, state)
        if verdict.kind == "rollback":
            break
    assert said is not None
    return said
