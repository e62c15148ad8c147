"""Forge's own faults, in virtual time: the real worker, the real database, killed, stopped, deaf, and two at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep, Threshold
from forge.simulate.clock import run_virtually
from forge.simulate.engine_run import EngineResult, at_rest, play_in_engine
from forge.simulate.mortal import Fate
from forge.simulate.story import FaultPlan, Kind, Occasion, Story
from forge.simulate.traffic import Shape
from forge.simulate.versions import Behaviour

STRATEGY = Strategy(
    "canary",
    (StrategyStep(weight=1000), StrategyStep(pause=3.0), StrategyStep(weight=5000), StrategyStep(pause=3.0)),
    thresholds=(Threshold("error_rate", 0.05, 30.0),),
    keep_previous=5.0,
)
STORY = Story(
    seconds=110.0, replicas=2, shape=Shape(rps=50.0), strategy=STRATEGY,
    plan=EnvironmentPlan("production", judge="threshold"),
    kinds=(Kind(Behaviour(ready_after=1.0)), Kind(Behaviour(ready_after=1.0, errors=0.5, bad=True))),
    sequence=((1.0, 0), (40.0, 1)),
)  # fmt: skip
WRITES = 36
"""Writes of the worker in the whole story, at least."""


def told(result: EngineResult) -> tuple[object, ...]:
    return (result.statuses, result.stable, result.split, result.replicas, result.log_problem, at_rest(result))


WHOLE = (
    {"production-1": "promoted", "production-2": "promoted", "production-3": "rolled_back"},
    "v1",
    {"v1": 10_000},
    {"v1": 2},
    None,
    True,
)


def test_a_story_is_the_same_through_the_whole_engine(tmp_path: Path) -> None:
    result = play_in_engine(STORY, tmp_path)
    assert told(result) == WHOLE
    assert result.seconds > 400
    counted = play_in_engine(STORY, tmp_path / "counted", fates=(Fate(at=10_000),))
    assert counted.writes[0] >= WRITES


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("first", range(1, 4))
def test_a_worker_that_is_killed_at_any_write_is_followed_by_another(tmp_path: Path, first: int, moment) -> None:
    for number in range(first, WRITES + 1, 9):
        result = play_in_engine(STORY, tmp_path / str(number), fates=(Fate("killed", number, moment),))
        assert told(result) == WHOLE, f"killed {moment} write {number}"


@pytest.mark.parametrize("number", [3, 12, 21, 33])
def test_a_worker_that_slept_longer_than_its_lease_changes_nothing_any_more(tmp_path: Path, number: int) -> None:
    fates = (Fate("stopped", number, "before", lasts=30.0), None)
    assert told(play_in_engine(STORY, tmp_path, fates=fates)) == WHOLE


def test_two_workers_are_one_writer(tmp_path: Path) -> None:
    assert told(play_in_engine(STORY, tmp_path, fates=(None, None))) == WHOLE


def test_a_worker_that_nobody_wakes_finds_out_by_itself(tmp_path: Path) -> None:
    assert told(play_in_engine(STORY, tmp_path, fates=(Fate("deaf"),))) == WHOLE


def test_faults_of_the_world_and_of_forge_at_once(tmp_path: Path) -> None:
    from msgspec.structs import replace

    faults = (
        FaultPlan("target_away", Occasion(at=3.0), 4.0), FaultPlan("metrics_away", Occasion(at=10.0), 4.0),
        FaultPlan("metrics_reset", Occasion(at=16.0)), FaultPlan("router_lags", Occasion(at=40.0), 20.0, 3.0),
        FaultPlan("replicas_lost", Occasion(at=60.0), 0.0, 0.5),
    )  # fmt: skip
    story = replace(STORY, faults=faults)
    for number in (2, 7, 11, 15, 19, 24, 30):
        fates = (Fate("killed", number, "after"), Fate("stopped", number, "before", lasts=12.0))
        result = play_in_engine(story, tmp_path / str(number), 3, fates)
        assert told(result) == WHOLE, number


def test_virtual_time_passes_at_once_and_stands_still_for_threads() -> None:
    async def main(loop) -> list[float]:
        began = loop.time()
        await asyncio.sleep(86_400.0)
        slept = loop.time()
        await asyncio.to_thread(time.sleep, 0.05)
        return [began, slept, loop.time()]

    began = time.monotonic()
    assert run_virtually(main) == [0.0, pytest.approx(86_400.0, abs=0.01), pytest.approx(86_400.0, abs=0.01)]
    assert time.monotonic() - began < 30


def test_the_engine_s_clocks_follow_virtual_time_and_come_back() -> None:
    from forge.store.clocks import leases, steady

    async def main(_loop) -> tuple[float, float]:
        await asyncio.sleep(77.0)
        return steady(), leases()

    assert run_virtually(main) == (pytest.approx(77.0, abs=0.01), pytest.approx(77.0, abs=0.01))
    assert leases() == pytest.approx(time.monotonic(), abs=5.0)
