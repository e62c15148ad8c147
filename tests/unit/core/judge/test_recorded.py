"""Every judge over recorded readings says what it says when it is asked reading by reading."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from forge.core.judge.base import Series
from forge.core.judge.calibrate import Calibration
from forge.core.judge.recorded import HORIZON, judge_recorded
from forge.core.judge.registry import judge_named
from forge.core.release.state import ReleaseState, Verdict
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Sample

STRATEGY = Strategy(thresholds=(Threshold("error_rate", 0.05, 60.0),))
BUCKETS = (0.1, 1.0, 1.7e308)


def readings(rps: int, errors: int, *, onset: int = 0, seconds: int = 900, slow: int = 0) -> list[Sample]:
    """One a second: `errors` of each second's requests fail from `onset` on, `slow` of them take longer than 100 ms."""
    samples, bad = [], 0
    for second in range(seconds + 1):
        bad += errors if second > onset else 0
        latency = zip(BUCKETS, (second * (rps - slow), second * rps, second * rps), strict=True)
        samples.append(Sample(1000.0 + second, second * rps, bad, tuple(latency)))
    return samples


@pytest.mark.parametrize(
    ("name", "at"), [("threshold", 1201.0), ("failure_limit", 1240.0), ("mann_whitney", None), ("sequential", 1201.0)]
)
def test_each_judge_finds_an_outage_at_its_own_time(name: str, at: float | None) -> None:
    """Every second request fails from 200 s on: after one reading, at the next look, or after more minutes of it."""
    found = judge_recorded(
        judge_named(name), readings(40, 20, onset=200), readings(400, 0), strategy=STRATEGY,
        calibration=Calibration(1.0, 1.0, 1800.0),
    )  # fmt: skip
    assert found.kind == "rollback"
    assert at is None or found.at <= at + 10
    assert found.at >= 1201.0


@pytest.mark.parametrize("name", ["threshold", "failure_limit", "mann_whitney", "sequential"])
def test_no_judge_minds_a_version_like_stable(name: str) -> None:
    strategy = Strategy(thresholds=STRATEGY.thresholds)
    found = judge_recorded(judge_named(name), readings(40, 0), readings(400, 0), strategy=strategy)
    assert found.kind in {"promote", "hold", "inconclusive"}


@pytest.mark.parametrize("name", ["threshold", "failure_limit", "mann_whitney"])
def test_it_is_the_judge_itself_reading_by_reading(name: str) -> None:
    judge, arm, stable = judge_named(name), readings(40, 3, onset=300), readings(400, 1)
    release = ReleaseState("r-1", "arm", STRATEGY, baseline=arm[0], traffic_since=1000.0)
    state: dict[str, Any] = {}
    verdict = Verdict("hold", "")
    for index in range(len(arm)):
        series = (
            Series("arm", tuple(arm[: index + 1]), 1000.0, 1),
            Series("stable", tuple(stable[: index + 1]), 1000.0, 1),
        )
        verdict, state = judge.judge(state, release, *series, arm[index].at)
        state = msgspec.json.decode(msgspec.json.encode(state))
        if verdict.kind == "rollback":
            break
    found = judge_recorded(judge, arm, stable, strategy=STRATEGY)
    assert (found.kind, found.why, found.data) == (verdict.kind, verdict.why, verdict.data)


def test_the_time_of_a_verdict_is_since_when_it_stands() -> None:
    found = judge_recorded(judge_named("threshold"), readings(40, 0), readings(400, 0), strategy=STRATEGY)
    assert (found.kind, found.at) == ("promote", 1001.0)


def test_a_judge_sees_the_baseline_and_the_last_minutes_only() -> None:
    seen: list[Series] = []

    class Watching:
        def needs_data(self, release: ReleaseState) -> bool:
            return True

        def judge(
            self, state: dict[str, Any], release: ReleaseState, arm: Series, stable: Series, now: float
        ) -> tuple[Verdict, dict[str, Any]]:
            seen.extend((arm, stable))
            assert all(sample.at <= now for sample in (*arm.samples, *stable.samples))
            return Verdict("hold", "watching"), {"seen": state.get("seen", 0) + 1}

    weights = [500] * 400 + [2500] * 501
    found = judge_recorded(Watching(), readings(40, 0), readings(400, 0), weights=weights)
    assert found.state == {"seen": 901}
    last, beside = seen[-2:]
    assert last.samples[0].at == 1000.0
    assert last.samples[1].at == beside.samples[0].at == 1900.0 - HORIZON
    assert (seen[2 * 399].weights, seen[2 * 400].weights) == ((500,), (2500,))


def test_wrong_numbers_of_readings() -> None:
    with pytest.raises(ValueError, match="no readings of arm"):
        judge_recorded(judge_named("threshold"), [], [])
    with pytest.raises(ValueError, match="2 weights for 901 readings"):
        judge_recorded(judge_named("threshold"), readings(4, 0), [], weights=[1, 2])
