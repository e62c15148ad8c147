"""Keeps a release from the step that would fill something up: memory, connections, CPU, a queue.

The gauges of an arm are followed while it has traffic (core/judge/saturation.py); before its weight grows they are
forecast to what each of its replicas will have to carry then. Nothing here ever rolls a release back: at its present
weight it does no harm.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from forge.core.judge.saturation import Outlook, follow, outlooks, refusal
from forge.core.release.capacity import replicas_for
from forge.core.release.observe import fresh_sample
from forge.core.release.state import ReleaseState
from forge.core.release.tick import Tick
from forge.model.traffic import Sample
from forge.model.units import WHOLE, format_weight

HORIZON = 3600.0
"""Seconds within which a leak must not fill anything at the weight that is asked for."""
LATELY = 5.0
"""Seconds over which requests per second are counted; so long after a change of weight nothing is taken in."""


class Refusal(NamedTuple):
    """Why the weight may not grow, in words, and the outlook of every gauge behind them."""

    words: str
    found: list[Outlook]


def follow_gauges(tick: Tick) -> None:
    """Take in the gauges of every arm that has had its weight for a while."""
    for release in tick.active:
        sample = fresh_sample(tick, release.version)
        if sample is None or not sample.gauges or sample.at <= release.gauges_at:
            continue
        if release.traffic_since is None:
            _at_rest(tick, release, sample)
            continue
        weight = tick.asked.get(release.version, 0)
        if weight != release.gauges_weight or tick.observed(release.version) != weight:
            tick.put(replace(release, gauges_weight=weight, gauges_since=tick.now))
            continue
        load = load_now(tick, release)
        if load is None or sample.at - release.gauges_since < LATELY:
            continue
        tracks = follow(release.gauges, sample.gauges, load, sample.at, weight)
        tick.put(replace(release, gauges=tracks, gauges_at=sample.at))


def _at_rest(tick: Tick, release: ReleaseState, sample: Sample) -> None:
    """Take in what a version uses that is ready and was asked nothing yet."""
    known = tick.version(release.version)
    if known is None or tick.ready(release.version) < max(1, known.wanted) or release.status == "queued":
        return
    tracks = follow(release.gauges, sample.gauges, 0.0, sample.at, 0)
    tick.put(replace(release, gauges=tracks, gauges_at=sample.at))


def refused(tick: Tick, release: ReleaseState, weight: int) -> Refusal | None:
    """Return why the arm must not have `weight` basis points; None: nothing would be too full, or a person insists."""
    if not release.gauges or release.forced or release.kind == "rollback" or not tick.state.stable:
        return None
    load = _load_at(tick, release, weight)
    if load is None:
        return None
    fullest = release.strategy.fullest
    found = outlooks(release.gauges, load, HORIZON)
    words = refusal(found, fullest, HORIZON)
    return Refusal(f"at {format_weight(weight)} {words}", found) if words else None


def load_now(tick: Tick, release: ReleaseState) -> float | None:
    """Return the requests a second that each ready replica of the arm answers; None: not known."""
    ready = tick.ready(release.version)
    rate = _rate(tick, release.version)
    return rate / ready if ready > 0 and rate is not None else None


def _load_at(tick: Tick, release: ReleaseState, weight: int) -> float | None:
    """Return what each replica will have to answer at `weight`, with the replicas that there will be then."""
    rates = [_rate(tick, version) for version in tick.asked]
    known = [rate for rate in rates if rate is not None]
    if not known:
        return None
    replicas = max(replicas_for(weight, tick.full(release.version)), tick.ready(release.version), 1)
    return sum(known) * weight / WHOLE / replicas


def _rate(tick: Tick, version: str) -> float | None:
    newest = fresh_sample(tick, version)
    if newest is None:
        return None
    before = None
    for at, samples in reversed(tick.state.history):
        if version in samples and samples[version].at < newest.at:
            before = samples[version]
            if newest.at - at >= LATELY:
                break
    if before is None:
        return None
    return max(0, newest.requests - before.requests) / (newest.at - before.at)
