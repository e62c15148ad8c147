"""What a service's own history says of its errors: how many come as one, and for how long they are correlated.

Stable's replicas are read in two halves that serve the same version, an A/A test: whatever differs between them
by more than chance is clumping or one-sided noise (docs/judge.md 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from forge.core.judge.evidence import Counts

BLOCKS = (1.0, 5.0, 15.0, 30.0, 60.0)
"""Lengths in seconds that are tried."""
GROWTH = 1.25
SURPLUS = 2.5
SHORTEST_HISTORY = 300.0


class Calibration(msgspec.Struct, frozen=True):
    """`clump` errors come as one; errors of one half are correlated over `block` seconds; from `seconds` of history."""

    clump: float
    block: float
    seconds: float = 0.0


FALLBACK = Calibration(20.0, 15.0)
"""Without history: measured to keep the bound in all but the noisiest service (docs/judge.md 2.2)."""


def calibrate(halves: Sequence[tuple[Counts, Counts]], step: float = 1.0) -> Calibration:
    """Return what the history of both halves says; `step` is the time between its readings in seconds.

    Too short a history gives the fallback.
    """
    blocks = [block for block in BLOCKS if block >= step]
    spreads = [_spread(halves, max(1, round(block / step))) for block in blocks]
    return choose(blocks, spreads, len(halves) * step)


def choose(blocks: Sequence[float], spreads: Sequence[tuple[float, int]], seconds: float) -> Calibration:
    """Return the shortest block after which the spread does not grow any more, and the clump that it tells of.

    `spreads` has, for each length of block, the variance in units of pure chance and the number of blocks.
    """
    if seconds < SHORTEST_HISTORY:
        return Calibration(FALLBACK.clump, FALLBACK.block, seconds)
    for index, (spread, count) in enumerate(spreads):
        later = spreads[index + 1 :]
        if all(other <= max(GROWTH * spread, _noise(number)) for other, number in later):
            clump = 1.0 if spread <= _noise(count) else 4 * spread
            return Calibration(clump, blocks[index], seconds)
    raise AssertionError("the longest block has none after it")


def _spread(halves: Sequence[tuple[Counts, Counts]], length: int) -> tuple[float, int]:
    """Return the errors' variance between the halves in units of pure chance, and the number of blocks."""
    above, below, blocks = 0.0, 0.0, 0
    for start in range(0, len(halves) - length + 1, length):
        rows = halves[start : start + length]
        first = sum((one for one, _ in rows), Counts())
        second = sum((two for _, two in rows), Counts())
        total, requests = first.errors + second.errors, first.requests + second.requests
        if not requests or not first.requests or not second.requests:
            continue
        share = first.requests / requests
        above += (first.errors - share * total) ** 2
        below += total * share * (1 - share)
        blocks += 1
    return (above / below if below else 0.0), max(1, blocks)


def _noise(blocks: int) -> float:
    """Return how large the spread may be by chance alone."""
    return 1 + SURPLUS * math.sqrt(2 / blocks)
