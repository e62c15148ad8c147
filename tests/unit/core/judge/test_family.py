"""Several arms judged at once by the shipped judge: all together keep its bound."""

from __future__ import annotations

from random import Random
from typing import Any

from forge.core.judge.base import Series
from forge.core.judge.calibrate import Calibration
from forge.core.judge.sequential import SequentialJudge
from forge.core.judge.settings import SequentialSettings
from forge.core.release.state import ReleaseState
from forge.model.strategy import Strategy
from forge.model.traffic import Sample
from forge.simulate.draws import binomial, poisson
from forge.simulate.nulls import upper_bound

ARMS, SECONDS = ("a", "b", "c"), 120
ALPHA = 0.2
"""Large, so that a judge that does not keep it is seen in a few runs."""
JUDGE = SequentialJudge(SequentialSettings(alpha=ALPHA, ratio=1.0, rate=1e-6, weights={"errors": 1.0}))
FOUND = Calibration(1.0, 5.0, 1800.0)


class World:
    """Four versions that count requests and errors."""

    def __init__(self, seed: int, rates: dict[str, float]) -> None:
        self.rng, self.rates = Random(seed), rates
        self.samples = {name: [Sample(0.0, 0, 0)] for name in rates}

    def read(self, t: int) -> None:
        for name, rate in self.rates.items():
            requests = poisson(self.rng, 100.0 if name == "stable" else 30.0)
            last = self.samples[name][-1]
            sample = Sample(
                float(t), last.requests + requests, last.errors + binomial(self.rng, requests, rate)
            )  # fmt: skip
            self.samples[name].append(sample)

    def series(self, name: str) -> Series:
        # What is older is remembered by the judge itself.
        return Series(name, tuple(self.samples[name][-3:]), 0.0, 1, calibration=FOUND)


def rolled_back(seed: int, rates: dict[str, float]) -> tuple[set[str], set[str]]:
    """Return the arms that are rolled back with the bound kept over all of them, and those that each for itself is."""
    world = World(seed, rates)
    releases = {
        arm: ReleaseState(f"p-{arm}", arm, Strategy(), "progressing", created_at=0.0, previous="stable") for arm in ARMS
    }
    states: dict[str, dict[str, Any]] = {arm: {} for arm in ARMS}
    together: set[str] = set()
    alone: set[str] = set()
    for t in range(1, SECONDS + 1):
        world.read(t)
        verdicts = {}
        for arm in ARMS:
            verdicts[arm], states[arm] = JUDGE.judge(
                states[arm], releases[arm], world.series(arm), world.series("stable"), float(t)
            )
        alone |= {arm for arm, verdict in verdicts.items() if verdict.kind == "rollback"}
        together |= {arm for arm, verdict in JUDGE.finish(verdicts).items() if verdict.kind == "rollback"}
    return together, alone


def test_any_of_three_good_versions_is_rolled_back_no_more_often_than_the_bound_says():
    rates = dict.fromkeys(("stable", *ARMS), 0.02)
    told = [rolled_back(seed, rates) for seed in range(60)]
    together = sum(bool(one) for one, _ in told)
    alone = sum(bool(one) for _, one in told)
    assert upper_bound(together, len(told), 0.95) <= ALPHA
    assert together <= alone
    assert alone > 0  # else the test would have seen nothing


def test_each_of_two_bad_ones_goes_and_the_good_one_stays():
    for seed in range(3):
        together, _ = rolled_back(seed, {"stable": 0.02, "a": 0.3, "b": 0.02, "c": 0.5})
        assert together == {"a", "c"}
