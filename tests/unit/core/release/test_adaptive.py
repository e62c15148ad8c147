"""The arithmetic of an adaptive canary: tables of exact weights, and what must hold whatever is counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forge.core.release.adaptive import (
    GROWTH,
    LEAST,
    NORMAL,
    Evidence,
    allowance,
    expected_seconds,
    leans_bad,
    may_take_all,
    next_weight,
    proven,
    start_weight,
    worst_case,
)
from forge.model.strategy import Adaptive
from forge.model.units import WHOLE

DEFAULT = Adaptive()


@pytest.mark.parametrize(
    ("per_second", "reaction", "weight"),
    [
        (500.0, 6.0, 66),  # 20 / 3000 = 0.667 %, rounded down
        (5000.0, 6.0, 6),
        (5000.0, 20.0, LEAST),  # 0.02 % would be less than the least
        (50.0, 6.0, 500),  # 6.7 % would be more than the most
        (50.0, 20.0, 200),
        (0.0, 6.0, 500),  # nobody asks, so nothing fails
        (None, 6.0, LEAST),  # nobody knows
        (1e9, 60.0, LEAST),
    ],
)
def test_the_first_weight_costs_the_budget_if_everything_fails(
    per_second: float | None, reaction: float, weight: int
) -> None:
    assert start_weight(DEFAULT, per_second, reaction) == weight


@pytest.mark.parametrize(
    ("settings_", "weight"),
    [
        (Adaptive(budget=60.0), 200),
        (Adaptive(most=50), 50),
        (Adaptive(start=10), 10),
        (Adaptive(most=1), 1),
        (Adaptive(largest_step=20), 20),
        (Adaptive(start=0, most=0), 1),
    ],
)
def test_the_first_weight_is_bounded_by_what_was_set_and_never_nothing(settings_: Adaptive, weight: int) -> None:
    assert start_weight(settings_, 500.0, 6.0) == weight


def test_what_is_known_of_both() -> None:
    seen = Evidence(1000, 1, 9000, 18, 2.0)
    assert seen.stable_rate == pytest.approx(18.5 / 9001)
    assert seen.upper == pytest.approx(0.0099747, abs=1e-6)
    assert seen.excess == seen.upper - seen.stable_rate
    assert Evidence().upper == 1.0
    assert Evidence().stable_rate == 0.5


@pytest.mark.parametrize(
    ("weight", "seen", "per_second", "reaction", "expected"),
    [
        (66, Evidence(0, 0, 5000, 5, 0.0), 500.0, 6.0, 66),  # nothing known: the whole budget is spent already
        (66, Evidence(33, 0, 4967, 5, 0.033), 500.0, 6.0, 198),  # three times as much at most
        (66, Evidence(33, 3, 4967, 5, 0.033), 500.0, 6.0, 198),
        (66, Evidence(33, 6, 4967, 5, 0.033), 500.0, 6.0, 151),  # 20 / (3000 * 0.4403)
        (66, Evidence(33, 12, 4967, 5, 0.033), 500.0, 6.0, 105),
        (66, Evidence(33, 20, 4967, 5, 0.033), 500.0, 6.0, 66),  # 0.79 % is not worth a change
        (2000, Evidence(20_000, 20, 80_000, 80, 20.0), 500.0, 6.0, 5000),  # never above `most`
        (4900, Evidence(20_000, 20, 80_000, 80, 20.0), 500.0, 6.0, 5000),  # the last bit to `most` is worth it
        (5000, Evidence(20_000, 20, 80_000, 80, 20.0), 500.0, 6.0, 5000),
        (1, Evidence(10_000, 0, 90_000, 0, 0.0), 500.0, 6.0, 3),
        (100, Evidence(100, 0, 9900, 0, 0.0), 0.0, 6.0, 100),  # while nobody asks it does not grow
    ],
)
def test_the_next_weight(weight: int, seen: Evidence, per_second: float, reaction: float, expected: int) -> None:
    assert next_weight(DEFAULT, weight, seen, per_second, reaction) == expected


def test_a_quarter_of_what_is_normal_may_come_on_top_where_that_is_more_than_the_budget() -> None:
    seen = Evidence(10_000, 100, 990_000, 9900, 100.0)
    normal = seen.stable_rate * 50_000.0 * 6.0
    assert NORMAL * normal > DEFAULT.budget
    assert allowance(DEFAULT, seen, 50_000.0, 6.0) == pytest.approx(NORMAL * normal / (300_000.0 * seen.excess))


@pytest.mark.parametrize(
    ("seen", "good_enough"),
    [
        (Evidence(4000, 0, 100_000, 100, 4.0), True),
        (Evidence(2500, 0, 100_000, 100, 2.5), False),
        (Evidence(30_000, 30, 100_000, 100, 30.0), True),
        (Evidence(25_000, 50, 100_000, 100, 25.0), False),
        (Evidence(25_000, 25, 100_000, 100, 25.0), False),
        (Evidence(10_000, 100, 100_000, 1000, 100.0), True),  # one and a half times stable
        (Evidence(5000, 50, 100_000, 1000, 50.0), False),
    ],
)
def test_proven_is_what_excludes_more_than_is_tolerated(seen: Evidence, good_enough: bool) -> None:
    assert proven(DEFAULT, seen) is good_enough


def test_all_of_the_traffic_needs_the_proof_and_the_room() -> None:
    good, bad = Evidence(30_000, 20, 300_000, 300, 30.0), Evidence(30_000, 90, 300_000, 300, 30.0)
    assert may_take_all(DEFAULT, 5000, good, 500.0, 6.0)
    assert may_take_all(DEFAULT, 66, good, 500.0, 6.0), "even all of it would stay within the budget"
    assert not may_take_all(DEFAULT, 66, good, 50_000.0, 6.0)
    assert may_take_all(DEFAULT, 66, good, 50_000.0, 6.0, most=66)
    assert not may_take_all(DEFAULT, 5000, bad, 500.0, 6.0)


@pytest.mark.parametrize(
    ("seen", "clump", "leans"),
    [
        (Evidence(), 1.0, False),
        (Evidence(33, 1, 4967, 5, 0.03), 1.0, False),
        (Evidence(33, 3, 4967, 5, 0.03), 1.0, True),  # more than 0.03 + 2 * sqrt(1.04)
        (Evidence(33, 3, 4967, 5, 0.03), 20.0, False),  # one clump
        (Evidence(33, 10, 4967, 5, 0.03), 20.0, True),
        (Evidence(10_000, 120, 10_000, 100, 100.0), 1.0, False),  # less than 110 + 2 * sqrt(111)
        (Evidence(10_000, 132, 10_000, 100, 100.0), 1.0, True),
        (Evidence(1_000_000, 200, 1_000_000, 0, 0.0), 1.0, False),  # so few are always fine
    ],
)
def test_more_than_chance_explains_is_a_reason_to_wait(seen: Evidence, clump: float, leans: bool) -> None:
    assert leans_bad(seen, clump) is leans


def test_a_policy_bounds_every_change_also_the_last() -> None:
    bounded, good = Adaptive(most=9000, largest_step=1000), Evidence(300_000, 200, 300_000, 300, 300.0)
    assert next_weight(bounded, 1000, good, 500.0, 6.0) == 2000
    assert next_weight(bounded, 8500, good, 500.0, 6.0) == 9000
    assert not may_take_all(bounded, 8500, good, 500.0, 6.0)
    assert may_take_all(bounded, 9000, good, 500.0, 6.0)


def test_a_burst_that_both_share_is_nobodys_fault() -> None:
    """While the arm is small, then while it is large: sums over the whole time would blame one, then the other."""
    early = Evidence().and_then((50, 5), (4950, 495)).and_then((5000, 5), (5000, 5))
    assert early.stable_rate == pytest.approx(10 / 5050, rel=0.1), "not 500 of 9950"
    late = Evidence().and_then((50, 0), (99_950, 100)).and_then((5000, 500), (5000, 500))
    assert late.stable_rate == pytest.approx(500 / 5050, rel=0.1), "not 600 of 104,950"


def test_a_moment_without_traffic_of_stable_counts_as_usual_for_it() -> None:
    seen = Evidence(1000, 1, 9000, 90, 10.0).and_then((100, 0), (0, 0))
    assert seen.expected == pytest.approx(11.0, rel=0.01)
    assert Evidence().and_then((0, 0), (0, 0)) == Evidence()


@pytest.mark.parametrize(
    ("per_second", "rate", "at_least", "at_most"),
    [(500.0, 0.001, 80.0, 200.0), (5000.0, 0.001, 60.0, 100.0), (500.0, 0.01, 50.0, 110.0), (5000.0, 0.01, 50.0, 90.0)],
)
def test_a_good_version_is_through_far_sooner_than_by_steps_of_five_minutes(
    per_second: float, rate: float, at_least: float, at_most: float
) -> None:
    seconds = expected_seconds(DEFAULT, per_second, rate, 6.0, 1.0)
    assert seconds is not None
    assert at_least <= seconds <= at_most


def test_too_little_traffic_is_known_before() -> None:
    assert expected_seconds(DEFAULT, 5.0, 0.001, 6.0, 1.0) is None


counts = st.integers(0, 10**6)


@st.composite
def evidence(draw: st.DrawFn) -> Evidence:
    requests, stable = draw(counts), draw(counts)
    errors, stable_errors = draw(st.integers(0, requests)), draw(st.integers(0, stable))
    return Evidence(requests, errors, stable, stable_errors, draw(st.floats(0.0, float(requests))))


rates, reactions = st.floats(0.0, 1e6), st.floats(0.1, 600.0)
chosen = st.builds(
    Adaptive, budget=st.floats(1.0, 1e4), tolerance=st.floats(1e-4, 0.1), start=st.integers(1, WHOLE),
    most=st.integers(1, WHOLE), largest_step=st.none() | st.integers(1, WHOLE),
)  # fmt: skip


@settings(deadline=None)
@given(chosen, st.integers(1, WHOLE), evidence(), rates, reactions)
def test_one_reaction_never_costs_more_than_the_budget_or_a_quarter_of_what_is_normal(
    how: Adaptive, weight: int, seen: Evidence, per_second: float, reaction: float
) -> None:
    """The algebra of the promise: with 95 % confidence, at every weight to which it grew."""
    grown = next_weight(how, weight, seen, per_second, reaction)
    if grown > weight:
        normal = seen.stable_rate * per_second * reaction
        bound = max(how.budget, NORMAL * normal)
        assert worst_case(grown, seen, per_second, reaction) <= bound * (1 + 1e-9)


@settings(deadline=None)
@given(chosen, rates, reactions)
def test_the_first_weight_costs_no_more_than_the_budget_unless_it_is_the_least(
    how: Adaptive, per_second: float, reaction: float
) -> None:
    first = start_weight(how, per_second, reaction)
    assert 1 <= first <= how.most
    assert first <= LEAST or worst_case(first, Evidence(), per_second, reaction) <= how.budget


@settings(deadline=None)
@given(chosen, st.integers(1, WHOLE), evidence(), rates, reactions, st.integers(1, WHOLE))
def test_the_weight_never_falls_nor_leaps_nor_passes_the_most(
    how: Adaptive, weight: int, seen: Evidence, per_second: float, reaction: float, room: int
) -> None:
    grown = next_weight(how, weight, seen, per_second, reaction, room)
    assert weight <= grown <= max(weight, min(GROWTH * weight, how.most, room))
    assert grown - weight <= (how.largest_step or WHOLE)


@settings(deadline=None)
@given(chosen, st.integers(1, WHOLE), evidence(), rates, reactions, st.integers(0, 10**5))
@example(DEFAULT, 66, Evidence(33, 20, 4967, 5, 0.033), 500.0, 6.0, 3)
def test_fewer_errors_never_mean_less_traffic(
    how: Adaptive, weight: int, seen: Evidence, per_second: float, reaction: float, fewer: int
) -> None:
    better = Evidence(
        seen.requests, max(0, seen.errors - fewer), seen.stable_requests, seen.stable_errors, seen.expected
    )
    assert better.upper <= seen.upper + 1e-9
    assert next_weight(how, weight, better, per_second, reaction) >= next_weight(
        how, weight, seen, per_second, reaction
    )
    if may_take_all(how, weight, seen, per_second, reaction):
        assert may_take_all(how, weight, better, per_second, reaction)


@settings(deadline=None)
@given(st.lists(st.tuples(counts, counts, st.floats(0, 1), st.floats(0, 1)), max_size=6))
def test_counts_add_up_and_expectation_stays_within_the_requests(
    given_: list[tuple[int, int, float, float]],
) -> None:
    seen = Evidence()
    for requests, stable, own_rate, stable_rate in given_:
        seen = seen.and_then((requests, int(requests * own_rate)), (stable, int(stable * stable_rate)))
    assert seen.requests == sum(each[0] for each in given_)
    assert seen.stable_requests == sum(each[1] for each in given_)
    assert 0 <= seen.expected <= seen.requests * (1 + 1e-9)
    assert 0 < seen.stable_rate <= 1
    assert math.isfinite(seen.excess)
