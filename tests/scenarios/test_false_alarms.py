"""Good releases through the whole core, in every null: the bound on false alarms holds there too, not in the judge
alone. A small version of `python -m bench false-alarms`."""

from __future__ import annotations

from math import comb
from pathlib import Path

import pytest

from bench.false_alarms import measure
from forge.simulate.engine_run import play_in_engine
from forge.simulate.nulls import NULLS, FalseAlarms, false_alarms, good_month, upper_bound

RELEASES = 10


@pytest.mark.parametrize("null", NULLS)
def test_good_versions_are_promoted(null: str) -> None:
    told = false_alarms(null, RELEASES, seed=11)
    assert told.releases == RELEASES
    assert told.decisions > RELEASES * 250
    # At a rate of 1 % more than two of ten happen once in 8,000 times; and a seed tells all, so none of it is luck.
    assert told.rolled_back <= 2
    assert told.promoted >= RELEASES - 2


def test_these_nulls_are_hard_the_classic_rule_fails_in_them() -> None:
    told = false_alarms("shared bursts", RELEASES, seed=11, judge="threshold")
    assert told.rolled_back >= 3


def test_the_same_through_worker_and_database(tmp_path: Path) -> None:
    """Two good releases in shared bursts, by the real worker: every look is a tick, a write and a log entry."""
    result = play_in_engine(good_month("shared bursts", 2), tmp_path)
    assert set(result.statuses.values()) == {"promoted"}
    assert result.decisions > 1200
    assert result.log_problem is None


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    assert upper_bound(0, 300, 0.95) == pytest.approx(0.00994, abs=1e-4)
    for hits, trials in ((1, 50), (3, 100), (9, 10)):
        rate = upper_bound(hits, trials, 0.95)
        tail = sum(comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(hits + 1))
        assert tail == pytest.approx(0.05, abs=1e-6)
    assert upper_bound(5, 5, 0.95) == 1.0
    assert FalseAlarms("clean", 300, 0, 300, 0, 1).at_most() < 0.01


def test_the_bench_adds_up() -> None:
    figures = measure(1, 3, 2)
    assert len(figures) == len(NULLS) + 1
    assert figures[-1].measured.startswith(f"0 of {len(NULLS)} ")
