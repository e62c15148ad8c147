"""Error lines in logs: clumps of lines, more lines than requests, and what is found."""

from __future__ import annotations

import math
import random

import pytest

from forge.core.judge.evidence import CountSettings
from forge.core.judge.log_errors import (
    CHANCES,
    FALLBACK,
    LogCounts,
    calibrate_logs,
    fresh_log_errors,
    log_errors_log_e,
    log_settings,
    update_log_errors,
)

FIRES = math.log(100)


def lines(chance: random.Random, requests: int, rate: float, trace: int) -> int:
    """`rate` of the requests write a trace; its length varies around `trace` lines."""
    return sum(chance.randint(trace // 2, trace + trace // 2) for _ in range(requests) if chance.random() < rate)


def watch(
    chance: random.Random, rate: float, stable: float, *, settings: CountSettings, trace: int = 20, seconds: int = 300
) -> int | None:
    state = fresh_log_errors(settings)
    for second in range(seconds):
        arm = LogCounts(25, lines(chance, 25, rate, trace))
        both = LogCounts(75, lines(chance, 75, stable, trace))
        state = update_log_errors(state, settings, arm, both, float(second))
        if log_errors_log_e(state) >= FIRES:
            return second + 1
    return None


def history(chance: random.Random, seconds: int = 900) -> list[tuple[LogCounts, LogCounts]]:
    return [
        (LogCounts(50, lines(chance, 50, 0.01, 20)), LogCounts(50, lines(chance, 50, 0.01, 20))) for _ in range(seconds)
    ]


def test_traces_are_seen_in_the_history_and_bounded() -> None:
    found = calibrate_logs(history(random.Random(1)))
    assert 40 <= found.clump <= 200
    assert found.seconds == 900


def test_a_short_history_is_none() -> None:
    found = calibrate_logs(history(random.Random(2), 100))
    assert (found.clump, found.block) == (FALLBACK.clump, FALLBACK.block)


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_version_that_logs_like_stable_is_rarely_found(calibrated: bool) -> None:
    chance = random.Random(3)
    settings = log_settings(calibrate_logs(history(chance))) if calibrated else log_settings()
    assert sum(watch(chance, 0.01, 0.01, settings=settings) is not None for _ in range(40)) <= 1


def test_lines_taken_for_single_errors_would_fool_it() -> None:
    chance = random.Random(4)
    naive = CountSettings(ratio=1.5, rate=0.001 / CHANCES, clump=1.0, block=1.0, gross_clump=1.0)
    assert sum(watch(chance, 0.01, 0.01, settings=naive) is not None for _ in range(20)) >= 5


@pytest.mark.parametrize(("rate", "most"), [(1.0, 40), (0.3, 90), (0.1, 290)])
def test_a_version_that_logs_more_is_found(rate: float, most: int) -> None:
    """Where 1 % of stable's requests write a trace of twenty lines; a request may write many."""
    chance = random.Random(5)
    settings = log_settings(calibrate_logs(history(chance)))
    found = [watch(chance, rate, 0.01, settings=settings) for _ in range(7)]
    assert sorted(second or 9999 for second in found)[3] <= most


def test_rare_lines_are_always_fine() -> None:
    """Ten times stable's, but less than one line in 1,000 requests."""
    state, settings = fresh_log_errors(log_settings()), log_settings()
    for second in range(900):
        arm = LogCounts(100, 1 if second % 20 == 0 else 0)
        state = update_log_errors(state, settings, arm, LogCounts(100, 1 if second % 200 == 0 else 0), float(second))
    assert state.largest < FIRES


def test_more_lines_than_there_are_chances_and_fewer_than_none() -> None:
    state, settings = fresh_log_errors(log_settings()), log_settings()
    for second, count in enumerate((10**9, -5, 0)):
        state = update_log_errors(state, settings, LogCounts(1, count), LogCounts(1, count), float(second))
    assert math.isfinite(log_errors_log_e(state))
