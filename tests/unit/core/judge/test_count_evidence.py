"""The count judge against exact enumeration, brute force and seeded simulation."""

from __future__ import annotations

import itertools
import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.calibrate import FALLBACK, calibrate
from forge.core.judge.combine import closed_log_e, combine_metrics
from forge.core.judge.evidence import (
    RATIOS,
    CountEvidence,
    Counts,
    CountSettings,
    fresh_counts,
    largest_log_e,
    log_e,
    relative_log_factor,
    update_counts,
)
from forge.core.judge.interval import fresh_interval, ratio_interval, update_interval, upper_rate
from forge.core.judge.sensitivity import detectable, sentence
from forge.core.judge.slo import SloSettings, fresh_slo, slo_log_e, update_slo

CLEAN = CountSettings(clump=1.0, block=1.0)
FIRES = math.log(100)


def errors(chance: random.Random, requests: int, rate: float) -> int:
    """A binomial draw, by inversion of gaps: as fast as the number of errors, not of requests."""
    if rate <= 0:
        return 0
    if rate >= 1:
        return requests
    found, position = 0, 0
    while True:
        position += int(math.log(1 - chance.random()) / math.log(1 - rate)) + 1
        if position > requests:
            return found
        found += 1


def watch(
    chance: random.Random,
    arm_rate: float,
    stable_rate: float,
    *,
    seconds: int = 300,
    rps: int = 500,
    weight: float = 0.05,
    settings: CountSettings = CLEAN,
) -> tuple[int, int] | None:
    """Return (second, failed requests) of the rollback, or None."""
    state, failed = fresh_counts(settings), 0
    arm, stable = round(rps * weight), round(rps * (1 - weight))
    for second in range(seconds):
        bad = errors(chance, arm, arm_rate)
        failed += bad
        both = Counts(arm, bad), Counts(stable, errors(chance, stable, stable_rate))
        state = update_counts(state, settings, *both, float(second))
        if log_e(state) >= FIRES:
            return second + 1, failed
    return None


@pytest.mark.parametrize(("ratio", "arm", "stable"), [(1.0, 25, 475), (1.1, 5, 995), (3.0, 250, 250)])
@pytest.mark.parametrize("worse", RATIOS)
@pytest.mark.parametrize("clump", [1.0, 20.0])
def test_the_mean_of_a_blocks_factor_is_at_most_one(ratio: float, arm: int, stable: int, worse: float, clump: float):
    """Exactly, by summing over every way in which given clumps can fall, with the largest tolerated share."""
    tolerated = arm * ratio / (arm * ratio + stable)
    supposed = arm * ratio * worse / (arm * ratio * worse + stable)
    for sizes in ([1], [1, 1, 1], [1] * 8, [5, 3, 1], [20, 20, 2], [19]):
        sizes = [min(size, int(clump)) for size in sizes]
        total, mean = sum(sizes), 0.0
        for fallen in itertools.product((True, False), repeat=len(sizes)):
            chance = math.prod(tolerated if on_arm else 1 - tolerated for on_arm in fallen)
            bad = sum(size for size, on_arm in zip(sizes, fallen, strict=True) if on_arm)
            mean += chance * math.exp(relative_log_factor(bad, total, tolerated, supposed, clump))
        assert mean <= 1 + 1e-9


def test_a_version_like_stable_is_rarely_rolled_back() -> None:
    """At most 1 % is promised; of 200 releases at most 3 (5 would already be a chance of 1 in 12 at the bound)."""
    chance = random.Random(4)
    assert sum(watch(chance, 0.01, 0.01) is not None for _ in range(200)) <= 3


def test_shared_bursts_are_nobodys_fault() -> None:
    chance = random.Random(5)
    fired = 0
    for _ in range(100):
        state = fresh_counts(CLEAN)
        for second in range(200):
            rate = 0.2 if 60 <= second < 90 else 0.001
            both = Counts(25, errors(chance, 25, rate)), Counts(475, errors(chance, 475, rate))
            state = update_counts(state, CLEAN, *both, float(second))
        fired += largest_log_e(state) >= FIRES
    assert fired <= 2


def test_a_retry_storm_is_one_vote() -> None:
    """Errors of one arm that come in clumps of ten fool the bound without clumps, not the one with them."""

    def storm(settings: CountSettings) -> int:
        chance, fired = random.Random(6), 0
        for _ in range(60):
            state = fresh_counts(settings)
            for second in range(300):
                bad = min(25, 10 * errors(chance, 25, 0.001))
                other = min(475, 10 * errors(chance, 475, 0.001))
                state = update_counts(state, settings, Counts(25, bad), Counts(475, other), float(second))
            fired += largest_log_e(state) >= FIRES
        return fired

    assert storm(CountSettings(clump=20.0, block=1.0)) <= 2
    assert storm(CLEAN) >= 20


