"""Evidence that an arm answers more slowly than stable: e-processes on whole latency histograms.

`whole` bets on all buckets at once with what the past says of both versions, and only where the past says that
the arm is slower. Within one block the factor's mean is at most 1 whatever distribution both share, so load and
slowness that both feel cancel exactly (Turner, Ly & Grünwald, JSPI 2024). It has no margin: at high traffic it
finds any slowing down. `tails` is the count judge on "slower than this bound", averaged over the bounds that tell
something; it tolerates a ratio. `both` fires when both do: a margin, and the whole shape. See docs/judge.md 3.1.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

import msgspec

from forge.core.judge.calibrate import SHORTEST_HISTORY, Calibration, calibrate
from forge.core.judge.evidence import LARGEST, LONGEST_HAZARD, Counts, relative_log_factor
from forge.core.judge.windows import LARGEST as LARGEST_BOUND
from forge.core.judge.windows import UNBOUNDED
from forge.model.traffic import Sample

Histogram = tuple[tuple[float, int], ...]
"""Requests answered between two readings: (upper bound in seconds, how many in this bucket; not cumulative)."""

MOST_BOUNDS = 16
"""Finer histograms are merged to this many finite bounds, so that the state stays small."""
WORSE = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
"""How many times more often than tolerated an arm is slower than a bound: the alternatives of `tails`."""
HALF_LIVES = (math.inf, 60.0)
"""Two memories of the past in seconds: all of it, and the recent, which sees a late onset."""
LEAST_TAIL, LARGEST_TAIL = 0.0005, 0.6
LATENCY_FALLBACK = Calibration(5.0, 5.0)
"""Without history."""
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


DEFAULT = LatencySettings()


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """One memory of the past: its stake and what both versions answered, by bucket."""

    stake: float
    arm: tuple[float, ...]
    stable: tuple[float, ...]


class LatencyEvidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole state, plain JSON. Buckets are one more than `bounds`: the last is unbounded.

    `idle` and `idle_tails` are the stakes that wait for an onset; `chosen` the bounds (by index) that `tails` bets
    on, None before stable was seen enough; `tails` their stakes.
    """

    bounds: tuple[float, ...]
    memories: tuple[Memory, ...] = ()
    idle: float = 0.5
    idle_tails: float = 0.5
    chosen: tuple[int, ...] | None = None
    tails: tuple[tuple[float, ...], ...] = ()
    kind: str = "whole"
    arm: tuple[int, ...] = ()
    """The open block."""
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
    grown = msgspec.structs.replace(
        state, arm=_added(state.arm, arm, state.bounds), stable=_added(state.stable, stable, state.bounds),
        opened=opened, at=at,
    )  # fmt: skip
    # A millisecond of tolerance: readings a second apart are never exactly a second apart.
    if not close_block and at - opened < settings.block - 0.001:
        return grown
    closed = _close(grown, settings, max(1.0, at - opened))
    return msgspec.structs.replace(closed, largest=max(closed.largest, latency_log_e(closed)))


def latency_log_e(state: LatencyEvidence) -> float:
    """Return the natural logarithm of the evidence now: 0 is none, ln(100) is 100 to 1."""
    whole = math.log(state.idle + math.fsum(memory.stake for memory in state.memories) / len(state.memories))
    if state.kind == "whole":
        return whole
    count = len(state.tails) * len(WORSE)
    placed = math.fsum(map(math.fsum, state.tails)) / count if count else 0.5
    tails = math.log(state.idle_tails + placed)
    return tails if state.kind == "tails" else min(whole, tails)


