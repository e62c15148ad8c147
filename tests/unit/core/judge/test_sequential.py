"""The sequential judge over readings: what it finds, what it leaves alone, and what it says of it."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from forge.core.judge.base import JudgesTogether, Series
from forge.core.judge.calibrate import FALLBACK, Calibration
from forge.core.judge.evidence import Counts, fresh_counts, log_e, update_counts
from forge.core.judge.registry import judge_of
from forge.core.judge.sequential import SequentialJudge
from forge.core.judge.settings import SequentialSettings
from forge.core.release.state import ReleaseState, Verdict
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Sample

SEED = Threshold("error_rate", 0.05, 300.0)
CLEAN = Calibration(1.0, 1.0, 1800.0)
BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.7e308)


class Service:
    """Cumulative readings of one version, a second apart; `None` for a second makes no reading."""

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start
        self._last = Sample(start, 0, 0, tuple((bound, 0) for bound in BOUNDS), 0.0, 80_000_000)
        self.samples = [self._last]

    def serve(self, requests: int, errors: int, *, slow: int = 0, cpu: float | None = None, seen: bool = True,
              memory: int = 80_000_000) -> None:  # fmt: skip
        last = self._last
        self.now += 1.0
        latency = tuple(
            (bound, count + (requests if bound >= 1.0 else requests - slow if bound >= 0.05 else 0))
            for bound, count in last.latency
        )
        used = (last.cpu_seconds or 0.0) + (0.001 * requests if cpu is None else cpu)
        sample = Sample(self.now, last.requests + requests, last.errors + errors, latency, used, memory)
        self._last = sample
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


class TestTheBound:
    """At most 1 % of good releases: two of twenty would have a probability of less than 2 %."""

    @pytest.mark.parametrize("kind", ["clean", "bursts", "clumps"])
    def test_good_releases_are_not_rolled_back(self, kind: str) -> None:
        calibration = FALLBACK if kind == "clumps" else CLEAN
        rolled_back = 0
        for seed in range(20):
            chance, pair = random.Random(f"{kind}{seed}"), Pair(calibration=calibration, thresholds=())
            for second in range(100):
                rate = 0.3 if kind == "bursts" and second % 30 < 4 else 0.01
                own, other = binomial(chance, 25, rate), binomial(chance, 475, rate)
                if kind == "clumps":
                    own = min(25, own + (20 if chance.random() < 0.004 else 0))
                    other += 20 * (chance.random() < 0.08)
                if pair.second((25, own), (475, other)).kind == "rollback":
                    rolled_back += 1
                    break
        assert rolled_back <= 1


class TestOneReadingOneFactor:
    def test_looking_twice_changes_nothing(self) -> None:
        pair = Pair()
        for _ in range(10):
            pair.second((25, 2), (475, 5))
            before = msgspec.json.encode(pair.state)
            pair.look()
            assert msgspec.json.encode(pair.state) == before

    def test_an_outage_of_metrics_keeps_the_evidence_and_loses_no_error(self) -> None:
        pair = Pair()
        for _ in range(20):
            pair.second((25, 1), (475, 5))
        before = pair.verdict.data["log_evidence"]
        for _ in range(60):
            pair.arm.serve(25, 0, seen=False)
            pair.stable.serve(475, 5, seen=False)
        assert pair.look().data["log_evidence"] == before
        assert pair.verdict.data["quality"] == "stale"
        pair.second((25, 0), (475, 5))
        assert pair.verdict.data["quality"] == "fresh"
        assert pair.verdict.data["errors"] == 20
        assert pair.verdict.data["requests"] == 81 * 25

    def test_only_what_both_saw_is_compared(self) -> None:
        pair = Pair()
        pair.second((25, 0), (475, 5))
        before = pair.verdict.data["metrics"]
        for _ in range(30):
            pair.arm.serve(25, 1)
            pair.stable.serve(475, 5, seen=False)
            pair.look()
        assert pair.verdict.data["metrics"] == before
        assert pair.verdict.data["errors"] == 30

    def test_counters_that_fall_make_no_factor(self) -> None:
        pair = Pair()
        for _ in range(5):
            pair.second((25, 0), (475, 5))
        pair.arm.samples.append(Sample(pair.arm.now + 1, 0, 0))
        pair.arm.now += 1
        pair.stable.serve(475, 5)
        before = pair.verdict.data["metrics"]["errors"]
        assert pair.look().data["metrics"]["errors"] == pytest.approx(before, abs=1e-4)

    def test_the_state_is_small_and_survives_storing(self) -> None:
        pair = Pair(calibration=FALLBACK)
        for second in range(120):
            pair.second((25, second % 3), (475, 5), slow=second % 7)
        metrics = 4
        assert len(msgspec.json.encode(pair.state)) <= 4096 * metrics
        again = pair.judge.judge(
            pair.state, pair.release, pair.arm.series("1.4"), pair.stable.series("1.3"), pair.arm.now
        )
        assert again[1] == pair.state


class TestTheHardLimit:
    def test_the_first_version_has_nothing_beside_it(self) -> None:
        pair = Pair(stable=False)
        assert pair.second((100, 1), (0, 0)).kind == "promote"
        for _ in range(5):
            if pair.second((100, 40), (0, 0)).kind == "rollback":
                break
        assert pair.verdict.data["by"] == "limit"
        assert "above the limit of 5 %" in pair.verdict.why

    def test_a_young_window_above_it_waits_and_is_no_alarm(self) -> None:
        pair = Pair(stable=False)
        found = pair.second((10, 1), (0, 0))
        assert found.kind == "hold"
        assert found.data["doubt"]
        for _ in range(40):
            found = pair.second((10, 0), (0, 0))
        assert found.kind == "promote"

    def test_an_outage_that_both_share_waits_and_leaves_no_trace(self) -> None:
        pair = Pair()
        for _ in range(20):
            pair.second((25, 0), (475, 2))
        found = [pair.second((25, 8), (475, 152)).kind for _ in range(30)]
        assert "rollback" not in found
        assert set(found[5:]) == {"hold"}
        assert "both share" in pair.verdict.why
        for _ in range(200):
            assert pair.second((25, 0), (475, 2)).kind != "rollback"
        assert pair.verdict.kind == "promote"

    def test_in_a_shared_outage_the_one_that_is_worse_still_goes(self) -> None:
        pair = Pair()
        for _ in range(60):
            if pair.second((25, 20), (475, 50)).kind == "rollback":
                break
        assert pair.verdict.data["by"] == "evidence"

    def test_without_requests_it_cannot_know_and_says_so_in_time(self) -> None:
        pair = Pair(SequentialSettings(decide_within=30.0))
        found = [pair.second((0, 0), (500, 1)) for _ in range(40)]
        assert found[5].kind == "hold"
        assert found[5].data["quality"] == "no_traffic"
        assert found[-1].kind == "inconclusive"


class TestOtherMetrics:
    def test_a_slower_version_goes(self) -> None:
        pair = Pair(thresholds=())
        for _ in range(200):
            if pair.second((25, 0), (475, 0), slow=15).kind == "rollback":
                break
        assert pair.verdict.kind == "rollback"
        assert "answers more slowly" in pair.verdict.why

    def test_a_rule_stays_a_rule(self) -> None:
        pair = Pair(thresholds=(Threshold("memory", 100e6),))
        found = pair.second((25, 0), (475, 0), memory=120_000_000)
        assert found.kind == "rollback"
        assert found.data["by"] == "rule"

    def test_what_must_be_proven_is_waited_for(self) -> None:
        pair = Pair(SequentialSettings(prove=0.02))
        assert pair.second((25, 0), (475, 2)).kind == "hold"
        for _ in range(60):
            found = pair.second((25, 0), (475, 2))
        assert found.kind == "promote"


class TestArmsTogether:
    def test_weak_evidence_against_one_of_many_is_not_enough(self) -> None:
        judge = SequentialJudge()
        assert isinstance(judge, JudgesTogether)
        strong = Verdict("rollback", "x", {"by": "evidence", "log_evidence": 4.7})
        good = Verdict("promote", "y", {"log_evidence": -2.0})
        assert judge.finish({"a": strong})["a"].kind == "rollback"
        assert judge.finish({"a": strong, "b": good})["a"].kind == "hold"
        sure = Verdict("rollback", "x", {"by": "evidence", "log_evidence": 9.0})
        both = judge.finish({"a": sure, "b": good})
        assert (both["a"].kind, both["b"].kind) == ("rollback", "promote")
        limit = Verdict("rollback", "x", {"by": "limit", "log_evidence": 0.0})
        assert judge.finish({"a": limit, "b": good})["a"].kind == "rollback"


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.0}, {"ratio": 0.9}, {"weights": {"errors": 0.0}}, {"weights": {"loggs": 1.0}}, {"alfa": 0.1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="settings of the judge"):
        judge_of(EnvironmentPlan("production", judge_config=wrong))


def test_other_judges_have_nothing_to_set() -> None:
    with pytest.raises(UsageError, match="nothing to set"):
        judge_of(EnvironmentPlan("production", judge="threshold", judge_config={"alpha": 0.1}))


def test_no_channel_tolerates_less_than_what_is_tolerated() -> None:
    found = Calibration(1.0, 1.0, 1800.0)
    lenient = SequentialSettings(ratio=5.0, rate=0.6, latency_ratio=4.0)
    counts, slow = lenient.counts(found), lenient.latencies(found)
    assert (counts.gross_ratio, counts.gross_rate, slow.gross_ratio) == (5.0, 0.6, 4.0)
    assert SequentialSettings().counts(found).gross_ratio > SequentialSettings().ratio
    state = fresh_counts(counts)
    for t in range(1, 200):  # three times as many errors, which it is told to bear
        state = update_counts(state, counts, Counts(100, 15), Counts(100, 5), float(t))
    assert log_e(state) < 0
