"""Evidence from log lines at level error: the count judge, with what makes lines different from failed requests.

One request may write many lines (a stack trace, a retry), so lines are counted against chances to write one, of
which each request has `CHANCES`: the limit of many chances is a Poisson count, which has no largest value. Lines
clump far more than failures do, so without a history of the service's own a storm counts as few votes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from forge.core.judge.calibrate import Calibration, calibrate
from forge.core.judge.evidence import CountEvidence, Counts, CountSettings, fresh_counts, log_e, update_counts

CHANCES = 1000
"""Chances of each request to write an error line."""
FALLBACK = Calibration(50.0, 30.0)
"""Without history: a stack trace of fifty lines is one vote, and a storm of half a minute too."""
TOLERATED_RATE, GROSS_RATE = 0.001, 0.1
"""Lines per request that are always fine; in the channel that needs no history."""


class LogCounts(msgspec.Struct, frozen=True):
    """What one version answered and wrote between two readings."""

    requests: int = 0
    lines: int = 0


def log_settings(
    calibration: Calibration = FALLBACK, *, ratio: float = 1.5, rate: float = TOLERATED_RATE
) -> CountSettings:
    """Return the settings of the count judge for log lines: more is tolerated than of failed requests.

    `rate` is in lines per request.
    """
    return CountSettings(
        ratio=ratio,
        rate=rate / CHANCES,
        clump=calibration.clump,
        block=calibration.block,
        gross_ratio=3.0,
        gross_rate=GROSS_RATE / CHANCES,
        gross_clump=max(FALLBACK.clump, calibration.clump),
        gross_idle=0.5,
    )


def calibrate_logs(halves: Sequence[tuple[LogCounts, LogCounts]], step: float = 1.0) -> Calibration:
    """Return what both halves of stable say of the service's own log lines; too short a history: the fallback."""
    counted = [(_counts(one), _counts(two)) for one, two in halves]
    found = calibrate(counted, step)
    return found if found.seconds >= 300 else Calibration(FALLBACK.clump, FALLBACK.block, found.seconds)


def fresh_log_errors(settings: CountSettings) -> CountEvidence:
    """Return the state before anything was seen."""
    return fresh_counts(settings)


def update_log_errors(
    state: CountEvidence,
    settings: CountSettings,
    arm: LogCounts,
    stable: LogCounts,
    at: float,
    *,
    close_block: bool = False,
) -> CountEvidence:
    """Take in what both versions wrote since the last reading; an older reading changes nothing."""
    return update_counts(state, settings, _counts(arm), _counts(stable), at, close_block=close_block)


def log_errors_log_e(state: CountEvidence) -> float:
    """Return the natural logarithm of the evidence that the arm writes more error lines than stable."""
    return log_e(state)


def _counts(logs: LogCounts) -> Counts:
    chances = logs.requests * CHANCES
    return Counts(chances, min(max(0, logs.lines), chances))
