"""What the sequential judge remembers of one arm, and how one pair of readings changes it.

Every reading is taken in once: evidence is a product, and a factor counted twice would be a false alarm.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from forge.core.judge import written
from forge.core.judge.base import Series
from forge.core.judge.calibrate import Calibration
from forge.core.judge.evidence import CountEvidence, Counts, CountSettings, fresh_counts, update_counts
from forge.core.judge.gauges import GaugeEvidence, fresh_gauge, update_gauge
from forge.core.judge.interval import RatioInterval, update_interval
from forge.core.judge.latency import LatencyEvidence, common_bounds, fresh_latency, increments, update_latency
from forge.core.judge.quality import partner, unseen
from forge.core.judge.settings import SequentialSettings
from forge.core.judge.slo import SloEvidence, fresh_slo, update_slo
from forge.core.judge.stored import restored, shortened
from forge.core.judge.windows import UNBOUNDED, window
from forge.core.judge.written import Written
from forge.model.traffic import Sample

SHARED = 15.0
"""Seconds over which stable's own error rate tells whether an outage is shared."""
IDLE_CORES = 0.05
SMALL_MEMORY = 64 * 1024 * 1024
"""Below these a version uses so little that a comparison says nothing."""


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole state of one arm, plain JSON. `arm` and `stable` are the newest pair of readings taken in,
    `alone` the arm's newest reading; `weights` the traffic's split at that time."""

    errors: CountEvidence
    calibration: Calibration
    interval: RatioInterval = RatioInterval()
    latency: LatencyEvidence | None = None
    cpu: GaugeEvidence | None = None
    memory: GaugeEvidence | None = None
    slo: SloEvidence | None = None
    limit: float = 0.0
    arm: Sample | None = None
    stable: Sample | None = None
    stable_version: str = ""
    alone: Sample | None = None
    weights: tuple[int, ...] = ()
    arm_counts: Counts = Counts()
    """Of the arm since it is judged, whether or not stable was seen."""
    compared: tuple[Counts, Counts] = (Counts(), Counts())
    """Of both, while both were seen."""
    unclear_since: float | None = None
    written: Written | None = None
    """What both wrote to their logs; None: nobody reads them."""
    measured: tuple[str, ...] = ()
    """Which metrics stable was measured by at the first pair of readings: they share the weight. Stable alone is
    asked, so that the arm's fate has no say in how it is judged. Empty: a state of before, with all but logs."""


def recall(state: dict[str, Any], settings: SequentialSettings, stable: Series) -> Memory:
    """Return the memory from a judge's state; an empty one begins, with the calibration that is known then."""
    if state:
        return msgspec.convert(restored(state), Memory, strict=False)
    found = settings.calibrated(stable.calibration)
    return Memory(fresh_counts(settings.counts(found)), found)


def remembered(memory: Memory) -> dict[str, Any]:
    """Return the memory as JSON gives it back, so that a state is the same before and after it was stored."""
    state: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(memory))
    return shortened(state)


def take_all(memory: Memory, settings: SequentialSettings, arm: Series, stable: Series, limit: float | None) -> Memory:
    """Take in every reading that was not seen yet. `limit` is the hard limit of the error rate, if there is one."""
    memory = _watch_limit(memory, settings, limit)
    if memory.stable_version != stable.version:
        # Another version became stable: what was counted of the one before does not compare with it.
        memory = replace(memory, stable=None, arm=None, stable_version=stable.version)
    others = () if stable.version == arm.version else stable.samples
    weights = (*arm.weights, *stable.weights)
    for sample in unseen(arm, memory.alone.at if memory.alone is not None else None):
        beside = partner(sample, others)
        memory = _take_alone(memory, settings, sample, beside, stable)
        if beside is not None and (memory.stable is None or beside.at > memory.stable.at):
            memory = _take_pair(memory, settings, sample, beside, (arm.replicas, stable.replicas), weights)
    return memory


