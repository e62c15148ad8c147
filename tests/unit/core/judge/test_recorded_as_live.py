"""Recorded readings are judged as in a running release: the same evidence, reading by reading.

What differs on purpose (docs/judge.md): where there is no latency, errors have all of the weight; the hard limit is
averaged with the rest; and that traffic moved is seen from the requests, where a running release knows the weights.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.analysis import AnalysisSettings, _Arm, analyse_release
from forge.core.judge.base import Series
from forge.core.judge.calibrate import Calibration
from forge.core.judge.combine import combine_metrics, log_mean
from forge.core.judge.evidence import log_e
from forge.core.judge.interval import ratio_interval
from forge.core.judge.latency import latency_log_e
from forge.core.judge.memory import Memory, recall, take_all
from forge.core.judge.settings import SequentialSettings
from forge.core.judge.slo import slo_log_e
from forge.model.traffic import Sample

BOUNDS = (0.1, 0.5, 1.0, 1e308)
LIMIT = 0.05


@st.composite
def counts(draw: st.DrawFn, most: int) -> tuple[int, int, tuple[int, ...]]:
    """Requests, errors, and how many were at most as slow as each bound."""
    requests = draw(st.integers(0, most))
    errors = draw(st.integers(0, min(requests, 12)) | st.integers(0, requests))
    slower = sorted(draw(st.lists(st.integers(0, requests), min_size=3, max_size=3)))
    return requests, errors, (*slower, requests)


@st.composite
def releases(draw: st.DrawFn) -> tuple[list[Sample], list[Sample]]:
    """Cumulative readings of an arm and of stable, at the same moments but not evenly in time."""
    moments, most, latency = draw(st.integers(2, 40)), draw(st.sampled_from([3, 60, 2000])), draw(st.booleans())
    arm, stable, at = [Sample(0.0, 0, 0, nothing(latency))], [Sample(0.0, 7, 2, nothing(latency))], 0.0
    for _ in range(moments):
        at += draw(st.sampled_from([1.0, 1.0, 1.0, 2.0, 5.0, 0.5, 20.0]))
        arm.append(added(arm[-1], draw(counts(most)), at))
        stable.append(added(stable[-1], draw(counts(most)), at))
    return arm, stable


def nothing(latency: bool) -> tuple[tuple[float, int], ...]:
    return tuple((bound, 0) for bound in BOUNDS) if latency else ()


def added(before: Sample, more: tuple[int, int, tuple[int, ...]], at: float) -> Sample:
    buckets = tuple((bound, count + extra) for (bound, count), extra in zip(before.latency, more[2], strict=False))
    return Sample(at, before.requests + more[0], before.errors + more[1], buckets)


def recorded(
    arm: list[Sample], stable: list[Sample], settings: SequentialSettings, found: Calibration
) -> tuple[_Arm, list[int]]:
    """The arm as `forge analyse` leaves it, and after which readings its traffic had moved."""
    one = _Arm("arm", AnalysisSettings(settings, LIMIT), settings.calibrated(found), latency=bool(arm[0].latency))
    moved, shares = 0, []
    for own, other in zip(arm, stable, strict=True):
        before = one.share
        one.advance(own, other)
        moved += before is not None and one.share != before
        shares.append(moved)
    return one, shares


def live(
    arm: list[Sample], stable: list[Sample], settings: SequentialSettings, found: Calibration, shares: list[int]
) -> Memory:
    """The memory of the running judge after the same readings."""
    memory = recall({}, settings, Series("1.3", calibration=found))
    for index, moved in enumerate(shares):
        first = max(0, index - 40)
        own = Series("1.4", tuple(arm[first : index + 1]), weights=(moved,))
        memory = take_all(memory, settings, own, Series("1.3", tuple(stable[first : index + 1])), LIMIT)
    return memory


@given(
    release=releases(), clump=st.sampled_from([None, 1.0, 4.5, 20.0]), block=st.sampled_from([None, 1.0, 15.0]),
    ratio=st.sampled_from([1.0, 1.1, 3.0]), history=st.sampled_from([0.0, 600.0]),
)  # fmt: skip
def test_the_evidence_is_the_same(
    release: tuple[list[Sample], list[Sample]], clump: float | None, block: float | None, ratio: float, history: float
) -> None:
    settings, found = SequentialSettings(ratio=ratio, clump=clump, block=block), Calibration(7.0, 5.0, history)
    one, shares = recorded(*release, settings, found)
    memory = live(*release, settings, found, shares)
    assert log_e(memory.errors) == pytest.approx(log_e(one.errors), abs=1e-6)
    assert memory.errors == one.errors
    assert ratio_interval(memory.interval) == pytest.approx(one.interval(len(one.blocks)), rel=1e-6)
    assert (memory.latency is None) == (one.latency is None)
    if memory.latency is not None and one.latency is not None:
        assert latency_log_e(memory.latency) == pytest.approx(latency_log_e(one.latency), abs=1e-6)
    assert memory.slo is not None
    assert one.slo is not None
    assert slo_log_e(memory.slo) == pytest.approx(slo_log_e(one.slo), abs=1e-6)


@given(release=releases())
def test_its_evidence_is_that_of_the_parts(release: tuple[list[Sample], list[Sample]]) -> None:
    """Errors alone where there is no latency, and a tenth for the hard limit."""
    settings = SequentialSettings()
    one, _ = recorded(*release, settings, Calibration(1.0, 1.0, 600.0))
    metrics, weights = {"errors": log_e(one.errors)}, {"errors": 1.0}
    if one.latency is not None:
        metrics["latency"], weights = latency_log_e(one.latency), {"errors": 0.5, "latency": 0.3}
    worse = combine_metrics(weights, metrics)
    limit = one._limit_log_e()
    assert one.log_e == pytest.approx(log_mean([(0.9, worse), (0.1, limit)]), abs=1e-6)


@given(release=releases(), cut=st.integers(1, 39))
def test_what_comes_later_changes_nothing_before(release: tuple[list[Sample], list[Sample]], cut: int) -> None:
    """A rollback stands, and comes at the same reading however much was recorded after it."""
    arm, stable = release
    (whole,) = analyse_release(stable, {"arm": arm}, Calibration(1.0, 1.0, 600.0), AnalysisSettings())
    end = arm[min(cut, len(arm) - 1)].at
    (part,) = analyse_release(
        [s for s in stable if s.at <= end], {"arm": [s for s in arm if s.at <= end]}, Calibration(1.0, 1.0, 600.0),
        AnalysisSettings(),
    )  # fmt: skip
    if whole.verdict == "rollback" and whole.t <= end:
        assert (part.verdict, part.t, part.failed) == ("rollback", whole.t, whole.failed)
    else:
        assert part.verdict != "rollback"
    assert part.largest <= whole.largest + 1e-9 or whole.verdict == "rollback"
