"""What a release has cost its users: requests, failed requests, and how many more failed than stable would have."""

from __future__ import annotations

from msgspec.structs import replace

from forge.core.release.observe import fresh_sample
from forge.core.release.state import RELEASE_FINAL, ReleaseState
from forge.core.release.tick import Tick
from forge.model.traffic import Sample

STRAGGLERS = 10.0
"""Seconds after the end of a release in which answers to requests already under way are still counted."""


def begin(tick: Tick, release: ReleaseState) -> ReleaseState:
    """Return the release at the moment when it is given its first traffic: counting starts here."""
    baseline = _latest(tick, release.version) or Sample(tick.now, 0, 0)
    stable = _latest(tick, tick.state.stable)
    return replace(
        release, baseline=baseline, stable_baseline=_counts_only(stable) if stable else None, traffic_since=tick.now
    )


def count(tick: Tick) -> None:
    """Bring the counters of every release that has, or just had, traffic up to date."""
    newest = {release.version: release.id for release in tick.state.releases.values()}
    for release in tick.state.releases.values():
        if release.baseline is None or newest[release.version] != release.id or not _still_counts(release, tick.now):
            continue
        sample = fresh_sample(tick, release.version)
        if sample is not None:
            counted = counted_until(release, sample, fresh_sample(tick, tick.state.stable))
            if counted != release:
                tick.put(counted)


def counted_until(release: ReleaseState, sample: Sample, stable: Sample | None) -> ReleaseState:
    """Return the release with its counters as of `sample`; they never fall."""
    if release.baseline is None:
        return release
    requests = max(release.requests, sample.requests - release.baseline.requests)
    failed = max(release.failed_requests, sample.errors - release.baseline.errors)
    excess = release.excess_failed
    before = release.stable_baseline
    if stable is not None and before is not None and stable.requests > before.requests:
        rate = max(0, stable.errors - before.errors) / (stable.requests - before.requests)
        excess = failed - requests * rate
    elif before is None or stable is None:
        excess = excess if requests == release.requests else float(failed)
    return replace(release, requests=requests, failed_requests=failed, excess_failed=round(excess, 3))


def _still_counts(release: ReleaseState, now: float) -> bool:
    if release.status not in RELEASE_FINAL:
        return True
    return release.status != "promoted" and now - (release.finished_at or 0.0) <= STRAGGLERS


def _latest(tick: Tick, version: str) -> Sample | None:
    fresh = fresh_sample(tick, version)
    if fresh is not None:
        return fresh
    return next((samples[version] for _, samples in reversed(tick.state.history) if version in samples), None)


def _counts_only(sample: Sample) -> Sample:
    return replace(sample, latency=())
