"""Evidence that an arm answers more slowly than stable: e-processes on whole latency histograms.

`whole` bets on all buckets at once with what the past says of both versions, and only where the past says that
the arm is slower. Within one block the factor's mean is at most 1 whatever distribution both share, so load and
slowness that both feel cancel exactly (Turner, Ly & Grünwald, JSPI 2024). It has no margin: at high traffic it
finds any slowing down. `tails` is the count judge on "slower than this bound", averaged over the bounds that tell
something; it tolerates a ratio. `both` fires when both do: a margin, and the whole shape. Half of the stake is
always on a gross channel, which tolerates much, needs no history and waits for no block. See docs/judge.md 3.1.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

import msgspec

from forge.core.judge.calibrate import SHORTEST_HISTORY, Calibration, calibrate
from forge.core.judge.evidence import LONGEST_HAZARD, Counts, grow, relative_log_factor
from forge.core.judge.windows import LARGEST as LARGEST_BOUND
from forge.core.judge.windows import UNBOUNDED
from forge.model.traffic import Sample

Histogram = tuple[tuple[float, int], ...]
"""Requests answered between two readings: (upper bound in seconds, how many in this bucket; not cumulative)."""

MOST_BOUNDS = 16
"""Finer histograms are merged to this many finite bounds, so that the state stays small."""
WORSE = (1.25, 1.6, 2.5, 5.0, 15.0, 100.0)
"""How many times more often than tolerated an arm is slower than a bound: the alternatives of `tails`."""
GROSSLY_WORSE = (1.5, 3.0, 10.0)
"""The alternatives of the gross channel."""
HALF_LIVES = (math.inf, 60.0)
"""Two memories of the past in seconds: all of it, and the recent, which sees a late onset."""
TAILS = (0.0005, 0.6)
"""Which part of stable's requests exceeds a bound that tells something."""
GROSS_TAILS = (0.0005, 0.2)
ENOUGH = 500
"""Requests of stable after which `tails` chooses its bounds."""


class LatencySettings(msgspec.Struct, frozen=True):
    """What is tolerated and how requests hang together.

    `ratio` is how many times as often as stable an arm may be slower than a bound (`tails`, `both`). `clump`:
    requests that are slow as one; `block`: seconds over which the slowness of one arm is correlated (0: one
    reading). `hazard`: the chance, per second, that the trouble begins just now. `shrink`: pseudo-requests by which
    each version's past is drawn to that of both.
    """

    kind: Literal["whole", "tails", "both"] = "whole"
    ratio: float = 1.1
    clump: float = 1.0
    block: float = 0.0
    hazard: float = 1 / 60
    shrink: float = 50.0
    gross_ratio: float = 3.0
    gross_clump: float = 20.0


DEFAULT = LatencySettings()


class LatencyCalibration(Calibration, frozen=True):
    """What a service's history says of its latency; `gross_ratio` is the margin that its own noise needs."""

    gross_ratio: float = 3.0

    def settings(self, kind: Literal["whole", "tails", "both"] = "whole", ratio: float = 1.1) -> LatencySettings:
        """Return the settings for a service with this history."""
        return LatencySettings(kind, ratio, self.clump, self.block, gross_ratio=self.gross_ratio)

    def beside(self, settings: LatencySettings) -> LatencySettings:
        """Return settings that are as careful as this history asks for, and no less than they are.

        History counts from SHORTEST_HISTORY on.
        """
        if self.seconds < SHORTEST_HISTORY or self == msgspec.structs.replace(LATENCY_FALLBACK, seconds=self.seconds):
            return settings
        return msgspec.structs.replace(
            settings, clump=max(settings.clump, self.clump), block=max(settings.block, self.block),
            gross_ratio=max(settings.gross_ratio, self.gross_ratio),
        )  # fmt: skip


LATENCY_FALLBACK = LatencyCalibration(100.0, 15.0)
"""Without history: measured to keep the bound where one version wanders by 10 % for half a minute."""


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """One memory of the past: its stake and what both versions answered, by bucket."""

    stake: float
    arm: tuple[float, ...]
    stable: tuple[float, ...]