@pytest.mark.parametrize(
    ("rate", "most_seconds", "most_failed"), [(1.0, 1, 26), (0.2, 2, 9), (0.05, 6, 8), (0.002, 3000, 400)]
)
def test_a_bad_version_is_found_as_fast_as_was_measured(rate: float, most_seconds: int, most_failed: int) -> None:
    """Median seconds and mean failed requests at 5 % of 500 requests a second, stable failing 0.1 %."""
    chance = random.Random(7)
    found = [watch(chance, rate, 0.001, seconds=2400 if rate < 0.01 else 300) for _ in range(21 if rate > 0.01 else 3)]
    assert all(found)
    seconds, failed = zip(*(one for one in found if one), strict=True)
    assert sorted(seconds)[len(seconds) // 2] <= most_seconds
    assert sum(failed) / len(failed) <= most_failed


def test_a_service_whose_stable_never_fails_is_judged_too() -> None:
    found = watch(random.Random(8), 0.05, 0.0)
    assert found is not None
    assert found[0] <= 6


def test_no_errors_and_no_traffic_are_no_evidence() -> None:
    for arm, stable in ((Counts(0, 0), Counts(500, 3)), (Counts(25, 25), Counts(0, 0)), (Counts(), Counts())):
        state = fresh_counts(CLEAN)
        for second in range(50):
            state = update_counts(state, CLEAN, arm, stable, float(second))
        assert log_e(state) <= 1e-9


counts = st.tuples(st.integers(0, 2000), st.floats(0, 1)).map(lambda pair: Counts(pair[0], int(pair[0] * pair[1])))


@given(st.lists(st.tuples(counts, counts, st.booleans()), max_size=30), st.floats(1, 50), st.sampled_from([1.0, 15.0]))
def test_any_counts_give_a_small_finite_state_that_survives_json(
    readings: list[tuple[Counts, Counts, bool]], clump: float, block: float
) -> None:
    settings = CountSettings(clump=clump, block=block)
    state, interval = fresh_counts(settings), fresh_interval()
    for second, (arm, stable, close) in enumerate(readings):
        state = update_counts(state, settings, arm, stable, float(second), close_block=close)
        interval = update_interval(interval, arm, stable, clump)
        stored = msgspec.json.encode(state)
        again = msgspec.json.decode(stored, type=CountEvidence)
        assert again == state
        assert math.isfinite(log_e(state))
        assert largest_log_e(state) >= log_e(state)
    assert len(msgspec.json.encode((state, interval))) <= 4000
    low, high = ratio_interval(interval)
    assert 0 <= low <= high


@given(counts, counts)
def test_a_reading_that_came_before_changes_nothing(arm: Counts, stable: Counts) -> None:
    state = update_counts(fresh_counts(CLEAN), CLEAN, arm, stable, 10.0)
    assert update_counts(state, CLEAN, arm, stable, 10.0) is state
    assert update_counts(state, CLEAN, arm, stable, 9.0) is state


def test_a_gap_loses_nothing_and_a_change_of_weight_closes_the_block() -> None:
    settings = CountSettings(clump=1.0, block=15.0)
    first = update_counts(fresh_counts(settings), settings, Counts(10, 0), Counts(190, 0), 0.0)
    open_block = update_counts(first, settings, Counts(50, 9), Counts(950, 1), 5.0)
    assert open_block.sensitive.arm == Counts(50, 9)
    closed = update_counts(open_block, settings, Counts(50, 9), Counts(950, 1), 10.0, close_block=True)
    assert closed.sensitive.arm == Counts()
    assert log_e(closed) > log_e(open_block)
    late = update_counts(first, settings, Counts(100, 18), Counts(1900, 2), 100.0)
    assert late.sensitive.arm == Counts()


@pytest.mark.parametrize(("rate", "fires"), [(0.01, False), (0.04, False), (0.08, True), (0.2, True), (1.0, True)])
def test_the_hard_limit_fires_above_it_and_not_below(rate: float, fires: bool) -> None:
    chance, settings, alarms = random.Random(9), SloSettings(), 0
    for _ in range(20):
        state = fresh_slo(settings)
        for second in range(400):
            state = update_slo(state, settings, Counts(25, errors(chance, 25, rate)), float(second))
        alarms += state.largest >= math.log(1 / settings.alpha)
    assert alarms >= 18 if fires else alarms == 0


def test_the_hard_limit_knows_every_limit_below_one() -> None:
    for limit in (0.001, 0.05, 0.5, 0.9, 0.99):
        settings = SloSettings(limit=limit)
        state = update_slo(fresh_slo(settings), settings, Counts(10, 10), 0.0)
        assert math.isfinite(slo_log_e(state))


def test_the_interval_covers_the_truth_at_every_time() -> None:
    """5 % miscoverage at any of 200 looks is allowed; of 100 services at most 10 may be off."""
    chance, missed = random.Random(10), 0
    for _ in range(100):
        state, off = fresh_interval(), False
        for second in range(200):
            arm, stable = errors(chance, 250, 0.02), errors(chance, 250, 0.01)
            state = update_interval(state, Counts(250, arm), Counts(250, stable))
            if second % 10 == 9:
                low, high = ratio_interval(state)
                off = off or not low <= 2.0 * 1.06 or not high >= 2.0 / 1.06
        missed += off
    assert missed <= 10
    assert high / low < 2


def test_an_interval_without_errors_excludes_nothing() -> None:
    assert ratio_interval(fresh_interval()) == (0.0, math.inf)
    assert ratio_interval(update_interval(fresh_interval(), Counts(10, 0), Counts(90, 0))) == (0.0, math.inf)


@given(st.integers(0, 500), st.integers(1, 5000))
def test_the_upper_rate_is_above_what_was_seen_and_falls_with_data(bad: int, requests: int) -> None:
    bad = min(bad, requests)
    upper = upper_rate(bad, requests)
    assert bad / requests <= upper <= 1.0
    assert upper_rate(bad * 4, requests * 4) <= upper + 1e-9


def test_the_upper_rate_of_nothing_is_everything() -> None:
    assert upper_rate(0, 0) == 1.0
    assert upper_rate(5, 5) == 1.0


evidence = st.dictionaries(st.sampled_from("abcde"), st.floats(-20, 20), min_size=1)


@given(evidence)
def test_the_closed_average_is_the_least_over_all_sets_of_arms(log_es: dict[str, float]) -> None:
    closed = closed_log_e(log_es)
    for name, own in log_es.items():
        others = [value for arm, value in log_es.items() if arm != name]
        least = min(
            math.log(math.fsum(math.exp(value) for value in (own, *chosen)) / (len(chosen) + 1))
            for size in range(len(others) + 1)
            for chosen in itertools.combinations(others, size)
        )
        assert closed[name] == pytest.approx(least, abs=1e-9)
        bonferroni = own - math.log(len(log_es))
        assert closed[name] >= bonferroni - 1e-9


def test_metrics_are_averaged_and_a_metric_without_data_counts_as_one() -> None:
    weights = {"errors": 0.5, "latency": 0.5}
    assert combine_metrics(weights, {"errors": math.log(301)}) == pytest.approx(math.log(151))
    assert combine_metrics(weights, {}) == 0.0
    assert combine_metrics(weights, {"errors": 700.0, "latency": 900.0}) == pytest.approx(900 + math.log(0.5))
    with pytest.raises(KeyError, match="typo"):
        combine_metrics(weights, {"typo": 1.0})


def test_a_clean_history_means_single_errors() -> None:
    chance = random.Random(11)
    halves = [(Counts(250, errors(chance, 250, 0.01)), Counts(250, errors(chance, 250, 0.01))) for _ in range(1800)]
    found = calibrate(halves)
    assert (found.clump, found.block) == (1.0, 1.0)


def test_clumps_in_the_history_are_seen_and_bounded() -> None:
    chance = random.Random(12)
    halves = [
        (Counts(250, min(250, 10 * errors(chance, 250, 0.001))), Counts(250, min(250, 10 * errors(chance, 250, 0.001))))
        for _ in range(1800)
    ]
    assert 15 <= calibrate(halves).clump <= 120


def test_errors_that_last_are_given_longer_blocks() -> None:
    chance, halves, level = random.Random(13), [], [0.0, 0.0]
    for _ in range(3600):
        level = [0.97 * one + chance.gauss(0, 0.12) for one in level]
        rates = [0.01 * math.exp(one) for one in level]
        halves.append((Counts(2500, errors(chance, 2500, rates[0])), Counts(2500, errors(chance, 2500, rates[1]))))
    found = calibrate(halves)
    assert found.block >= 15
    assert found.clump > 1


def test_a_short_history_is_none() -> None:
    found = calibrate([(Counts(10, 0), Counts(10, 0))] * 100)
    assert (found.clump, found.block, found.seconds) == (FALLBACK.clump, FALLBACK.block, 100.0)


def test_what_a_step_can_see_is_what_it_finds() -> None:
    """At the increase that is announced with 90 % power, 80-100 % of bad releases are found."""
    increase = detectable(0.001, 500, 0.05, 300, CLEAN)
    chance = random.Random(14)
    found = sum(watch(chance, 0.001 + increase, 0.001, seconds=300) is not None for _ in range(60))
    assert found >= 45
    half = sum(watch(chance, 0.001 + increase / 3, 0.001, seconds=300) is not None for _ in range(30))
    assert half <= 20


def test_more_traffic_and_more_time_see_more() -> None:
    least = detectable(0.001, 500, 0.05, 600, CLEAN)
    assert detectable(0.001, 500, 0.05, 60, CLEAN) > least
    assert detectable(0.001, 5000, 0.05, 600, CLEAN) < least
    assert detectable(0.001, 500, 0.05, 600, CountSettings()) > least
    assert detectable(0.001, 0, 0.05, 600, CLEAN) == 1.0
    assert detectable(0.001, 0.01, 0.01, 10, CLEAN) == 1.0


def test_the_sentence_for_people() -> None:
    assert sentence(500, 600, 0.004) == "at 5% for 10m 0s this finds +0.4 points of errors with 90 % probability"
    assert "proves nothing" in sentence(500, 10, 1.0)
