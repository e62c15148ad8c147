"""What is used of something that has an end, and how much of it will be used with more traffic or after more time.

What grows with the load is forecast from a line through what was seen first (at rest, where there was a reading before
the first request) and what was seen at the newest weight; with one weight only, in proportion to the load, which is
never too little. What grows with time (a leak) is forecast by its
slope (leak.py). A forecast is no evidence against a version: it keeps a release from a step that would hurt.
"""

from __future__ import annotations

import math

import msgspec

from forge.core.judge.leak import Slope, forecast, update_slope
from forge.model.traffic import Gauge
from forge.model.units import format_duration

MOST = 20
"""Gauges that are followed of one version."""
SPREAD = 1.5
"""So many times must the load at the newest weight exceed that at the first for a line through both to tell anything."""
IDLE = 0.01
"""Requests per second and replica below which a version does nothing from which its needs could be told."""
READINGS = 3
"""So many readings at least, so that one glitch stops nobody."""


class Level(msgspec.Struct, frozen=True, array_like=True):
    """What was seen at one weight: how many readings, and the sums of load and value."""

    weight: int = 0
    readings: int = 0
    load: float = 0.0
    value: float = 0.0


class Track(msgspec.Struct, frozen=True, omit_defaults=True):
    """One gauge of one version, plain JSON: the newest reading, what was seen at the first weight and at the newest
    one, and its slope over time. Loads are requests per second and replica."""

    value: float = 0.0
    limit: float = 0.0
    grows_with_load: bool = True
    load: float = 0.0
    readings: int = 0
    first: Level = Level()
    newest: Level = Level()
    slope: Slope = Slope()
    resting: int = 0
    """How many of the readings were taken before it had any traffic."""


class Outlook(msgspec.Struct, frozen=True):
    """What is to come of one gauge: its value now, at the load asked about, and seconds until it is full by itself."""

    name: str
    value: float
    limit: float
    expected: float
    seconds_left: float | None = None

    @property
    def share(self) -> float:
        """Which part of the limit is expected to be used."""
        return self.expected / self.limit


def follow(
    tracks: dict[str, Track], gauges: tuple[Gauge, ...], load: float, at: float, weight: int = 0
) -> dict[str, Track]:
    """Take in one reading of a version's gauges at `load` requests per second and replica, and at `weight`.

    Gauges without a limit, and what is not a number, are left out.
    """
    followed = dict(tracks)
    for gauge in gauges:
        known = gauge.limit is not None and gauge.limit > 0 and math.isfinite(gauge.limit)
        if not known or not math.isfinite(gauge.value) or gauge.value < 0:
            continue
        before = followed.get(gauge.name)
        if before is None and len(followed) >= MOST:
            continue
        followed[gauge.name] = _grown(before or Track(), gauge, max(0.0, load), at, weight)
    return followed


def outlooks(tracks: dict[str, Track], load: float, patience: float) -> list[Outlook]:
    """Return what each gauge comes to at `load` requests per second and replica, the fullest first.

    `patience`: within so many seconds a leak must not fill it, at that load.
    """
    told = {name: track for name, track in tracks.items() if track.readings - track.resting >= READINGS}
    found = [_outlook(name, track, load, patience) for name, track in told.items()]
    return sorted(found, key=lambda outlook: (-outlook.share, outlook.name))


def refusal(found: list[Outlook], fullest: float, patience: float) -> str:
    """Return why a step must not be taken; empty when nothing would be fuller than the share `fullest`."""
    for outlook in found:
        if outlook.share > fullest:
            return (
                f"{outlook.name} would come to {outlook.share * 100:.0f} % of its limit "
                f"(now {outlook.value / outlook.limit * 100:.0f} %), above {fullest * 100:g} %"
            )
        if outlook.seconds_left is not None and outlook.seconds_left < patience:
            return (
                f"{outlook.name} grows all the time and would be full in "
                f"{format_duration(max(1.0, round(outlook.seconds_left)))}"
            )
    return ""


def _grown(track: Track, gauge: Gauge, load: float, at: float, weight: int) -> Track:
    slope = track.slope if gauge.grows_with_load else update_slope(track.slope, gauge.value, at)
    first, newest = track.first, track.newest
    if newest.readings and newest.weight != weight:
        first = newest if not first.readings else first
        newest = Level()
    newest = Level(weight, newest.readings + 1, newest.load + load, newest.value + gauge.value)
    resting = track.resting + (weight == 0)
    return Track(
        gauge.value, gauge.limit or 0.0, gauge.grows_with_load, load, track.readings + 1, first, newest, slope, resting
    )  # fmt: skip


def _outlook(name: str, track: Track, load: float, patience: float) -> Outlook:
    if track.grows_with_load:
        return Outlook(name, track.value, track.limit, _at_load(track, load))
    times = load / track.load if track.load > 0 else 1.0
    told = forecast(track.slope, track.limit, max(1.0, times))
    left = told.seconds_at_full_traffic if told is not None and told.grows else None
    return Outlook(name, track.value, track.limit, track.value, left if left is not None and left < patience else None)


def _at_load(track: Track, load: float) -> float:
    if load <= track.load or track.load < IDLE:
        return track.value
    first, newest = track.first, track.newest
    enough = first.readings >= (1 if first.weight == 0 else READINGS) and newest.readings >= READINGS
    if enough:
        low, high = first.load / first.readings, newest.load / newest.readings
        if high >= SPREAD * low:
            slope = max(0.0, (newest.value / newest.readings - first.value / first.readings) / (high - low))
            return track.value + slope * (load - track.load)
    return track.value * load / track.load
