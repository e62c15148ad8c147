"""Durations from Prometheus: classic histograms by their `le`, native ones sorted into fixed bounds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import accumulate

import msgspec

from forge.adapters.signals.prometheus_api import NativeHistogram, Series, number
from forge.adapters.signals.prometheus_counters import RangeCounters, series_key
from forge.adapters.signals.prometheus_versions import Versions

BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, math.inf,
)  # fmt: skip
"""Seconds; what native histograms are sorted into, whose own bounds change with what they hold."""


class Histograms:
    """Adds up the histograms of all replicas of each version. `unit`: seconds in one of the metric's units."""

    def __init__(self, unit: float) -> None:
        self._unit = unit
        self._counters = RangeCounters()
        self._bounds: dict[str, list[float]] = {}

    def take(self, found: list[Series], versions: Versions, now: float) -> None:
        """Take in the raw series of one look."""
        reporters = set()
        for series in found:
            version = versions.of(series.metric)
            if version is None:
                continue
            labels = {name: value for name, value in series.metric.items() if name not in ("le", "__name__")}
            reporter = f"{version} {series_key(labels)}"
            if series.histograms:
                self._native(series, version, reporter)
            elif "le" in series.metric:
                bound = _bound(series.metric["le"], self._unit)
                if math.isnan(bound):
                    continue
                self._add(version, bound, series_key(series.metric), series, reporter)
            else:
                continue
            reporters.add(reporter)
        self._counters.looked(reporters, now)

    def latency(self, version: str) -> tuple[tuple[float, int], ...]:
        """Return (upper bound in seconds, cumulative count at or below it), rising; empty: nothing was seen."""
        rows: list[tuple[float, int]] = []
        for bound in self._bounds.get(version, []):
            count = self._counters.total(_name(version, bound))
            rows.append((bound, max(count, rows[-1][1] if rows else 0)))
        return tuple(rows)

    def keep_only(self, wanted: Callable[[str], bool]) -> None:
        """Forget versions that are not wanted any more."""
        self._bounds = {version: bounds for version, bounds in self._bounds.items() if wanted(version)}
        self._counters.keep_only(lambda name: name.split(" ", 1)[1] in self._bounds)

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`: the sums, not the many series; each goes on at its next sample."""
        bounds = {
            version: [None if math.isinf(bound) else bound for bound in held] for version, held in self._bounds.items()
        }
        return {**self._counters.state(with_series=False), "bounds": bounds}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`."""
        self._counters.restore(state)
        held = state.get("bounds")
        try:
            known = msgspec.convert(held, dict[str, list[float | None]])
        except msgspec.ValidationError:
            return
        self._bounds = {
            version: sorted(math.inf if bound is None else bound for bound in bounds)
            for version, bounds in known.items()
        }

    def _add(self, version: str, bound: float, key: str, series: Series, reporter: str) -> None:
        self._known(version, bound)
        samples = [(at, number(text)) for at, text in series.values]
        self._counters.take(key, samples, (_name(version, bound),), reporter)

    def _native(self, series: Series, version: str, reporter: str) -> None:
        key = series_key(series.metric)
        rows = [(at, sorted_into(histogram, self._unit)) for at, histogram in series.histograms]
        for index, bound in enumerate(BOUNDS):
            self._known(version, bound)
            samples = [(at, counts[index]) for at, counts in rows]
            self._counters.take(f"{key} {index}", samples, (_name(version, bound),), reporter)

    def _known(self, version: str, bound: float) -> None:
        held = self._bounds.setdefault(version, [])
        if bound not in held:
            held.append(bound)
            held.sort()


def sorted_into(histogram: NativeHistogram, unit: float) -> list[float]:
    """Return the cumulative counts at or below each of BOUNDS; a bucket counts where its upper end lies."""
    counts = [0.0] * len(BOUNDS)
    for _, _, upper, count in histogram.buckets:
        bound = number(upper) * unit * (1 - 1e-9)
        counts[-1 if math.isnan(bound) else bisect_left(BOUNDS, bound)] += number(count)
    rising = [*accumulate(counts)]
    rising[-1] = max(rising[-1], number(histogram.count))
    return rising


def _bound(text: str, unit: float) -> float:
    value = number(text)
    return value if math.isinf(value) else float(f"{value * unit:.12g}")


def _name(version: str, bound: float) -> str:
    return f"{bound:.12g} {version}"
