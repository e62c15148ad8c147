"""What a service's own history says of its errors, kept as sums: an A/A test of stable's replicas that never ends.

The same rule as `calibrate`, without keeping the readings. Old history fades, so that a service may change.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from forge.core.judge.calibrate import BLOCKS, Calibration, choose
from forge.core.judge.evidence import Counts

GAP = 5.0
"""Seconds without a reading after which open blocks are dropped: nobody knows what happened meanwhile."""
FADES_AT = 6 * 3600.0
"""Seconds of history from which on everything counts half, again and again."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """One length of block: both halves of the open one, and the sums of the closed ones."""

    first: Counts = Counts()
    second: Counts = Counts()
    opened: float = 0.0
    above: float = 0.0
    below: float = 0.0
    count: float = 0.0


class OwnHistory(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole state, plain JSON. `last` has each replica's counters (requests, errors) of `version` at `at`."""

    version: str = ""
    at: float = 0.0
    seconds: float = 0.0
    last: dict[str, tuple[int, int]] = {}
    blocks: tuple[Block, ...] = ()


def add_reading(history: OwnHistory, version: str, groups: tuple[tuple[str, int, int], ...], at: float) -> OwnHistory:
    """Take in one reading of stable's replicas: (replica, requests, errors), cumulative; `at` in seconds."""
    if len(groups) < 2 or (history.version == version and at <= history.at):
        return history
    now = {name: (requests, errors) for name, requests, errors in groups}
    passed = at - history.at
    if history.version != version or passed > GAP or not history.blocks:
        kept = history.blocks or tuple(Block() for _ in BLOCKS)
        blocks = tuple(Block(Counts(), Counts(), at, one.above, one.below, one.count) for one in kept)
        return OwnHistory(version, at, history.seconds, now, blocks)
    first, second = _halves(history.last, now)
    blocks = tuple(_grown(one, first, second, at, length) for one, length in zip(history.blocks, BLOCKS, strict=True))
    return _faded(OwnHistory(version, at, history.seconds + passed, now, blocks))


def calibration_of(history: OwnHistory) -> Calibration:
    """Return what the history says; the fallback while it is too short."""
    spreads = [(one.above / one.below if one.below else 0.0, max(1, round(one.count))) for one in history.blocks]
    return choose(BLOCKS, spreads, history.seconds)


def _halves(before: Mapping[str, tuple[int, int]], now: Mapping[str, tuple[int, int]]) -> tuple[Counts, Counts]:
    """Return what each half of the replicas counted; one that is new, or counts anew, gives nothing this time."""
    halves = [Counts(), Counts()]
    for index, name in enumerate(sorted(now)):
        if name not in before:
            continue
        requests, errors = (new - old for new, old in zip(now[name], before[name], strict=True))
        if requests >= 0 and errors >= 0:
            halves[index % 2] += Counts(requests, min(errors, requests))
    return halves[0], halves[1]


def _grown(block: Block, first: Counts, second: Counts, at: float, length: float) -> Block:
    one, two = block.first + first, block.second + second
    if at - block.opened < length - 0.05:
        return Block(one, two, block.opened, block.above, block.below, block.count)
    total, requests = one.errors + two.errors, one.requests + two.requests
    if not one.requests or not two.requests:
        return Block(Counts(), Counts(), at, block.above, block.below, block.count)
    share = one.requests / requests
    above = block.above + (one.errors - share * total) ** 2
    below = block.below + total * share * (1 - share)
    return Block(Counts(), Counts(), at, round(above, 6), round(below, 6), block.count + 1)


def _faded(history: OwnHistory) -> OwnHistory:
    if history.seconds < FADES_AT:
        return history
    blocks = tuple(
        Block(one.first, one.second, one.opened, one.above / 2, one.below / 2, one.count / 2) for one in history.blocks
    )
    return OwnHistory(history.version, history.at, history.seconds / 2, history.last, blocks)
