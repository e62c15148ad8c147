"""What kind of change the latency made, for people."""

from __future__ import annotations

import pytest

from forge.core.judge.latency import LatencyEvidence, LatencySettings, fresh_latency, update_latency
from forge.core.judge.spread import shapes, slower_words

BOUNDS = (0.1, 0.2, 0.4, 0.8)


def seen(arm: tuple[int, ...], stable: tuple[int, ...], times: int = 3) -> LatencyEvidence:
    """Counts by bucket, the last one unbounded; some blocks, and one that is open."""
    settings = LatencySettings(block=2.0)
    state = fresh_latency(BOUNDS, settings)
    for at in range(1, times + 1):
        one, two = (tuple(zip((*BOUNDS, 1.7e308), counts, strict=True)) for counts in (arm, stable))
        state = update_latency(state, one, two, float(at), settings)
    return state


def test_wider_with_the_same_mean_is_another_spread() -> None:
    told = shapes(seen((75, 0, 0, 25, 0), (0, 80, 20, 0, 0)))
    assert told["change"] == "spread"
    assert told["arm"]["mean"] == pytest.approx(told["stable"]["mean"], rel=0.15)
    assert "variance" in slower_words(told)


def test_narrower_with_the_same_mean_is_told_as_that() -> None:
    assert shapes(seen((0, 80, 20, 0, 0), (75, 0, 0, 25, 0)))["change"] == "narrower"


def test_another_mean_is_no_matter_of_spread() -> None:
    told = shapes(seen((0, 0, 20, 80, 0), (80, 20, 0, 0, 0)))
    assert told["change"] == ""
    assert slower_words(told).startswith("answers more slowly than stable (p5 ")


def test_above_the_last_bound_the_mean_is_not_known() -> None:
    told = shapes(seen((75, 0, 0, 0, 25), (0, 80, 20, 0, 0)))
    assert told["arm"]["mean"] is None
    assert told["change"] == ""


@pytest.mark.parametrize("few", [(0, 0, 0, 0, 0), (1, 0, 0, 0, 0)])
def test_too_few_say_nothing(few: tuple[int, ...]) -> None:
    assert shapes(seen(few, (0, 80, 20, 0, 0))) == {}
    assert slower_words({}) == "answers more slowly than stable, "
