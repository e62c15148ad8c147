"""A judge's memory in store: smaller, and the same; what was stored before is read as well."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgspec
import pytest

from forge.core.judge.base import Series
from forge.core.judge.memory import Memory, recall, remembered, take_all
from forge.core.judge.sequential import SequentialJudge
from forge.core.judge.settings import SequentialSettings
from forge.core.judge.stored import restored, shortened
from forge.core.release.state import ReleaseState
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import LogTemplate, Sample

BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 1.7e308)
SETTINGS = SequentialSettings()


def readings(seed: int, rate: int, failing: float, start: float, seconds: int) -> tuple[Sample, ...]:
    chance, found = Random(seed), [Sample(start, 0, 0, tuple((bound, 0) for bound in BOUNDS), 0.0, 80_000_000)]
    for _ in range(seconds):
        last = found[-1]
        requests = rate + chance.randrange(rate)
        parts = [1 - 0.8 ** (index + 1) for index in range(len(BOUNDS) - 1)] + [1.0]
        counted = zip(last.latency, parts, strict=True)
        latency = tuple((bound, count + round(requests * part)) for (bound, count), part in counted)
        errors = last.errors + round(requests * failing * chance.random() * 2)
        found.append(Sample(last.at + 1, last.requests + requests, errors, latency, last.at * 0.1, 80_000_000))
    return tuple(found)


def series(version: str, samples: tuple[Sample, ...], upto: int) -> Series:
    return Series(version, samples[: upto + 1], samples[0].at, 2, (500, 500))


@pytest.mark.parametrize("failing", [0.01, 0.03, 0.5])
@pytest.mark.parametrize("start", [0.0, 1_790_000_000.25])
def test_decisions_are_those_of_the_memory_in_full(failing: float, start: float) -> None:
    arm, stable = readings(1, 50, failing, start, 120), readings(2, 950, 0.01, start, 120)
    judge, release = SequentialJudge(), ReleaseState("p-1", "2", Strategy(thresholds=(Threshold("error_rate", 0.6),)))
    state: dict[str, Any] = {}
    full = recall({}, SETTINGS, series("1", stable, 0))
    for second in range(len(arm)):
        own, other = series("2", arm, second), series("1", stable, second)
        verdict, state = judge.judge(state, release, own, other, arm[second].at)
        full = take_all(full, SETTINGS, own, other, 0.6)
        in_full = judge.judge(_plain(full), release, own, other, arm[second].at)[0]
        assert (verdict.kind, verdict.why) == (in_full.kind, in_full.why)
        assert verdict.data["log_evidence"] == pytest.approx(in_full.data["log_evidence"], abs=1e-3)
    assert len(json.dumps(state, separators=(",", ":"))) <= 4096


def test_what_is_stored_is_stored_again_as_it_is() -> None:
    arm, stable = readings(1, 50, 0.01, 1000.0, 60), readings(2, 950, 0.01, 1000.0, 60)
    memory = take_all(recall({}, SETTINGS, series("1", stable, 0)), SETTINGS, series("2", arm, 60),
                      series("1", stable, 60), 0.05)  # fmt: skip
    state = remembered(memory)
    assert json.loads(json.dumps(state)) == state
    assert remembered(recall(state, SETTINGS, series("1", stable, 60))) == state


def test_a_state_of_before_goes_on() -> None:
    arm, stable = readings(1, 50, 0.01, 1000.0, 60), readings(2, 950, 0.01, 1000.0, 60)
    memory = take_all(recall({}, SETTINGS, series("1", stable, 0)), SETTINGS, series("2", arm, 60),
                      series("1", stable, 60), 0.05)  # fmt: skip
    assert restored(_plain(memory)) == _plain(memory)
    assert recall(_plain(memory), SETTINGS, series("1", stable, 60)) == memory


def test_the_interval_comes_back_to_its_last_digit() -> None:
    arm, stable = readings(1, 50, 0.01, 1000.0, 60), readings(2, 950, 0.01, 1000.0, 60)
    memory = take_all(recall({}, SETTINGS, series("1", stable, 0)), SETTINGS, series("2", arm, 60),
                      series("1", stable, 60), 0.05)  # fmt: skip
    assert memory.interval.likelihood
    assert recall(remembered(memory), SETTINGS, series("1", stable, 60)).interval == memory.interval


@pytest.mark.parametrize("sample", [
    Sample(15.0, 15, 15),
    Sample(1_790_000_000.123, 1, 0, ((1.7e308, 1),), 0.0, 0, log_errors=0, good_for=90.0),
    Sample(0.0, 0, 0, log_errors=15, templates=(LogTemplate("a", 1),), values=(("x", 15.0),), lacks=("loki",)),
])  # fmt: skip
def test_no_reading_loses_anything(sample: Sample) -> None:
    state = {"arm": json.loads(msgspec.json.encode(sample))}
    assert msgspec.convert(restored(shortened(state))["arm"], Sample, strict=False) == sample


def test_times_keep_their_digits() -> None:
    state = {"errors": {"at": 1_790_000_000.123, "sensitive": [0.123456789, [1e-31], 1_790_000_000.123]}}
    assert shortened(state)["errors"] == {"at": 1_790_000_000.123, "sensitive": [0.123457, [0], 1_790_000_000.123]}


def _plain(memory: Memory) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(memory))
    return found
