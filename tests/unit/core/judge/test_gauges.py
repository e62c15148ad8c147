"""Gauges: the mean of every factor under its null, seeded worlds, and what people see."""

from __future__ import annotations

import itertools
import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.gauges import (
    CHANCES,
    FRACTIONS,
    GaugeEvidence,
    LimitEvidence,
    fresh_gauge,
    fresh_limit,
    gauge_log_e,
    limit_log_e,
    update_gauge,
    update_limit,
)

FIRES = math.log(100)


def watch(chance: random.Random, ratio: float, *, seconds: int = 900, spread: float = 0.1) -> float | None:
    """Return the second at which an arm that uses `ratio` of stable's CPU is found; both wander, correlated."""
    state, mine, theirs = fresh_gauge(), 0.0, 0.0
    for second in range(seconds):
        mine = 0.8 * mine + chance.gauss(0, spread)
        theirs = 0.8 * theirs + chance.gauss(0, spread)
        state = update_gauge(state, 0.4 * ratio * math.exp(mine), 0.4 * math.exp(theirs), float(second))
        if gauge_log_e(state) >= FIRES:
            return second
    return None


class TestAgainstStable:
    def test_the_mean_evidence_of_fair_votes_is_one(self) -> None:
        """Exactly: every sequence of nine votes, each as likely as any other."""
        total = 0.0
        for votes in itertools.product((2.0, 0.5), repeat=9):
            state = update_gauge(fresh_gauge(), 1.0, 1.0, 0.0, block=10.0)
            for index, value in enumerate(votes):
                state = update_gauge(state, value, 1.0, 10.0 * (index + 1), block=10.0, bound=1.3)
            total += math.exp(gauge_log_e(state))
        # The first reading (equal, below the bound) is averaged with each first vote and never changes its sign.
        assert total / 2**9 == pytest.approx(1.0, abs=1e-6)

    def test_a_version_like_stable_is_rarely_found(self) -> None:
        chance = random.Random(1)
        assert sum(watch(chance, 1.0) is not None for _ in range(100)) <= 2

    def test_within_the_bound_is_tolerated(self) -> None:
        chance = random.Random(2)
        assert sum(watch(chance, 1.05) is not None for _ in range(50)) <= 1

    @pytest.mark.parametrize(("ratio", "most"), [(3.0, 240), (1.5, 330)])
    def test_a_hungry_version_is_found_in_minutes(self, ratio: float, most: int) -> None:
        chance = random.Random(3)
        found = [watch(chance, ratio) for _ in range(15)]
        assert all(found)
        assert sorted(second or 0 for second in found)[7] <= most

    def test_one_huge_reading_is_one_vote(self) -> None:
        """A spike of a billion costs no more than one of twice as much."""
        states = []
        for spike in (2.0, 1e9):
            state = fresh_gauge()
            for second in range(100):
                state = update_gauge(state, spike if second == 40 else 1.0, 1.0, float(second), block=1.0)
            states.append(state)
        assert states[0] == states[1]
        assert gauge_log_e(states[0]) < FIRES

    def test_equal_readings_are_no_evidence_with_the_bound_at_one(self) -> None:
        state = fresh_gauge()
        for second in range(100):
            state = update_gauge(state, 0.3, 0.3, float(second), block=1.0, bound=1.0)
        assert gauge_log_e(state) == pytest.approx(0.0, abs=1e-6)

    def test_votes_are_told(self) -> None:
        state = fresh_gauge()
        for second in range(61):
            state = update_gauge(state, 2.0 if second > 20 else 0.5, 1.0, float(second))
        assert state.votes == (3, 1)

    def test_not_a_number_is_nothing(self) -> None:
        state = update_gauge(fresh_gauge(), 1.0, 1.0, 0.0)
        assert update_gauge(state, math.nan, 1.0, 1.0) is state
        assert update_gauge(state, 1.0, math.inf, 1.0) is state
        assert update_gauge(state, 1.0, 1.0, 0.0) is state
        assert update_gauge(state, 1.0, 1.0, -1.0) is state

    def test_a_gap_is_one_vote(self) -> None:
        state = update_gauge(fresh_gauge(), 1.0, 1.0, 0.0)
        state = update_gauge(state, 9.0, 1.0, 600.0)
        assert sum(state.votes) == 1


