"""The simulated source of metrics: true counts, and the ways in which a reading of them goes wrong.

Resets are handled by the same code that reads a real proxy's counters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from forge.adapters.signals.envoy import Counters, EnvoyCounters
from forge.model.errors import DependencyFailed
from forge.model.traffic import Sample
from forge.simulate.faults import Weather
from forge.simulate.versions import BOUNDS

REMEMBERED = 64
"""So many readings can be delivered late."""


@dataclass(slots=True)
class Meter:
    """What one version really did. `raw` counts from the last restart of the source."""

    requests: int = 0
    errors: int = 0
    excess: float = 0.0
    """Expected failures above what the version beside it would have had."""
    first: float | None = None
    cpu: float = 0.0
    memory: int = 0
    groups: dict[str, list[int]] = field(default_factory=dict)
    """(requests, errors) of each replica, where readings tell them apart; since the last restart of the source."""
    raw: list[int] = field(default_factory=lambda: [0, 0])
    buckets: list[int] = field(default_factory=lambda: [0] * len(BOUNDS))


class Meters:
    """Counts, and reads as the adapters do."""

    def __init__(self, clock: Callable[[], float], weather: Weather) -> None:
        self.of: dict[str, Meter] = {}
        self._clock, self._weather = clock, weather
        self._counters = EnvoyCounters()
        self._starts = 0
        self._past: deque[tuple[float, dict[str, Sample]]] = deque(maxlen=REMEMBERED)

    def meter(self, version: str) -> Meter:
        """Return the version's true counts."""
        return self.of.setdefault(version, Meter())

    def count(self, version: str, requests: int, errors: int, latency: list[int]) -> None:
        """Count requests; `latency` has how many fell into each bucket of BOUNDS."""
        meter = self.meter(version)
        meter.requests += requests
        meter.errors += errors
        meter.raw[0] += requests
        meter.raw[1] += errors
        meter.buckets = [old + new for old, new in zip(meter.buckets, latency, strict=True)]
        if meter.first is None and requests:
            meter.first = self._clock()

    def reset(self) -> None:
        """Restart the source: it counts from nothing again."""
        self._starts += 1
        for meter in self.of.values():
            meter.raw = [0, 0]
            meter.groups = {}
            meter.buckets = [0] * len(BOUNDS)

    def forget(self, version: str) -> None:
        """Drop a version that is gone for good, so that long stories need no more memory."""
        self.of.pop(version, None)

    def read(self, versions: list[str]) -> dict[str, Sample]:
        """Return what a reading gives now. Raises DependencyFailed while the source is away."""
        if self._weather.on("metrics_away"):
            raise DependencyFailed("the metrics cannot be read")
        if self._weather.on("metrics_duplicated") and self._past:
            return self._visible(self._past[-1][1], versions)
        samples = self._take(versions)
        if self._weather.quiet:
            return self._visible(samples, versions)
        self._past.append((self._clock(), samples))
        late = self._weather.on("metrics_late")
        if late is not None:
            old = [taken for at, taken in self._past if at <= self._clock() - late.amount]
            samples = old[-1] if old else {}
        return self._visible(samples, versions)

    def state(self) -> dict[str, Any]:
        """Return what the reader needs to go on without a jump."""
        return cast("dict[str, Any]", msgspec.to_builtins(self._counters.state()))

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state, as after a restart of Forge."""
        self._counters = EnvoyCounters()
        self._counters.restore(state)
        self._past.clear()

    def _visible(self, samples: dict[str, Sample], versions: list[str]) -> dict[str, Sample]:
        return {
            version: sample
            for version, sample in samples.items()
            if version in versions and not self._weather.on("metrics_lost", version)
        }

    def _take(self, versions: list[str]) -> dict[str, Sample]:
        known = [version for version in versions if version in self.of]
        raw = {version: _counters(self.of[version]) for version in known}
        counted = self._counters.take(raw, str(self._starts), known)
        return {
            version: Sample(
                self._clock(), counted[version].requests, counted[version].errors, counted[version].latency,
                self.of[version].cpu, self.of[version].memory,
                tuple((name, each[0], each[1]) for name, each in sorted(self.of[version].groups.items())),
            )
            for version in known
        }  # fmt: skip


def _counters(meter: Meter) -> Counters:
    total, rising = 0, []
    for bound, count in zip(BOUNDS, meter.buckets, strict=True):
        total += count
        rising.append((bound, total))
    return Counters(meter.raw[0], meter.raw[1], tuple(rising))
