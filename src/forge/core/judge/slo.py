"""The hard limit of a service, such as "never more than 5 % of requests", as an e-process on the arm alone.

It needs no stable version to compare with, and it fires for a version that is above its limit with a false alarm
rate of at most `alpha`, where the literal rule on a young window fires at a fraction of it (docs/judge.md 2.7).
"""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

from forge.core.judge.evidence import Counts, grow

MULTIPLES = (1.25, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 19.9)


class SloSettings(msgspec.Struct, frozen=True):
    """`limit`: the error rate that must not be exceeded; `alpha`: the bound on a false alarm."""

    limit: float = 0.05
    alpha: float = 0.001
    clump: float = 1.0
    hazard: float = 1 / 60


class SloEvidence(msgspec.Struct, frozen=True):
    """The state, plain JSON."""

    stakes: tuple[float, ...]
    idle: float = 0.5
    at: float | None = None
    largest: float = 0.0


def fresh_slo(settings: SloSettings) -> SloEvidence:
    """Return the state before anything was seen."""
    return SloEvidence((0.5,) * len(_multiples(settings.limit)))


def update_slo(state: SloEvidence, settings: SloSettings, arm: Counts, at: float) -> SloEvidence:
    """Take in what the arm answered since the last reading; an older reading changes nothing."""
    if state.at is not None and at <= state.at:
        return state
    seconds = max(1.0, at - state.at) if state.at is not None else 1.0
    injected = state.idle * min(0.2, 1 - (1 - settings.hazard) ** seconds)
    good, bound = arm.requests - arm.errors, max(1.0, min(arm.errors, settings.clump))
    stakes = tuple(
        grow(stake + injected, (arm.errors * failed + good * answered) / bound)
        for stake, (failed, answered) in zip(state.stakes, _logs(settings.limit), strict=True)
    )
    grown = SloEvidence(stakes, state.idle - injected, at, state.largest)
    return SloEvidence(stakes, grown.idle, at, max(state.largest, slo_log_e(grown)))


def slo_log_e(state: SloEvidence) -> float:
    """Return the natural logarithm of the evidence that the limit is exceeded; fires at ln(1/alpha)."""
    return math.log(state.idle + math.fsum(state.stakes) / len(state.stakes))


@lru_cache(maxsize=64)
def _logs(limit: float) -> tuple[tuple[float, float], ...]:
    """Return, for each bet, the log factor of one error and of one good answer."""
    return tuple((math.log(worse), math.log((1 - limit * worse) / (1 - limit))) for worse in _multiples(limit))


def _multiples(limit: float) -> tuple[float, ...]:
    return tuple(worse for worse in MULTIPLES if limit * worse < 1) or ((1 + (1 / limit - 1) / 2),)
