"""Evidence from gauges (CPU, memory, queue lengths): an arm above stable, an arm above its limit, and leaks.

A gauge's readings hang together over time and have no known distribution, so that little may be assumed: against
stable only the sign counts, one bounded vote a block of time; against a limit the mean of a bounded quantity.
Both are bets whose factor has a mean of at most 1 whatever the past was (docs/judge.md 3.5).
"""

from __future__ import annotations

import math

import msgspec

from forge.core.judge.evidence import LONGEST_HAZARD, grow

CHANCES = (0.6, 0.75, 0.9, 0.98)
"""How often the arm is supposed to be above stable: the alternatives to "not more often than not"."""
FRACTIONS = (0.1, 0.3, 0.6, 0.95)
"""What part of the stake is put on "above its limit"."""


class GaugeEvidence(msgspec.Struct, frozen=True):
    """The whole state, plain JSON; `arm`, `stable` and `readings` sum the open block."""

    stakes: tuple[float, ...] = (0.5,) * len(CHANCES)
    idle: float = 0.5
    arm: float = 0.0
    stable: float = 0.0
    readings: int = 0
    opened: float | None = None
    at: float | None = None
    largest: float = 0.0
    votes: tuple[int, int] = (0, 0)
    """Blocks above and not above, for people."""


def fresh_gauge() -> GaugeEvidence:
    """Return the state before anything was seen: evidence 1, which is none."""
    return GaugeEvidence()


def update_gauge(
    state: GaugeEvidence, arm: float, stable: float, at: float, block: float = 15.0, bound: float = 1.1,
    hazard: float = 1 / 60,
) -> GaugeEvidence:  # fmt: skip
    """Take in one reading of both, per replica, at the same time `at` in seconds.

    Each `block` seconds cast one vote: is the arm's mean above `bound` times stable's? A reading that is not newer
    than the last one, or is not a number, changes nothing.
    """
    if (state.at is not None and at <= state.at) or not (math.isfinite(arm) and math.isfinite(stable)):
        return state
    opened = state.opened if state.opened is not None else at
    grown = msgspec.structs.replace(
        state, arm=state.arm + arm, stable=state.stable + stable, readings=state.readings + 1, opened=opened, at=at
    )
    if at - opened < block - 0.001:
        return grown
    own, tolerated = grown.arm / grown.readings, grown.stable / grown.readings * bound
    above = own > tolerated
    injected = grown.idle * _due(hazard, at - opened)
    stakes = tuple(
        grow(stake + injected, math.log(2 * chance if above else (2 * (1 - chance) if own < tolerated else 1.0)))
        for stake, chance in zip(grown.stakes, CHANCES, strict=True)
    )
    votes = (state.votes[0] + above, state.votes[1] + (not above))
    closed = GaugeEvidence(stakes, grown.idle - injected, opened=at, at=at, largest=state.largest, votes=votes)
    return msgspec.structs.replace(closed, largest=max(closed.largest, gauge_log_e(closed)))


def gauge_log_e(state: GaugeEvidence) -> float:
    """Return the natural logarithm of the evidence that the arm is above stable."""
    return math.log(state.idle + math.fsum(state.stakes) / len(state.stakes))


class LimitEvidence(msgspec.Struct, frozen=True):
    """The whole state of a gauge against its limit, plain JSON; `total` and `readings` sum the open block."""

    stakes: tuple[float, ...] = (0.5,) * len(FRACTIONS)
    idle: float = 0.5
    total: float = 0.0
    readings: int = 0
    opened: float | None = None
    at: float | None = None
    largest: float = 0.0


def fresh_limit() -> LimitEvidence:
    """Return the state before anything was seen."""
    return LimitEvidence()


def update_limit(
    state: LimitEvidence, value: float, limit: float, at: float, block: float = 15.0, top: float = 2.0,
    hazard: float = 1 / 60,
) -> LimitEvidence:  # fmt: skip
    """Take in one reading; the null is "given the past, the mean of a block is at most `limit`".

    What is above `top` times the limit counts as that much. Raises ValueError for a limit that is not positive.
    """
    if limit <= 0:
        raise ValueError(f"a limit is positive, not {limit:g}")
    if (state.at is not None and at <= state.at) or not math.isfinite(value):
        return state
    opened = state.opened if state.opened is not None else at
    bounded = min(max(0.0, value), top * limit) / limit
    total, readings = state.total + bounded, state.readings + 1
    if at - opened < block - 0.001:
        return msgspec.structs.replace(state, total=total, readings=readings, opened=opened, at=at)
    injected = state.idle * _due(hazard, at - opened)
    excess = total / readings - 1.0
    stakes = tuple(
        grow(stake + injected, math.log1p(part * excess)) for stake, part in zip(state.stakes, FRACTIONS, strict=True)
    )
    closed = LimitEvidence(stakes, state.idle - injected, opened=at, at=at, largest=state.largest)
    return msgspec.structs.replace(closed, largest=max(closed.largest, limit_log_e(closed)))


def limit_log_e(state: LimitEvidence) -> float:
    """Return the natural logarithm of the evidence that the limit is exceeded."""
    return math.log(state.idle + math.fsum(state.stakes) / len(state.stakes))


def _due(hazard: float, seconds: float) -> float:
    return min(LONGEST_HAZARD, 1 - math.pow(1 - hazard, max(1.0, seconds)))
