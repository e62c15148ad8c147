"""Sticky users: they come back, they are shared out by the weights, and they move when their version goes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.simulate.users import Users


def users(count: int = 10_000, stay: float = 600.0, seed: int = 1) -> Users:
    return Users(Random(seed), count, stay)


def test_new_ones_are_drawn_by_the_weights() -> None:
    shares = users(1_000_000).shares({"1.0": 9000, "1.1": 1000}, 1.0)
    assert shares == (pytest.approx(0.9, abs=0.002), pytest.approx(0.1, abs=0.002))


def test_those_who_stay_keep_their_version_when_weights_change() -> None:
    some = users(stay=1e12)
    before = some.shares({"1.0": 9000, "1.1": 1000}, 1.0)
    assert some.shares({"1.0": 5000, "1.1": 5000}, 1.0) == before


def test_after_a_while_the_new_weights_hold_for_all() -> None:
    some = users(100_000, stay=60.0)
    some.shares({"1.0": 9000, "1.1": 1000}, 1.0)
    halfway = some.shares({"1.0": 5000, "1.1": 5000}, 60.0)[1]
    assert halfway == pytest.approx(0.5 - 0.4 * 0.3679, abs=0.01)
    assert some.shares({"1.0": 5000, "1.1": 5000}, 3600.0)[1] == pytest.approx(0.5, abs=0.01)


def test_when_their_version_goes_they_are_drawn_again() -> None:
    some = users(stay=1e12)
    some.shares({"1.0": 5000, "1.1": 5000}, 1.0)
    assert some.shares({"1.0": 10_000}, 1.0) == (1.0,)
    assert some.pinned == {"1.0": 10_000}
    assert some.shares({"1.0": 9000, "1.1": 1000}, 1.0) == (1.0, 0.0)


@given(
    seed=st.integers(0, 10**6), stay=st.floats(0.0, 1e5),
    steps=st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.0, 1e4)), max_size=8),
)  # fmt: skip
def test_nobody_is_lost(seed: int, stay: float, steps: list[tuple[int, float]]) -> None:
    some = users(777, stay, seed)
    for weight, seconds in steps:
        split = {name: each for name, each in {"a": 10_000 - weight, "b": weight}.items() if each}
        shares = some.shares(split, seconds)
        assert sum(some.pinned.values()) == 777
        assert sum(shares) == pytest.approx(1.0)
        assert all(number >= 0 for number in some.pinned.values())
        assert set(some.pinned) == set(split)
