"""The slope of a gauge against the textbook's formula, and its forecast."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.leak import Forecast, Slope, forecast, fresh_slope, update_slope

MB = 1e6


def measured(values: list[float], *, start: float = 1.7e9, step: float = 1.0) -> Slope:
    state = fresh_slope()
    for index, value in enumerate(values):
        state = update_slope(state, value, start + index * step)
    return state


def found(state: Slope, limit: float, load: float = 1.0) -> Forecast:
    seen = forecast(state, limit, load)
    assert seen is not None
    return seen


def test_a_straight_leak_is_foretold_exactly() -> None:
    """100 MB and one more a second; after 60 s 352 MB are left to 512."""
    seen = found(measured([(100 + second) * MB for second in range(61)]), 512 * MB)
    assert seen.growth == pytest.approx(MB, rel=1e-6)
    assert seen.seconds == pytest.approx(352, rel=1e-6)
    assert seen.grows


def test_with_all_of_the_traffic_it_comes_sooner() -> None:
    seen = found(measured([(100 + second) * MB for second in range(61)]), 512 * MB, load=4.0)
    assert seen.seconds_at_full_traffic == pytest.approx(88, rel=1e-6)


@pytest.mark.parametrize(("leak", "grows"), [(0.0, False), (0.05, True), (-0.05, False)])
def test_noise_is_no_leak(leak: float, grows: bool) -> None:
    """Of memory that wanders by 5 MB, correlated over 5 s; the leak is 50 kB a second, for ten minutes."""
    chance, said = random.Random(1), 0
    for _ in range(50):
        wander, values = 0.0, []
        for second in range(600):
            wander = 0.8 * wander + chance.gauss(0, 3)
            values.append((200 + leak * second + wander) * MB)
        said += found(measured(values), 512 * MB).grows
    assert said >= 48 if grows else said <= 2


def test_what_shrinks_never_gets_there_and_what_is_above_is_there() -> None:
    shrinking = measured([(100 - second) * MB for second in range(20)])
    assert found(shrinking, 512 * MB).seconds is None
    assert found(shrinking, 50 * MB).seconds == 0.0


def test_a_few_readings_tell_nothing() -> None:
    assert forecast(fresh_slope(), 1.0) is None
    assert forecast(measured([1.0] * 9), 1.0) is None
    assert forecast(measured([1.0] * 10), 2.0) is not None


def test_older_readings_and_not_a_number_are_nothing() -> None:
    state = measured([1.0, 2.0])
    assert update_slope(state, 3.0, state.at or 0.0) is state
    assert update_slope(state, math.nan, 2e9) is state


@given(st.lists(st.floats(0, 1e11), min_size=10, max_size=60), st.floats(0.1, 60))
def test_it_is_the_least_squares_line(values: list[float], step: float) -> None:
    state = measured(values, start=0.0, step=step)
    n, times = len(values), [index * step for index in range(len(values))]
    mean, middle = math.fsum(values) / n, math.fsum(times) / n
    slope = math.fsum((t - middle) * (v - mean) for t, v in zip(times, values, strict=True))
    slope /= math.fsum((t - middle) ** 2 for t in times)
    seen = found(state, 1e12)
    assert seen.growth == pytest.approx(slope, rel=1e-6, abs=1e-6 * max(1.0, max(values)) / step)
    assert seen.error >= 0
    assert msgspec.json.decode(msgspec.json.encode(state), type=Slope) == state