def calibrate_latency(
    halves: Sequence[tuple[Histogram, Histogram]], bounds: Sequence[float], step: float = 1.0
) -> Calibration:
    """Return how slow requests of this service hang together, from both halves of stable; `step` in seconds.

    Each bound that tells something is asked as if "slower than it" were an error; the most careful answer counts.
    Too short a history gives `LATENCY_FALLBACK`.
    """
    kept = merged_bounds(bounds)
    empty = (0,) * (len(kept) + 1)
    counted = [(_added(empty, one, kept), _added(empty, two, kept)) for one, two in halves]
    whole = tuple(float(sum(one[k] + two[k] for one, two in counted)) for k in range(len(empty)))
    seconds = len(halves) * step
    chosen = _informative(whole)
    if seconds < SHORTEST_HISTORY or not chosen:
        return Calibration(LATENCY_FALLBACK.clump, LATENCY_FALLBACK.block, seconds)
    found = [
        calibrate(
            [(Counts(sum(a), sum(a[k + 1 :])), Counts(sum(b), sum(b[k + 1 :]))) for a, b in counted], step
        )
        for k in chosen
    ]  # fmt: skip
    return Calibration(max(one.clump for one in found), max(one.block for one in found), seconds)


def _added(counts: tuple[int, ...], more: Histogram, bounds: tuple[float, ...]) -> tuple[int, ...]:
    sums = list(counts)
    for bound, count in more:
        sums[bisect_left(bounds, bound)] += max(0, count)
    return tuple(sums)


def _close(state: LatencyEvidence, settings: LatencySettings, seconds: float) -> LatencyEvidence:
    """Turn the open block into factors, and only then remember it."""
    due = min(LONGEST_HAZARD, 1 - (1 - settings.hazard) ** seconds)
    changes: dict[str, object] = {}
    if settings.kind != "whole":
        changes |= _tails(state, settings, due)
    injected = state.idle * due
    memories = tuple(
        _remembered(memory, state, injected, settings, 0.5 ** (seconds / half_life))
        for memory, half_life in zip(state.memories, HALF_LIVES, strict=True)
    )
    empty = (0,) * len(state.arm)
    changes |= {"memories": memories, "idle": state.idle - injected, "arm": empty, "stable": empty, "opened": state.at}
    return msgspec.structs.replace(state, **changes)


def _remembered(
    memory: Memory, block: LatencyEvidence, injected: float, settings: LatencySettings, kept: float
) -> Memory:
    stake = _grow(memory.stake + injected, _whole_log_factor(memory, block.arm, block.stable, settings))
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


def _tails(state: LatencyEvidence, settings: LatencySettings, due: float) -> dict[str, object]:
    """Bet on each chosen bound that the arm is slower than it more often than is tolerated."""
    chosen, tails = state.chosen, state.tails
    if chosen is None:
        chosen = _informative(state.memories[0].stable)
        if chosen is None:
            return {}
        tails = ((0.5,) * len(WORSE),) * len(chosen)
    injected = state.idle_tails * due
    requests, others = sum(state.arm), sum(state.stable)
    grown = []
    for index, stakes in zip(chosen, tails, strict=True):
        above, others_above = sum(state.arm[index + 1 :]), sum(state.stable[index + 1 :])
        total = above + others_above
        if not total or not requests or not others:
            grown.append(tuple(stake + injected for stake in stakes))
            continue
        weighed = requests * settings.ratio
        tolerated = weighed / (weighed + others)
        shares = (weighed * worse / (weighed * worse + others) for worse in WORSE)
        grown.append(
            tuple(
                _grow(stake + injected, relative_log_factor(above, total, tolerated, share, settings.clump))
                for stake, share in zip(stakes, shares, strict=True)
            )
        )
    return {"chosen": chosen, "tails": tuple(grown), "idle_tails": state.idle_tails - injected}


def _informative(stable: tuple[float, ...]) -> tuple[int, ...] | None:
    """Return the bounds that some but not most of stable's requests exceed, and the first that almost none does."""
    total = math.fsum(stable)
    if total < ENOUGH:
        return None
    above = [math.fsum(stable[index + 1 :]) / total for index in range(len(stable) - 1)]
    chosen = [index for index, tail in enumerate(above) if LEAST_TAIL < tail < LARGEST_TAIL]
    rare = [index for index, tail in enumerate(above) if tail <= LEAST_TAIL]
    return tuple(chosen + rare[:1])


def _grow(stake: float, log_factor: float) -> float:
    grown = math.log(stake) + log_factor if stake > 0 else -math.inf
    if grown < -650:
        return 0.0
    return LARGEST if grown > 640 else float(f"{math.exp(grown):.9g}")


def _short(value: float) -> float:
    return float(f"{value:.6g}")