def error_counts(before: Sample, after: Sample) -> Counts | None:
    """Return what was counted between two readings; None when a counter fell, which makes no factor."""
    requests, errors = after.requests - before.requests, after.errors - before.errors
    return Counts(requests, min(errors, requests)) if requests >= 0 and errors >= 0 else None


def open_block(memory: Memory) -> tuple[Counts, Counts]:
    """Return what the open block of the sensitive channel holds."""
    return memory.errors.sensitive.arm, memory.errors.sensitive.stable


def shared_outage(stable: Series, limit: float) -> bool:
    """Whether stable itself is above the limit now."""
    if not stable.samples:
        return False
    seen = window(stable.samples, stable.samples[-1].at - SHARED)
    return seen is not None and seen.requests > 0 and seen.error_rate > limit


def _watch_limit(memory: Memory, settings: SequentialSettings, limit: float | None) -> Memory:
    if limit is None:
        return replace(memory, slo=None, limit=0.0)
    if memory.slo is not None and memory.limit == limit:
        return memory
    return replace(memory, slo=fresh_slo(settings.slo(limit, memory.calibration)), limit=limit)


def _take_alone(
    memory: Memory, settings: SequentialSettings, sample: Sample, beside: Sample | None, stable: Series
) -> Memory:
    """Count what the arm answered, and hold it against the hard limit unless stable is above that too.

    Leaving out what stable shares is decided without looking at the arm, so that the bound still holds.
    """
    counts = error_counts(memory.alone, sample) if memory.alone is not None else None
    if counts is not None:
        memory = replace(memory, arm_counts=memory.arm_counts + counts)
        if memory.slo is not None and not _shared_now(memory, beside, stable):
            slo = update_slo(memory.slo, settings.slo(memory.limit, memory.calibration), counts, sample.at)
            memory = replace(memory, slo=slo)
    return replace(memory, alone=Sample(sample.at, sample.requests, sample.errors))


def _shared_now(memory: Memory, beside: Sample | None, stable: Series) -> bool:
    if beside is None or memory.stable is None:
        return False
    now = error_counts(memory.stable, beside)
    above = now is not None and now.requests > 0 and now.errors > memory.limit * now.requests
    return above or shared_outage(stable, memory.limit)


def _take_pair(
    memory: Memory, settings: SequentialSettings, sample: Sample, beside: Sample, replicas: tuple[int, int],
    weights: tuple[int, ...],
) -> Memory:  # fmt: skip
    if memory.arm is not None and memory.stable is not None:
        counts = settings.counts(memory.calibration)
        moved = bool(memory.weights) and memory.weights != weights
        own, other = error_counts(memory.arm, sample), error_counts(memory.stable, beside)
        if own is not None and other is not None:
            memory = _take_errors(memory, counts, own, other, sample.at, moved)
        memory = _take_latency(memory, settings, sample, beside, moved)
        memory = _take_gauges(memory, settings, sample, beside, replicas)
        if memory.written is not None and own is not None and other is not None:
            pair = (memory.arm or sample, memory.stable or beside)
            block = max(memory.calibration.block, 5.0)
            taken = written.take(memory.written, pair, (sample, beside), (own, other), block, moved=moved)
            memory = replace(memory, written=taken)
    elif memory.written is not None:
        memory = replace(memory, written=written.compare_anew(memory.written, sample, beside))
    if not memory.measured:
        memory = replace(memory, measured=_measured(beside), written=written.begin(sample, beside))
    if memory.latency is None and sample.latency and beside.latency:
        kept = settings.latencies(memory.calibration)
        memory = replace(memory, latency=fresh_latency(common_bounds(sample, beside), kept))
    bounds = memory.latency.bounds if memory.latency is not None else ()
    return replace(memory, arm=_trimmed(sample, bounds), stable=_trimmed(beside, bounds), weights=weights)


def _measured(stable: Sample) -> tuple[str, ...]:
    seen = {
        "errors": True,
        "latency": bool(stable.latency),
        "saturation": stable.cpu_seconds is not None or stable.memory is not None,
        "logs": stable.log_errors is not None or bool(stable.templates),
    }
    return tuple(name for name, known in seen.items() if known)


