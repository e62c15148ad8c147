"""Leaks: how fast a gauge grows, and when it reaches its limit, now and with all of the traffic.

A least-squares line over the readings, with their time and value counted from the first, so that the state is six
numbers. Its slope is evidence for nobody: it warns people while the limit is still far (gauges.py judges).
"""

from __future__ import annotations

import math

import msgspec


class Slope(msgspec.Struct, frozen=True):
    """The sums of a regression of value on time, plain JSON; `first` and `since` are the first reading."""

    readings: int = 0
    since: float = 0.0
    first: float = 0.0
    times: float = 0.0
    values: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    value_squares: float = 0.0
    at: float | None = None


class Forecast(msgspec.Struct, frozen=True):
    """Growth per second with its standard error, and seconds until the limit is reached (None: never)."""

    growth: float
    error: float
    seconds: float | None
    seconds_at_full_traffic: float | None

    @property
    def grows(self) -> bool:
        """Whether the growth is more than three standard errors above none."""
        return self.growth > 3 * self.error


def fresh_slope() -> Slope:
    """Return the state before anything was seen."""
    return Slope()


def update_slope(state: Slope, value: float, at: float) -> Slope:
    """Take in one reading at `at` seconds; an older one, or what is not a number, changes nothing."""
    if (state.at is not None and at <= state.at) or not math.isfinite(value):
        return state
    since, first = (at, value) if state.at is None else (state.since, state.first)
    time, grown = at - since, value - first
    return Slope(
        state.readings + 1, since, first, state.times + time, state.values + grown, state.squares + time * time,
        state.products + time * grown, state.value_squares + grown * grown, at,
    )  # fmt: skip


def forecast(state: Slope, limit: float, load: float = 1.0) -> Forecast | None:
    """Return when the gauge reaches `limit`; None with fewer than ten readings.

    `load`: how many times as many requests a replica will answer at full traffic as now. What grows is taken to
    grow with the requests.
    """
    n = state.readings
    spread = state.squares - state.times**2 / n if n else 0.0
    if n < 10 or spread <= 0 or state.at is None:
        return None
    together = state.products - state.times * state.values / n
    growth = together / spread
    left = max(0.0, state.value_squares - state.values**2 / n - growth * together)
    # Readings of a gauge hang together: ten of them are taken for as much as one that stands alone.
    error = math.sqrt(left / max(1, n - 2) / spread * 10)
    now = state.first + state.values / n + growth * (state.at - state.since - state.times / n)
    return Forecast(growth, error, _until(limit - now, growth), _until(limit - now, growth * load))


def _until(room: float, growth: float) -> float | None:
    if room <= 0:
        return 0.0
    return room / growth if growth > 0 else None
