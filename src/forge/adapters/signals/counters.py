"""From what stores keep to counts that never fall: sums of counters that reset, and of counts per interval."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

SERIES_KEPT = 100_000
"""So many series are remembered; beyond that those that were not seen for longest are forgotten."""
LATE = 600.0
"""Seconds in which a count per interval may still be corrected upward by late data."""


class _Seen(msgspec.Struct):
    last: float
    at: float


class CounterSums:
    """Adds up the increments of many counters (one a pod) to one number for each name, which never falls.

    A counter that fell was reset and has counted from nothing since. One that is seen for the first time begins
    at its value: what it counted before is nobody's business here. One that is gone and comes back goes on where
    it was. What is not a number, negative or infinite is left out.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._seen: dict[str, dict[str, _Seen]] = {}

    def take(self, readings: Mapping[str, Mapping[str, float]], now: float) -> dict[str, float]:
        """Add one reading, {name: {series: value}}; return the sums of these names."""
        for name, series in readings.items():
            known = self._seen.setdefault(name, {})
            total = self._sums.setdefault(name, 0.0)
            for key, value in series.items():
                if not math.isfinite(value) or value < 0:
                    continue
                before = known.get(key)
                if before is not None:
                    total += value - before.last if value >= before.last else value
                known[key] = _Seen(value, now)
            self._sums[name] = total
        self._forget()
        return {name: self._sums[name] for name in readings}

    def _forget(self) -> None:
        count = sum(len(series) for series in self._seen.values())
        if count <= SERIES_KEPT:
            return
        oldest = sorted((seen.at, name, key) for name, series in self._seen.items() for key, seen in series.items())
        for _, name, key in oldest[: count - SERIES_KEPT]:
            del self._seen[name][key]
            if not self._seen[name]:
                del self._seen[name]  # its sum stays: it may come back, and never falls

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`."""
        seen = {name: {key: [one.last, one.at] for key, one in series.items()} for name, series in self._seen.items()}
        return {"sums": dict(self._sums), "seen": seen}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`; one that does not fit is ignored."""
        try:
            saved = msgspec.convert(state, _SavedCounters)
        except msgspec.ValidationError:
            return
        self._sums = saved.sums
        self._seen = {name: {key: _Seen(*pair) for key, pair in series.items()} for name, series in saved.seen.items()}


class _SavedCounters(msgspec.Struct):
    sums: dict[str, float] = {}
    seen: dict[str, dict[str, tuple[float, float]]] = {}


class IntervalSums:
    """Adds up counts that a store keeps per interval (Datadog, CloudWatch, log counts, ...), each interval once.

    An interval may be read again: a larger count adds the difference, a smaller one (a partial answer) nothing.
    Ask the store for everything from `since(now)` on, aligned to `step` seconds.
    """

    def __init__(self, step: float) -> None:
        self.step = step
        self._sums: dict[str, float] = {}
        self._counted: dict[str, dict[int, float]] = {}
        self._from: float | None = None
        self._newest = 0.0

    def since(self, now: float) -> float:
        """Return the beginning of the first interval to ask for; the very first reading starts at the current one."""
        if self._from is None:
            self._from = math.floor(now / self.step) * self.step
        # Not before what was forgotten, also when a clock that ran ahead is set back: nothing counts twice.
        self._newest = max(self._newest, now)
        return max(self._from, math.floor((self._newest - LATE) / self.step) * self.step)

    def take(self, readings: Mapping[str, Mapping[float, float]], now: float) -> dict[str, float]:
        """Add one answer, {name: {beginning of the interval: count}}; return the sums of these names."""
        start = self.since(now)
        for name, intervals in readings.items():
            counted = self._counted.setdefault(name, {})
            total = self._sums.setdefault(name, 0.0)
            for begin, count in intervals.items():
                slot = round(begin / self.step)
                if begin < start - 0.001 or not math.isfinite(count) or count <= counted.get(slot, 0.0):
                    continue
                total += count - counted.get(slot, 0.0)
                counted[slot] = count
            self._sums[name] = total
        oldest = math.floor((self._newest - LATE) / self.step) - 1
        kept = {name: {slot: n for slot, n in slots.items() if slot >= oldest} for name, slots in self._counted.items()}
        self._counted = {name: slots for name, slots in kept.items() if slots}
        return {name: self._sums[name] for name in readings}

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`."""
        counted = {name: [[slot, count] for slot, count in slots.items()] for name, slots in self._counted.items()}
        return {"from": self._from, "newest": self._newest, "sums": dict(self._sums), "counted": counted}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`; one that does not fit is ignored."""
        try:
            saved = msgspec.convert(state, _SavedIntervals)
        except msgspec.ValidationError:
            return
        self._from, self._newest, self._sums = saved.begin, saved.newest, saved.sums
        self._counted = {name: dict(slots) for name, slots in saved.counted.items()}


class _SavedIntervals(msgspec.Struct, rename={"begin": "from"}):
    begin: float | None = None
    newest: float = 0.0
    sums: dict[str, float] = {}
    counted: dict[str, list[tuple[int, float]]] = {}