class TestLimit:
    @pytest.mark.parametrize("chance_high", [0.0, 0.25, 0.5])
    def test_the_mean_evidence_at_the_limit_is_at_most_one(self, chance_high: float) -> None:
        """Exactly: a block at twice the limit with some chance, else as low as keeps the mean at the limit."""
        low = (1 - 2 * chance_high) / (1 - chance_high)
        total = 0.0
        for blocks in itertools.product((True, False), repeat=8):
            state = fresh_limit()
            weight = math.prod(chance_high if high else 1 - chance_high for high in blocks)
            for index, high in enumerate(blocks):
                state = update_limit(state, 2.0 if high else low, 1.0, float(index), block=0.0)
            total += weight * math.exp(limit_log_e(state))
        assert total <= 1 + 1e-6

    @pytest.mark.parametrize(("level", "fires"), [(0.5, False), (1.0, False), (1.2, True), (2.0, True), (50.0, True)])
    def test_above_the_limit_is_found(self, level: float, fires: bool) -> None:
        state = fresh_limit()
        for second in range(900):
            state = update_limit(state, level * 512e6, 512e6, float(second))
        assert (state.largest >= FIRES) == fires

    def test_twice_the_limit_is_found_within_three_minutes(self) -> None:
        state = fresh_limit()
        for second in range(181):
            state = update_limit(state, 1024e6, 512e6, float(second))
        assert limit_log_e(state) >= FIRES

    def test_short_spikes_above_are_tolerated(self) -> None:
        state = fresh_limit()
        for second in range(1800):
            state = update_limit(state, 2.0 if second % 60 < 20 else 0.4, 1.0, float(second))
        assert state.largest < FIRES

    @pytest.mark.parametrize("limit", [0.0, -1.0])
    def test_a_limit_is_positive(self, limit: float) -> None:
        with pytest.raises(ValueError, match="a limit is positive"):
            update_limit(fresh_limit(), 1.0, limit, 0.0)

    def test_older_readings_and_not_a_number_are_nothing(self) -> None:
        state = update_limit(fresh_limit(), 1.0, 1.0, 5.0)
        assert update_limit(state, 2.0, 1.0, 5.0) is state
        assert update_limit(state, math.nan, 1.0, 6.0) is state


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(0, 1e12)), max_size=40), st.sampled_from([0.0, 1.0, 15.0]))
def test_any_readings_give_a_small_finite_state_that_survives_json(
    readings: list[tuple[float, float]], block: float
) -> None:
    gauge, limit = fresh_gauge(), fresh_limit()
    for second, (arm, stable) in enumerate(readings):
        gauge = update_gauge(gauge, arm, stable, float(second), block)
        limit = update_limit(limit, arm, stable + 1.0, float(second), block)
        assert msgspec.json.decode(msgspec.json.encode(gauge), type=GaugeEvidence) == gauge
        assert msgspec.json.decode(msgspec.json.encode(limit), type=LimitEvidence) == limit
        assert math.isfinite(gauge_log_e(gauge))
        assert math.isfinite(limit_log_e(limit))
    assert len(msgspec.json.encode((gauge, limit))) < 1000


def test_stakes_never_overflow() -> None:
    gauge, limit = fresh_gauge(), fresh_limit()
    for second in range(5000):
        gauge = update_gauge(gauge, 9.0, 1.0, float(second), block=0.0)
        limit = update_limit(limit, 9.0, 1.0, float(second), block=0.0)
    assert gauge.largest == gauge_log_e(gauge) > 500
    assert limit.largest == limit_log_e(limit) > 500
    assert len(CHANCES) == len(FRACTIONS) == 4
