"""The sequential judge over readings: what it finds, what it leaves alone, and what it says of it."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from forge.core.judge.base import Series
from forge.core.judge.calibrate import FALLBACK, Calibration
from forge.core.judge.sequential import SequentialJudge
from forge.core.judge.settings import SequentialSettings
from forge.core.release.state import ReleaseState, Verdict
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Sample

SEED = Threshold("error_rate", 0.05, 300.0)
CLEAN = Calibration(1.0, 1.0, 1800.0)
BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.7e308)


class Service:
    """Cumulative readings of one version, a second apart; `None` for a second makes no reading."""

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start
        self.samples = [Sample(start, 0, 0, tuple((bound, 0) for bound in BOUNDS), 0.0, 80_000_000)]

    def serve(self, requests: int, errors: int, *, slow: int = 0, cpu: float | None = None, seen: bool = True,
              memory: int = 80_000_000) -> None:  # fmt: skip
        last = self.samples[-1] if seen or not hasattr(self, "_unseen") else self._unseen
        last = getattr(self, "_unseen", self.samples[-1])
        self.now += 1.0
        latency = tuple(
            (bound, count + (requests if bound >= 1.0 else requests - slow if bound >= 0.05 else 0))
            for bound, count in last.latency
        )
        used = (last.cpu_seconds or 0.0) + (0.001 * requests if cpu is None else cpu)
        sample = Sample(self.now, last.requests + requests, last.errors + errors, latency, used, memory)
        self._unseen = sample
        if seen:
            self.samples.append(sample)

    def series(self, name: str, calibration: Calibration = CLEAN, replicas: int = 2, weight: int = 500) -> Series:
        return Series(name, tuple(self.samples[-330:]), 1000.0, replicas, (weight, weight), calibration)


class Pair:
    """An arm beside stable, and the judge that watches both."""

    def __init__(self, settings: SequentialSettings | None = None, calibration: Calibration = CLEAN,
                 thresholds: tuple[Threshold, ...] = (SEED,), stable: bool = True) -> None:  # fmt: skip
        self.judge = SequentialJudge(settings)
        self.arm, self.stable = Service(), Service()
        self.state: dict[str, Any] = {}
        self.release = ReleaseState("production-2", "1.4", Strategy(thresholds=thresholds))
        self.calibration = calibration
        self.has_stable = stable
        self.verdict = Verdict("hold", "")
        self.weight = 500

    def look(self) -> Verdict:
        arm = self.arm.series("1.4", self.calibration, weight=self.weight)
        other = self.stable.series("1.3", self.calibration, weight=10_000 - self.weight)
        stable = other if self.has_stable else Series("")
        self.verdict, self.state = self.judge.judge(self.state, self.release, arm, stable, self.arm.now)
        self.state = msgspec.json.decode(msgspec.json.encode(self.state))
        return self.verdict

    def second(self, own: tuple[int, int], other: tuple[int, int], **more: Any) -> Verdict:
        self.arm.serve(*own, **more)
        self.stable.serve(*other)
        return self.look()


def binomial(chance: random.Random, requests: int, rate: float) -> int:
    return sum(chance.random() < rate for _ in range(requests))


def seconds_until(
    pair: Pair, rate: float, stable_rate: float, seed: int, limit: int = 120, rps: int = 500
) -> int | None:
    chance = random.Random(seed)
    own = max(1, rps // 20)
    for second in range(1, limit + 1):
        verdict = pair.second((own, binomial(chance, own, rate)), (rps - own, binomial(chance, rps - own, stable_rate)))
        if verdict.kind == "rollback":
            return second
    return None


class TestWhatItFinds:
    @pytest.mark.parametrize(("rate", "within"), [(1.0, 2), (0.2, 4), (0.05, 15)])
    def test_a_fault_with_calibrated_history(self, rate: float, within: int) -> None:
        """judge.md 2.1: 1, 1 and 3 seconds at the median."""
        taken = sorted(seconds_until(Pair(), rate, 0.001, seed) or 999 for seed in range(9))
        assert taken[4] <= within

    @pytest.mark.parametrize(("rate", "within"), [(1.0, 4), (0.2, 20)])
    def test_a_fault_without_any_history(self, rate: float, within: int) -> None:
        taken = sorted(seconds_until(Pair(calibration=FALLBACK), rate, 0.001, seed) or 999 for seed in range(9))
        assert taken[4] <= within

    def test_a_good_version_is_left_alone(self) -> None:
        for seed in range(4):
            pair = Pair()
            assert seconds_until(pair, 0.01, 0.01, seed, limit=200) is None
            assert pair.verdict.kind == "promote"