class Tails(msgspec.Struct, frozen=True, array_like=True):
    """Bets that the arm exceeds bounds too often: `chosen` are their indexes, None before stable was seen enough."""

    idle: float = 0.5
    chosen: tuple[int, ...] | None = None
    stakes: tuple[tuple[float, ...], ...] = ()


class LatencyEvidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole state, plain JSON. Buckets are one more than `bounds`: the last is unbounded.

    `idle` is the stake of the whole that waits for an onset; `arm` and `stable` are the open block.
    """

    bounds: tuple[float, ...]
    memories: tuple[Memory, ...] = ()
    idle: float = 0.5
    tails: Tails = Tails()
    gross: Tails = Tails()
    kind: str = "whole"
    arm: tuple[int, ...] = ()
    stable: tuple[int, ...] = ()
    opened: float | None = None
    at: float | None = None
    largest: float = 0.0


def fresh_latency(bounds: Sequence[float], settings: LatencySettings = DEFAULT) -> LatencyEvidence:
    """Return the state before anything was seen; `bounds` are the upper bounds of the buckets in seconds."""
    kept = merged_bounds(bounds)
    nothing = (0.0,) * (len(kept) + 1)
    memories = tuple(Memory(0.5, nothing, nothing) for _ in HALF_LIVES)
    empty = (0,) * (len(kept) + 1)
    return LatencyEvidence(kept, memories, kind=settings.kind, arm=empty, stable=empty)


def merged_bounds(bounds: Sequence[float]) -> tuple[float, ...]:
    """Return at most `MOST_BOUNDS` finite bounds, ascending: of the two that are nearest, the upper one stays."""
    kept = sorted({float(bound) for bound in bounds if bound < UNBOUNDED})
    while len(kept) > MOST_BOUNDS:
        gaps = [above / max(below, 1e-9) for below, above in itertools.pairwise(kept)]
        del kept[gaps.index(min(gaps))]
    return tuple(kept)


def common_bounds(arm: Sample, stable: Sample) -> tuple[float, ...]:
    """Return the finite bounds that both versions measure; only these can be compared."""
    return tuple(
        sorted({bound for bound, _ in arm.latency} & {bound for bound, _ in stable.latency if bound < UNBOUNDED})
    )


def increments(before: Sample, after: Sample, bounds: Sequence[float]) -> Histogram | None:
    """Return what was answered between two cumulative readings, by the state's `bounds`.

    None when either reading lacks one of the bounds, or counters fell: then nothing is known of this time.
    """
    old, new = dict(before.latency), dict(after.latency)
    if not new or not all(bound in old and bound in new for bound in bounds):
        return None
    rising = [new[bound] - old[bound] for bound in bounds]
    rising.append(max(new.values()) - max(old.values(), default=0))
    counts = [above - below for below, above in itertools.pairwise([0, *rising])]
    return None if min(counts) < 0 else tuple(zip((*bounds, LARGEST_BOUND), counts, strict=True))


def update_latency(
    state: LatencyEvidence,
    arm: Histogram,
    stable: Histogram,
    at: float,
    settings: LatencySettings = DEFAULT,
    *,
    close_block: bool = False,
) -> LatencyEvidence:
    """Take in what both versions answered since the last reading; `at` is the reading's time in seconds.

    A reading that is not newer than the last one changes nothing. `close_block` ends the block with this reading,
    as every change of weight must. Both histograms must have a bound wherever the state has one.
    """
    if state.at is not None and at <= state.at:
        return state
    opened = state.opened if state.opened is not None else (state.at if state.at is not None else at - 1.0)
    since = state.at if state.at is not None else at - 1.0
    empty = (0,) * len(state.arm)
    own, other = _added(empty, arm, state.bounds), _added(empty, stable, state.bounds)
    past = tuple(map(operator.add, state.memories[0].stable, state.stable))
    gross = _bet(
        state.gross, own, other, past, GROSS_TAILS, GROSSLY_WORSE,
        settings.gross_ratio, settings.gross_clump, _due(settings, at - since),
    )  # fmt: skip
    grown = msgspec.structs.replace(
        state, arm=tuple(map(operator.add, state.arm, own)), stable=tuple(map(operator.add, state.stable, other)),
        gross=gross, opened=opened, at=at,
    )  # fmt: skip
    # A millisecond of tolerance: readings a second apart are never exactly a second apart.
    if not close_block and at - opened < settings.block - 0.001:
        return _noted(grown)
    return _noted(_close(grown, settings, at - opened))


def _noted(closed: LatencyEvidence) -> LatencyEvidence:
    return msgspec.structs.replace(closed, largest=max(closed.largest, latency_log_e(closed)))


def latency_log_e(state: LatencyEvidence) -> float:
    """Return the natural logarithm of the evidence now: 0 is none, ln(100) is 100 to 1."""
    whole = state.idle + math.fsum(memory.stake for memory in state.memories) / len(state.memories)
    if state.kind != "whole":
        whole = _value(state.tails) if state.kind == "tails" else min(whole, _value(state.tails))
    return math.log(0.5 * whole + 0.5 * _value(state.gross))


def _value(tails: Tails) -> float:
    count = sum(map(len, tails.stakes))
    return tails.idle + (math.fsum(map(math.fsum, tails.stakes)) / count if count else 0.5)


def calibrate_latency(
    halves: Sequence[tuple[Histogram, Histogram]], bounds: Sequence[float], step: float = 1.0
) -> LatencyCalibration:
    """Return how slow requests of this service hang together, from both halves of stable; `step` in seconds.

    Each bound that tells something is asked as if "slower than it" were an error; the most careful answer counts.
    The gross channel tolerates what half of stable shows against the other now and then. Too short a history gives
    `LATENCY_FALLBACK`.
    """
    kept = merged_bounds(bounds)
    empty = (0,) * (len(kept) + 1)
    counted = [(_added(empty, one, kept), _added(empty, two, kept)) for one, two in halves]
    whole = tuple(float(sum(one[k] + two[k] for one, two in counted)) for k in range(len(empty)))
    seconds = len(halves) * step
    chosen = _informative(whole, TAILS)
    if seconds < SHORTEST_HISTORY or not chosen:
        return msgspec.structs.replace(LATENCY_FALLBACK, seconds=seconds)
    found = [
        calibrate([(Counts(sum(a), sum(a[k + 1 :])), Counts(sum(b), sum(b[k + 1 :]))) for a, b in counted], step)
        for k in chosen
    ]
    wander = max(_wander(counted, k, max(1, round(30 / step))) for k in chosen)
    return LatencyCalibration(
        max(one.clump for one in found), max(one.block for one in found), seconds,
        min(100.0, max(DEFAULT.gross_ratio, math.exp(3 * wander))),
    )  # fmt: skip


def _wander(counted: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], index: int, length: int) -> float:
    """Return the standard deviation, beyond chance, of the log of how often one half exceeds a bound to the other."""
    found = []
    for start in range(0, len(counted) - length + 1, length):
        rows = counted[start : start + length]
        requests, others = sum(sum(one) for one, _ in rows), sum(sum(two) for _, two in rows)
        above = sum(sum(one[index + 1 :]) for one, _ in rows)
        others_above = sum(sum(two[index + 1 :]) for _, two in rows)
        if min(above, others_above) >= 10:
            off = math.log(above / requests) - math.log(others_above / others)
            found.append(off**2 - 1 / above - 1 / others_above)
    return math.sqrt(max(0.0, math.fsum(found) / len(found))) if len(found) >= 10 else 0.0


def _added(counts: tuple[int, ...], more: Histogram, bounds: tuple[float, ...]) -> tuple[int, ...]:
    sums = list(counts)
    for bound, count in more:
        sums[bisect_left(bounds, bound)] += max(0, count)
    return tuple(sums)


def _close(state: LatencyEvidence, settings: LatencySettings, seconds: float) -> LatencyEvidence:
    """Turn the open block into factors, and only then remember it."""
    due = _due(settings, seconds)
    tails = state.tails
    if settings.kind != "whole":
        past = state.memories[0].stable
        tails = _bet(
            state.tails, state.arm, state.stable, past, TAILS, WORSE, settings.ratio, settings.clump, due
        )  # fmt: skip
    injected = state.idle * due
    memories = tuple(
        _remembered(memory, state, injected, settings, 0.5 ** (max(1.0, seconds) / half_life))
        for memory, half_life in zip(state.memories, HALF_LIVES, strict=True)
    )
    empty = (0,) * len(state.arm)
    return msgspec.structs.replace(
        state, memories=memories, idle=state.idle - injected, tails=tails, arm=empty, stable=empty, opened=state.at
    )


def _remembered(
    memory: Memory, block: LatencyEvidence, injected: float, settings: LatencySettings, kept: float
) -> Memory:
    stake = grow(memory.stake + injected, _whole_log_factor(memory, block.arm, block.stable, settings))
    # Six digits are kept: no estimate is finer, and the state stays small.
    return Memory(
        stake,
        tuple(_short(old * kept + new) for old, new in zip(memory.arm, block.arm, strict=True)),
        tuple(_short(old * kept + new) for old, new in zip(memory.stable, block.stable, strict=True)),
    )


def _whole_log_factor(
    memory: Memory, arm: tuple[int, ...], stable: tuple[int, ...], settings: LatencySettings
) -> float:
    """Return ln of the block's factor, 0 where there is nothing to bet on."""
    requests, others = sum(arm), sum(stable)
    past, others_past = math.fsum(memory.arm), math.fsum(memory.stable)
    if not requests or not others or not past or not others_past:
        return 0.0
    share = requests / (requests + others)
    shrink, buckets = settings.shrink, len(arm)
    whole = past + others_past + 0.5 * buckets
    slower, tail, factor = 0.0, 0.0, 0.0
    for k in range(buckets - 1, -1, -1):
        pooled = shrink * (memory.arm[k] + memory.stable[k] + 0.5) / whole
        own = (memory.arm[k] + pooled) / (past + shrink)
        other = (memory.stable[k] + pooled) / (others_past + shrink)
        tail += own - other
        slower += tail
        same = share * own + (1 - share) * other
        factor += arm[k] * math.log(own / same) + stable[k] * math.log(other / same)
    if slower <= 0:
        return 0.0
    return factor / max(1.0, min(settings.clump, requests + others))


