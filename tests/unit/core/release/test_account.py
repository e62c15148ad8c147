"""The account of harm: sums that survive every change, and an interval that holds at every time at once."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from forge.core.release.account import (
    Account,
    count_interval,
    excess_interval,
    expected_failures,
    grown,
    opened,
    outage_seconds,
    read,
    turned,
)


def follow(account: Account, readings: list[tuple[float, tuple[int, int], tuple[int, int] | None]]) -> Account:
    for at, own, other in readings:
        account = read(account, own, other, at, 0.5, rests=False)
    return account


class TestBlocks:
    def test_each_block_is_compared_with_stable_at_the_same_time(self) -> None:
        """A burst that both share costs nothing, although the arm's share of the requests changes in between."""
        account = follow(
            opened("1.3", (0, 0), (0, 0), 0.0),
            [(5.0, (10, 5), (990, 495)), (10.0, (510, 5), (1490, 495))],
        )
        assert expected_failures(account) == pytest.approx(5.0)

    def test_a_block_without_requests_to_stable_stays_open(self) -> None:
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0, past=(100, 10)), [(9.0, (10, 1), (0, 0))])
        assert account.own == (0, 0)
        assert expected_failures(account) == pytest.approx(1.0)
        account = follow(account, [(10.0, (20, 2), (10, 5))])
        assert account.own == (20, 2)
        assert expected_failures(account) == pytest.approx(10.0)

    def test_the_open_block_counts_as_if_it_ended_now(self) -> None:
        """A burst that both share must not look like harm for as long as the block is open."""
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0, past=(1000, 1)), [(1.0, (100, 50), (900, 450))])
        assert account.own == (0, 0)
        assert expected_failures(account) == pytest.approx(50.0)

    def test_where_stable_has_hardly_any_requests_it_is_taken_at_its_rate_of_before(self) -> None:
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0, past=(999, 100)), [(5.0, (600, 60), (1, 0))])
        assert expected_failures(account) == pytest.approx(60.0)
        assert [guess.requests for guess in account.guesses] == [600]

    def test_a_block_of_few_requests_leaves_no_more_open_than_they_are(self) -> None:
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0), [(5.0, (100, 1), (900, 9)), (10.0, (103, 1), (901, 9))])
        assert excess_interval(account, 1, clump=20.0).low > -60

    def test_at_rest_stable_is_taken_at_its_rate_of_before(self) -> None:
        """Blue-green: from the switch on nothing is sent to stable, so what it would have done is what it did."""
        account = opened("1.3", (0, 0), (1000, 20), 0.0, past=(1000, 20))
        for second in range(1, 11):
            account = read(account, (100 * second, 2 * second), (1000, 20), float(second), 1.0, rests=True)
        assert expected_failures(account) == pytest.approx(20.0)
        assert [guess.requests for guess in account.guesses] == [1000]
        assert account.sums == ()
        low, high = excess_interval(account, 20)
        assert low < 0 < high

    def test_of_a_stable_of_which_nothing_is_known_everything_is_possible(self) -> None:
        account = follow(opened("1.3", (0, 0), None, 0.0), [(1.0, (100, 40), None)])
        assert expected_failures(account) == 0.0
        assert excess_interval(account, 40).low < 0

    def test_readings_that_are_missing_are_made_up_for_by_the_next(self) -> None:
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0, past=(10, 0)), [(1.0, (50, 5), None)])
        assert expected_failures(account) == 0.0
        account = follow(account, [(2.0, (100, 10), (100, 10))])
        assert expected_failures(account) == pytest.approx(10.0)

    def test_a_counter_that_fell_begins_anew_and_what_was_counted_stays(self) -> None:
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0), [(1.0, (100, 10), (100, 10))])
        assert grown(account, (3, 0)) == (0, 0)
        account = follow(account, [(2.0, (3, 0), (200, 20))])
        assert expected_failures(account) == pytest.approx(10.0)
        assert grown(account, (53, 5)) == (50, 5)
        account = follow(account, [(3.0, (53, 5), (250, 25))])
        assert expected_failures(account) == pytest.approx(15.0)

    def test_a_counter_of_stable_that_fell_is_no_comparison(self) -> None:
        account = follow(
            opened("1.3", (0, 0), (500, 50), 0.0, past=(500, 50)),
            [(1.0, (100, 10), (3, 3)), (2.0, (200, 20), (103, 13))],
        )
        assert expected_failures(account) == pytest.approx(20.0)

    def test_another_stable_is_compared_with_from_where_it_stands(self) -> None:
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0), [(1.0, (100, 10), (100, 10))])
        account = turned(account, "1.5", (7000, 0), (6000, 0))
        account = follow(account, [(2.0, (200, 60), (7100, 50))])
        assert expected_failures(account) == pytest.approx(60.0)

    def test_a_first_version_has_nothing_to_be_compared_with(self) -> None:
        account = follow(opened("", (0, 0), None, 0.0), [(1.0, (100, 10), None)])
        assert expected_failures(account) == 0.0
        assert 0 < excess_interval(account, 10).low < 10