def _take_errors(memory: Memory, settings: CountSettings, own: Counts, other: Counts, at: float, moved: bool) -> Memory:
    """Add one interval. A change of weight ends the block before it, and the interval in which it fell."""
    if moved and memory.errors.at is not None and memory.errors.at + 0.001 < at:
        memory = _counted(memory, settings, Counts(), Counts(), memory.errors.at + 0.001, True)
    memory = replace(memory, compared=(memory.compared[0] + own, memory.compared[1] + other))
    return _counted(memory, settings, own, other, at, moved)


def _counted(memory: Memory, settings: CountSettings, own: Counts, other: Counts, at: float, close: bool) -> Memory:
    before = open_block(memory)
    errors = update_counts(memory.errors, settings, own, other, at, close_block=close)
    memory = replace(memory, errors=errors)
    if errors.at == at and errors.sensitive.opened == at:
        block = (before[0] + own, before[1] + other)
        memory = replace(memory, interval=update_interval(memory.interval, *block, settings.clump))
    return memory


def _take_latency(memory: Memory, settings: SequentialSettings, sample: Sample, beside: Sample, moved: bool) -> Memory:
    state, arm, stable = memory.latency, memory.arm, memory.stable
    if state is None or arm is None or stable is None:
        return memory
    own, other = increments(arm, sample, state.bounds), increments(stable, beside, state.bounds)
    if own is None or other is None:
        return memory
    kept = settings.latencies(memory.calibration)
    return replace(memory, latency=update_latency(state, own, other, sample.at, kept, close_block=moved))


def _take_gauges(
    memory: Memory, settings: SequentialSettings, sample: Sample, beside: Sample, replicas: tuple[int, int]
) -> Memory:
    arm, stable = memory.arm, memory.stable
    if arm is None or stable is None:
        return memory
    if sample.memory is not None and beside.memory is not None:
        # Small sizes are lifted, so that one page more is no finding.
        own, other = (max(SMALL_MEMORY, size) / SMALL_MEMORY for size in (sample.memory, beside.memory))
        state = update_gauge(memory.memory or fresh_gauge(), own, other, sample.at, bound=settings.memory)
        memory = replace(memory, memory=state)
    ratio = _cpu_ratio((arm, sample), (stable, beside), replicas)
    if ratio is not None:
        state = update_gauge(memory.cpu or fresh_gauge(), ratio, 1.0, sample.at, bound=settings.cpu)
        memory = replace(memory, cpu=state)
    return memory


def _cpu_ratio(own: tuple[Sample, Sample], other: tuple[Sample, Sample], replicas: tuple[int, int]) -> float | None:
    """Return how many times as much CPU the arm takes, per replica and per request, whichever is less.

    With the same code the one that gets less load per replica takes more per request, and the other way round:
    both at once are higher only when the code takes more.
    """
    used = []
    for (before, after), count in zip((own, other), replicas, strict=True):
        if before.cpu_seconds is None or after.cpu_seconds is None or count < 1 or after.at <= before.at:
            return None
        seconds = max(0.0, after.cpu_seconds - before.cpu_seconds)
        requests = after.requests - before.requests
        cores = max(seconds / (after.at - before.at) / count, IDLE_CORES)
        used.append((cores, seconds / requests if requests > 0 else None))
    (cores, each), (other_cores, other_each) = used
    if each is None or not other_each:
        return None
    return min(cores / other_cores, each / other_each)


def _trimmed(sample: Sample, bounds: tuple[float, ...]) -> Sample:
    """Return only what the next reading is compared with: the state stays small."""
    wanted = set(bounds)
    latency = tuple((bound, count) for bound, count in sample.latency if bound in wanted or bound >= UNBOUNDED)
    return replace(sample, latency=latency, groups=(), templates=(), gauges=(), values=(), lacks=())