def _bet(
    tails: Tails,
    arm: tuple[int, ...],
    stable: tuple[int, ...],
    past: tuple[float, ...],
    span: tuple[float, float],
    alternatives: tuple[float, ...],
    ratio: float,
    clump: float,
    due: float,
) -> Tails:
    """Bet on each chosen bound that the arm exceeds it more than `ratio` times as often as stable."""
    chosen, stakes = tails.chosen, tails.stakes
    if chosen is None:
        chosen = _informative(past, span)
        if chosen is None:
            return tails
        stakes = ((0.5,) * len(alternatives),) * len(chosen)
    injected = tails.idle * due
    requests, others = sum(arm), sum(stable)
    weighed = requests * ratio
    grown = []
    for index, bets in zip(chosen, stakes, strict=True):
        above, others_above = sum(arm[index + 1 :]), sum(stable[index + 1 :])
        total = above + others_above
        if not total or not requests or not others:
            grown.append(tuple(stake + injected for stake in bets))
            continue
        tolerated = weighed / (weighed + others)
        shares = (weighed * worse / (weighed * worse + others) for worse in alternatives)
        grown.append(
            tuple(
                grow(stake + injected, relative_log_factor(above, total, tolerated, share, clump))
                for stake, share in zip(bets, shares, strict=True)
            )
        )
    return Tails(tails.idle - injected, chosen, tuple(grown))


def _informative(stable: tuple[float, ...], span: tuple[float, float]) -> tuple[int, ...] | None:
    """Return the bounds that some but not most of stable's requests exceed, and the first that almost none does.

    None before stable has answered enough.
    """
    total = math.fsum(stable)
    if total < ENOUGH:
        return None
    least, most = span
    above = [math.fsum(stable[index + 1 :]) / total for index in range(len(stable) - 1)]
    chosen = [index for index, tail in enumerate(above) if least < tail < most]
    rare = [index for index, tail in enumerate(above) if tail <= least]
    return tuple(chosen + rare[:1])


def _due(settings: LatencySettings, seconds: float) -> float:
    return min(LONGEST_HAZARD, 1 - math.pow(1 - settings.hazard, max(1.0, seconds)))


def _short(value: float) -> float:
    return float(f"{value:.6g}")
