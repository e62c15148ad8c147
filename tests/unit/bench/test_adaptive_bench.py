"""The measurement of adaptive canaries plays releases that end as they should, and tells them in one table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _bench_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_the_same_release_is_the_same_and_good_ones_are_sooner_through() -> None:
    from bench.adaptive import ADAPTIVE, FIXED, Case, one_release

    steps, grown = Case(0.01, 500.0, 1, FIXED), Case(0.01, 500.0, 1, ADAPTIVE)
    fixed, adaptive = one_release((steps, 3)), one_release((grown, 3))
    assert adaptive == one_release((grown, 3))
    assert fixed.promoted is not None
    assert adaptive.promoted is not None
    assert adaptive.promoted * 3 < fixed.promoted
    assert fixed.rolled_back is adaptive.rolled_back is None


def test_an_outage_costs_about_the_budget_also_with_few_readings() -> None:
    from bench.adaptive import ADAPTIVE, Case, one_release

    for scrape in (1, 15):
        told = [one_release((Case(0.01, 5000.0, scrape, ADAPTIVE, 1.0), seed)) for seed in range(3)]
        assert all(one.rolled_back is not None and one.promoted is None for one in told)
        assert sum(one.failed for one in told) / 3 < 80


def test_what_was_measured_becomes_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import bench.adaptive as bench

    monkeypatch.setattr(sys, "argv", ["bench.adaptive", "--quick", "--jobs", "1"])
    assert bench.main() == 0
    shown = capsys.readouterr().out
    assert "| 0.1 %, 500, 1 s | fixed 5/25/50 %, 5 min each | 100 %, 90" in shown
    assert "| 0.1 %, 500, 1 s | adaptive, tolerance 0.1 % | 100 %, " in shown
    assert "4 good and 2 bad releases a cell" in shown
    assert "## Good releases of noisy services" in shown