class TestOutage:
    def test_half_of_the_traffic_failing_for_a_minute_is_half_a_minute(self) -> None:
        account = opened("1.3", (0, 0), (0, 0), 0.0)
        for second in range(1, 61):
            account = read(account, (50 * second, 50 * second), (50 * second, 0), float(second), 0.5, rests=False)
        assert outage_seconds(account) == pytest.approx(30.0)

    def test_the_open_block_counts_too(self) -> None:
        account = read(opened("1.3", (0, 0), None, 0.0, past=(10, 0)), (50, 25), None, 10.0, 0.2, rests=False)
        assert outage_seconds(account) == pytest.approx(1.0)

    def test_as_good_as_stable_is_none(self) -> None:
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0), [(1.0, (100, 10), (100, 10))])
        assert outage_seconds(account) == pytest.approx(0.0)


class TestInterval:
    @given(st.floats(0, 5000), st.sampled_from([0.5, 0.05, 0.01, 0.0001]))
    def test_it_holds_its_own_count(self, count: float, error: float) -> None:
        low, high = count_interval(count, error)
        assert 0 <= low <= count <= high
        wider = count_interval(count, error / 2)
        assert wider.low <= low
        assert high <= wider.high

    def test_it_shrinks_relative_to_what_is_counted(self) -> None:
        widths = [(count_interval(n, 0.05).high - count_interval(n, 0.05).low) / n for n in (10.0, 100.0, 10_000.0)]
        assert widths == sorted(widths, reverse=True)
        assert widths[-1] < 0.1

    def test_clumps_make_it_wider(self) -> None:
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0), [(1.0, (1000, 100), (1000, 20))])
        narrow, wide = excess_interval(account, 100), excess_interval(account, 100, clump=10.0)
        assert wide.low < narrow.low < 80 < narrow.high < wide.high

    def test_it_knows_a_bad_arm_soon(self) -> None:
        account = follow(opened("1.3", (0, 0), (0, 0), 0.0), [(1.0, (100, 20), (1900, 2))])
        assert excess_interval(account, 20).low > 3

    @pytest.mark.parametrize("weights", [(0.05, 0.25, 0.5), (0.5,), (0.1, 0.9), (0.05, 1.0)])
    @pytest.mark.parametrize(("own", "stable"), [(0.01, 0.01), (0.03, 0.01), (0.0005, 0.0005)])
    @pytest.mark.parametrize("clump", [1, 5])
    def test_it_covers_the_truth_at_every_time_at_once(
        self, weights: tuple[float, ...], own: float, stable: float, clump: int
    ) -> None:
        """Rates that drift and burst together; every reading of every run is looked at."""
        draw = random.Random(f"{weights} {own} {stable} {clump}")
        missed = sum(_misses(draw, weights, own, stable, clump) for _ in range(60))
        assert missed <= 6  # 60 runs at 5 %: 3 expected at most, more than 6 has a chance of 3 %


def _misses(draw: random.Random, weights: tuple[float, ...], own: float, stable: float, clump: int) -> bool:
    account = opened("1.3", (0, 0), (0, 0), 0.0, past=(0, 0))
    arm, other, truth = (0, 0), (0, 0), 0.0
    history = _clumps(draw, 30_000, stable, clump)
    account = replace(account, past=(30_000, history))
    for second in range(1, 91):
        weight = weights[(second - 1) * len(weights) // 90]
        busy = 1.0 if weight == 1.0 else 1 + 0.5 * math.sin(second / 9) + (5.0 if 30 < second < 34 else 0.0)
        n, m = round(100 * weight), round(100 * (1 - weight))
        arm = (arm[0] + n, arm[1] + _clumps(draw, n, own * busy, clump))
        other = (other[0] + m, other[1] + _clumps(draw, m, stable * busy, clump))
        truth += n * (own - stable) * busy
        account = read(account, arm, other, float(second), weight, rests=weight == 1.0)
        low, high = excess_interval(account, arm[1], float(clump))
        if not low <= truth <= high:
            return True
    return False


def _clumps(draw: random.Random, requests: int, rate: float, clump: int) -> int:
    """Return how many of the requests fail, `clump` at once, at this rate on average."""
    mean, count, left = requests * rate / clump, 0, 1.0
    if mean > 50:
        return clump * max(0, round(draw.gauss(mean, math.sqrt(mean))))
    edge = math.exp(-mean)
    while (left := left * draw.random()) > edge:
        count += 1
    return clump * count
