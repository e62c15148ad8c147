"""Evidence from kinds of error lines that an arm writes and the stable version beside it never wrote.

Under "no worse" a kind of line lands on the arm with at most the arm's share of the requests, `theta0`, whatever
its rate is and however its lines clump: all lines of one block of time are one draw. So each block in which a kind
is seen on the arm alone multiplies the stake on that kind by `1/theta0`, and one in which stable wrote it too ends
the stake: a fair bet, exact for every number of lines. Kinds are paid for in the order in which they first appear
on either version (the k-th has 1/(k(k+1)) of the stake), so that many kinds are no more likely to alarm than one.
A kind that stable had written before the release is not bet on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from forge.core.judge.combine import log_mean

MOST = 50
"""Kinds that are bet on in one release; the stake of further ones stays in the hand."""
LONGEST_TEXT = 300
DEAD = -1e9
"""The logarithm of a stake that is lost."""
CAP = 600.0


class Stake(msgspec.Struct, frozen=True, array_like=True):
    """The bet on one kind: its place in the order of appearance, the logarithm of what it has become, and the
    lines that the arm wrote of it while it was bet on."""

    place: int
    log: float
    lines: int


class TemplateEvidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole state, plain JSON; `arm`, `stable`, `requests` and `beside` sum the open block."""

    stakes: dict[str, Stake] = {}
    arm: dict[str, int] = {}
    stable: tuple[str, ...] = ()
    requests: int = 0
    beside: int = 0
    opened: float | None = None
    at: float | None = None
    largest: float = 0.0


class TemplateCounts(msgspec.Struct, frozen=True):
    """What one version did between two readings: its requests, and its new lines by kind."""

    requests: int = 0
    lines: Mapping[str, int] = {}


def fresh_templates() -> TemplateEvidence:
    """Return the state before anything was seen: evidence 1, which is none."""
    return TemplateEvidence()


def update_templates(
    state: TemplateEvidence,
    arm: TemplateCounts,
    stable: TemplateCounts,
    known: Mapping[str, int],
    at: float,
    *,
    block: float = 15.0,
    ratio: float = 1.1,
    close_block: bool = False,
) -> TemplateEvidence:
    """Take in what both wrote since the last reading; an older reading changes nothing.

    `known` has the kinds that stable had written before: they are never bet on. `ratio`: how many times stable's
    share of lines per request is tolerated.
    """
    if state.at is not None and at <= state.at:
        return state
    opened = state.opened if state.opened is not None else at
    lines = dict(state.arm)
    for kind, count in arm.lines.items():
        if count > 0 and (kind in lines or (kind not in known and len(lines) < 2 * MOST)):
            lines[kind] = lines.get(kind, 0) + count
    wrote = {kind for kind, count in stable.lines.items() if count > 0} - (known.keys() - state.stakes.keys())
    beside = tuple(sorted({*state.stable, *list(wrote)[: 2 * MOST]}))
    grown = msgspec.structs.replace(
        state, arm=lines, stable=beside, requests=state.requests + max(0, arm.requests),
        beside=state.beside + max(0, stable.requests), opened=opened, at=at,
    )  # fmt: skip
    if not close_block and at - opened < block - 0.001:
        return grown
    return _closed(grown, at, ratio)


def templates_log_e(state: TemplateEvidence) -> float:
    """Return the natural logarithm of the evidence that the arm writes new kinds of error lines."""
    shares = [(1 / (stake.place * (stake.place + 1)), stake.log) for stake in state.stakes.values()]
    return log_mean([(1 / (len(state.stakes) + 1), 0.0), *shares])


def newest_kinds(state: TemplateEvidence, most: int = 3) -> list[tuple[str, int]]:
    """Return the kinds with the most evidence and the arm's lines of each, the strongest first."""
    living = [(stake.log, kind, stake.lines) for kind, stake in state.stakes.items() if stake.log > 0]
    return [(kind, lines) for _, kind, lines in sorted(living, reverse=True)[:most]]


def _closed(state: TemplateEvidence, at: float, ratio: float) -> TemplateEvidence:
    stakes = dict(state.stakes)
    # Sorted by name and not by who wrote it: the order of payment must not look at the arm.
    for kind in sorted({*state.arm, *state.stable} - stakes.keys()):
        if len(stakes) < MOST:
            stakes[kind] = Stake(len(stakes) + 1, 0.0, 0)
    own, other = state.requests * ratio, state.beside
    for kind in {*state.arm, *state.stable} & stakes.keys():
        stake = stakes[kind]
        if kind in state.stable:
            stakes[kind] = Stake(stake.place, DEAD, stake.lines)
        elif own > 0 and other > 0 and stake.log > DEAD:
            won = round(min(CAP, stake.log + math.log((own + other) / own)), 6)
            stakes[kind] = Stake(stake.place, won, stake.lines + state.arm[kind])
    closed = TemplateEvidence(stakes=stakes, opened=at, at=at, largest=state.largest)
    return msgspec.structs.replace(closed, largest=max(closed.largest, round(templates_log_e(closed), 6)))
