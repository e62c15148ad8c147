"""Takes an observation into the state: replicas, the observed split, recent samples."""

from __future__ import annotations

from msgspec.structs import replace

from forge.core.judge.history import add_reading
from forge.core.judge.windows import storable
from forge.core.release.state import VersionState
from forge.core.release.tick import Tick
from forge.model.traffic import ReplicaCount, Sample

SHORTEST_HISTORY = 300.0
"""Seconds of samples that are kept at least: people look at the last five minutes."""
MARGIN = 30.0
SPACING = ((15.0, 0.0), (60.0, 5.0), (float("inf"), 10.0))
"""Up to which age samples are kept how far apart, in seconds: a longer window needs no finer reading."""

History = tuple[tuple[float, dict[str, Sample]], ...]


def absorb(tick: Tick) -> None:
    """Update what the state knows of the world; what could not be read stays as it was."""
    _absorb_replicas(tick)
    _absorb_split(tick)
    _absorb_samples(tick)
    missing = tick.observation.samples is None and bool(tick.active)
    since = tick.state.data_missing_since
    if missing and since is None:
        tick.change(data_missing_since=tick.now)
        tick.say("data_missing", f"no metrics: {tick.observation.problem or 'the source cannot be read'}")
    elif not missing and since is not None:
        tick.change(data_missing_since=None)
        tick.say("data_back", f"metrics are back after {tick.now - since:.0f} s", seconds=tick.now - since)


def fresh_sample(tick: Tick, version: str) -> Sample | None:
    """Return the version's sample of this tick, or None when it is missing or stale."""
    sample = (tick.observation.samples or {}).get(version)
    if sample is None or sample.at < tick.now - sample.good_for:
        return None
    return storable(sample)


def compact(history: History, horizon: float) -> History:
    """Return the history without what is older than `horizon` seconds, and older samples further apart."""
    if not history:
        return history
    newest = history[-1][0]
    kept: list[tuple[float, dict[str, Sample]]] = []
    for at, samples in history:
        age = newest - at
        spacing = next(spacing for limit, spacing in SPACING if age <= limit)
        if age <= horizon and (not kept or at - kept[-1][0] >= spacing):
            kept.append((at, samples))
    if kept[-1][0] != newest:
        kept.append(history[-1])
    return tuple(kept)


def _absorb_replicas(tick: Tick) -> None:
    replicas = tick.observation.replicas
    if replicas is None:
        return
    versions = {}
    for version, known in tick.state.versions.items():
        seen = replicas.get(version)
        versions[version] = _with_count(known, seen, tick.now)
    tick.change(versions=versions)


def _with_count(known: VersionState, seen: ReplicaCount | None, now: float) -> VersionState:
    short = (seen.ready if seen else 0) < known.wanted
    since = (known.unready_since if known.unready_since is not None else now) if short else None
    ever = known.ever_ready or bool(seen and seen.ready)
    return replace(known, seen=seen, unready_since=since, ever_ready=ever)


def _absorb_split(tick: Tick) -> None:
    weights = tick.split
    if weights is None:
        return
    tick.change(observed={version: weight for version, weight in weights.items() if weight > 0})
    versions = {}
    for version, known in tick.state.versions.items():
        busy = weights.get(version, 0) > 0 or tick.asked.get(version, 0) > 0
        since = None if busy else (known.idle_since if known.idle_since is not None else tick.now)
        versions[version] = replace(known, idle_since=since)
    tick.change(versions=versions)


def _absorb_samples(tick: Tick) -> None:
    watched = {tick.state.stable, *tick.asked, *(release.version for release in tick.active)}
    samples = {name: sample for name in sorted(watched) if (sample := fresh_sample(tick, name)) is not None}
    if not samples:
        return
    if tick.state.stable in samples:
        stable = samples[tick.state.stable]
        tick.change(own_history=add_reading(tick.state.own_history, tick.state.stable, stable.groups, stable.at))
    samples = {name: replace(sample, groups=()) for name, sample in samples.items()}
    longest = max(
        (threshold.over for release in tick.state.releases.values() for threshold in release.strategy.thresholds),
        default=0.0,
    )
    at = max(sample.at for sample in samples.values())
    history = tick.state.history
    if history and history[-1][0] == at:
        return
    # After the clock was set back, what lies in the future would hide every new sample.
    history = tuple(entry for entry in history if entry[0] < at)
    if history:
        history = (*history[:-1], (history[-1][0], {name: _lean(sample) for name, sample in history[-1][1].items()}))
    horizon = max(longest, SHORTEST_HISTORY) + MARGIN
    tick.change(history=compact((*history, (at, samples)), horizon))


def _lean(sample: Sample) -> Sample:
    """Return a sample without what only the newest one is asked for: the history stays small."""
    if not (sample.templates or sample.gauges or sample.lacks):
        return sample
    return replace(sample, templates=(), gauges=(), lacks=())
