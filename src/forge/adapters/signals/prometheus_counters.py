"""Adds up raw samples of counters, series by series, so that no restart and no late series is missed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping

import msgspec

GONE = 3600.0
"""Seconds after which a series, or a replica, that was not seen any more is forgotten."""
SERIES_KEPT = 5_000
"""So many series are carried over a restart of Forge."""
MOST = 2.0**60
"""No counter of requests gets there; sums of larger numbers would not end as numbers."""


class RangeCounters:
    """Sums of increments by name. A name's sum never falls, whatever its series do.

    A counter that fell was reset and has counted from nothing since. A series that is new counts from its first
    sample on; from 0 if who reports it was seen before without it, as a counter of one status code that comes into
    being with the first such answer.
    """

    def __init__(self) -> None:
        self._totals: dict[str, float] = {}
        self._last: dict[str, tuple[float, float]] = {}
        self._reporters: dict[str, float] = {}

    def take(self, series: str, samples: Iterable[tuple[float, float]], names: tuple[str, ...], reporter: str) -> None:
        """Add the samples, (time, value) oldest first, that were not taken in before, to all of `names`."""
        last, grown = self._last.get(series), 0.0
        born = last is None and reporter in self._reporters
        for at, value in samples:
            if not (0 <= value <= MOST and math.isfinite(at)) or (last is not None and at <= last[0]):
                continue
            if last is not None:
                grown += value - last[1] if value >= last[1] else value
            elif born:
                grown += value
            last = (at, value)
        if last is not None:
            self._last[series] = last
        for name in names:
            self._totals[name] = self._totals.get(name, 0.0) + grown

    def add(self, name: str, amount: float) -> None:
        """Add what came since the last time, for who reports no counters but differences."""
        if 0 < amount <= MOST:
            self._totals[name] = self._totals.get(name, 0.0) + amount

    def looked(self, reporters: Iterable[str], now: float) -> None:
        """Remember who reported; call it after all series of one look were taken in."""
        for reporter in reporters:
            self._reporters[reporter] = now
        gone = [name for name, at in self._reporters.items() if now - at >= GONE]
        for name in gone:
            del self._reporters[name]
        if gone or len(self._last) > SERIES_KEPT:
            # Later than who reported it, so that no old series is taken for one that was just born.
            self._last = {series: last for series, last in self._last.items() if now - last[0] < 2 * GONE}

    def total(self, name: str) -> int:
        """Return the sum of a name so far."""
        return round(self._totals.get(name, 0.0))

    def keep_only(self, wanted: Callable[[str], bool]) -> None:
        """Forget the sums of names that are not wanted any more."""
        self._totals = {name: total for name, total in self._totals.items() if wanted(name)}

    def knows(self, reporter: str) -> bool:
        """Tell whether it reported lately."""
        return reporter in self._reporters

    def state(self, *, with_series: bool = True) -> dict[str, object]:
        """Return JSON data for `restore`; without series each begins at its next sample."""
        newest = sorted(self._last.items(), key=lambda item: -item[1][0])[:SERIES_KEPT] if with_series else []
        # Without all of its series a reporter would look as if the others had just been born.
        reporters = dict(self._reporters) if len(newest) == len(self._last) else {}
        return {"totals": dict(self._totals), "last": {key: [*last] for key, last in newest}, "reporters": reporters}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`; one that does not fit is ignored."""
        try:
            saved = msgspec.convert(state, _Saved)
        except msgspec.ValidationError:
            return
        self._totals, self._last, self._reporters = saved.totals, saved.last, saved.reporters


class _Saved(msgspec.Struct):
    totals: dict[str, float] = {}
    last: dict[str, tuple[float, float]] = {}
    reporters: dict[str, float] = {}


def series_key(labels: Mapping[str, str]) -> str:
    """Return a short name of a series that is the same in every process."""
    return hashlib.blake2b(repr(sorted(labels.items())).encode(), digest_size=8).hexdigest()
