from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.judge.analysis import AnalysisSettings, analyse_release
from forge.core.judge.calibrate import FALLBACK, Calibration
from forge.core.judge.evidence import Counts
from forge.core.judge.interval import (
    excluded,
    fresh_interval,
    interval_of,
    ratio_interval,
    update_interval,
    upper_rate,
)
from forge.core.judge.settings import SequentialSettings
from forge.model.traffic import Sample

CLEAN = Calibration(1.0, 1.0, 1800.0)
ONLY_ERRORS = AnalysisSettings(SequentialSettings(weights={"errors": 1.0}))


def readings(requests: int, rate: float, seconds: int, seed: int = 1, begin: int = 0) -> list[Sample]:
    rng, total, errors = random.Random(seed), 0, 0
    found = [Sample(float(begin), 0, 0)]
    for t in range(begin + 1, seconds + 1):
        total += requests
        errors += sum(rng.random() < rate for _ in range(requests))
        found.append(Sample(float(t), total, errors))
    return found


def one(arm, stable, calibration=CLEAN, options=ONLY_ERRORS):
    return analyse_release(stable, {"canary": arm}, calibration, options)[0]


def test_an_outage_is_rolled_back_at_the_first_readings():
    found = one(readings(25, 1.0, 100, 2), readings(100, 0.01, 100))
    assert found.verdict == "rollback"
    assert found.t <= 2
    assert found.failed == 25 * found.t


def test_a_good_release_is_promoted_when_worse_is_excluded():
    found = one(readings(100, 0.01, 300, 2), readings(100, 0.01, 300))
    assert found.verdict == "promote"
    assert 0 < found.t < 300
    assert found.interval[0] < 1 < found.interval[1]


def test_too_few_requests_prove_nothing():
    found = one(readings(1, 0.0, 60, 2), readings(10, 0.0, 60))
    assert (found.verdict, found.t) == ("inconclusive", 60)


def test_what_cannot_be_compared_holds():
    assert one(readings(10, 0.5, 60), []).verdict == "hold"
    early = one(readings(10, 0.0, 20), readings(10, 0.0, 60))
    assert early.verdict == "hold"
    assert "20" in early.why


def test_an_outage_that_both_share_is_no_fault_of_the_arm():
    assert one(readings(100, 0.3, 120, 2), readings(100, 0.3, 120)).verdict != "rollback"


def test_the_hard_limit_holds_though_stable_is_nearly_as_bad():
    found = one(readings(300, 0.053, 300, 2), readings(300, 0.049, 300), options=AnalysisSettings(limit=0.03))
    assert found.verdict != "rollback"  # both are above it
    alone = one(
        readings(300, 0.05, 300, 2),
        readings(300, 0.028, 300),
        FALLBACK,
        AnalysisSettings(SequentialSettings(ratio=3.0, rate=0.2, weights={"errors": 1.0}), limit=0.03),
    )
    assert (alone.verdict, alone.by) == ("rollback", "limit")


def test_a_fault_in_one_arm_is_no_other_arms():
    found = analyse_release(
        readings(100, 0.01, 200),
        {"good": readings(20, 0.01, 200, 2), "bad": readings(20, 0.4, 200, 3)},
        CLEAN,
        ONLY_ERRORS,
    )
    assert [(arm.arm, arm.verdict == "rollback") for arm in found] == [("bad", True), ("good", False)]


def test_a_missing_reading_is_covered_by_the_next():
    arm, stable = readings(25, 0.3, 60, 2), readings(100, 0.01, 60)
    gap = [sample for sample in arm if not 1 <= sample.at <= 3]
    found = one(gap, stable)
    assert found.verdict == "rollback"
    assert found.t >= 4
    assert found.failed == next(sample.errors for sample in arm if sample.at == found.t)


def test_the_trace_ends_with_the_verdict():
    found = analyse_release(
        readings(100, 0.01, 200), {"a": readings(20, 0.1, 200, 2)}, CLEAN, ONLY_ERRORS, traced=True
    )[0]
    assert found.trace[-1].t == found.t
    assert found.trace[-1].log_e == found.log_evidence >= math.log(100)


counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n // 10))).map(lambda c: Counts(*c))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(counts, counts), max_size=25), st.sampled_from([1.0, 4.0, 20.0]))
def test_the_interval_of_all_blocks_is_that_of_one_by_one(blocks, clump):
    slow = fresh_interval()
    for arm, stable in blocks:
        slow = update_interval(slow, arm, stable, clump)
    quick = interval_of(blocks, clump)
    assert len(quick.likelihood) == len(slow.likelihood)
    near = [(a, b) for a, b in zip(quick.likelihood, slow.likelihood, strict=True) if min(a, b) > -900]
    assert all(a == pytest.approx(b, abs=0.01) for a, b in near)
    assert ratio_interval(quick)[0] == pytest.approx(ratio_interval(slow)[0], rel=0.15)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(1e-6, 0.999))
def test_a_rate_is_excluded_when_it_is_above_the_upper_bound(requests, share, rate):
    errors = int(requests * share)
    bound = upper_rate(errors, requests)
    if abs(bound - rate) > 1e-9:
        assert excluded(errors, requests, rate) == (bound < rate)
