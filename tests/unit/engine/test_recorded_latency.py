"""Latency of recorded releases: the history of stable's groups says how slow requests hang together."""

from __future__ import annotations

import math
import random
from pathlib import Path

import msgspec
import pytest

from forge.core.judge.latency import LATENCY_FALLBACK, LatencyCalibration, LatencySettings
from forge.engine.analysing import judge_release
from forge.engine.recorded import Recorded, read_index, read_release

HEADER = "release,t,arm,requests,errors,le_0.1,le_0.5\n"


def service(
    tmp_path: Path, *, spread: float, seed: int = 1, begin: int = -900, until: int = 300, faulty: float = 1.0,
    each: int = 100, empty: bool = False,
) -> Recorded:  # fmt: skip
    """Both halves of stable and the canary are slow in a tenth of requests, and wander on their own by `spread`."""
    chance, rows = random.Random(seed), []
    totals: dict[str, list[int]] = {}
    levels: dict[str, float] = {}
    for t in range(begin, until):
        for arm in ("stable/1", "stable/2", "canary"):
            if arm == "canary" and t < 0:
                continue
            level = levels.get(arm, 0.0) * 0.95 + chance.gauss(0, spread * math.sqrt(1 - 0.95**2))
            levels[arm] = level
            slow = min(1.0, 0.1 * math.exp(level) * (faulty if arm == "canary" else 1.0))
            counts = totals.setdefault(arm, [0, 0, 0])
            over = sum(chance.random() < slow for _ in range(each))
            counts[0] += each
            counts[1] += each - over
            counts[2] += each - over // 3
            buckets = "," if empty else f"{counts[1]},{counts[2]}"
            rows.append(f"a,{t},{arm},{counts[0]},0,{buckets}")
    path = tmp_path / f"readings-{seed}.csv"
    path.write_text(HEADER + "\n".join(rows))
    found, problems = read_release(read_index(path), "a", "stable")
    assert problems == []
    assert found is not None
    return found


def test_a_service_whose_halves_wander_is_believed_more_slowly(tmp_path: Path) -> None:
    quiet, noisy = (service(tmp_path, spread=spread).latency for spread in (0.0, 0.5))
    assert quiet is not None
    assert noisy is not None
    assert (quiet.clump, quiet.gross_ratio) == (1.0, 3.0)
    assert quiet.seconds == noisy.seconds == pytest.approx(900, abs=1)
    assert noisy.clump > 10
    assert noisy.block >= 15


def test_good_releases_of_such_a_service_stay(tmp_path: Path) -> None:
    """Without what the history says, they do not."""
    found = [service(tmp_path, spread=0.6, seed=seed) for seed in range(6)]
    unaware = [judge_release(msgspec.structs.replace(one, latency=None)).analysis.verdict for one in found]
    told = [judge_release(one).analysis.verdict for one in found]
    assert told.count("rollback") == 0
    assert unaware.count("rollback") >= 1


def test_a_slow_version_is_found_all_the_same(tmp_path: Path) -> None:
    assert judge_release(service(tmp_path, spread=0.1, faulty=8.0)).analysis.verdict == "rollback"


@pytest.mark.parametrize("how", ["short", "empty"])
def test_without_enough_history_nothing_is_known(tmp_path: Path, how: str) -> None:
    found = service(tmp_path, spread=0.3, begin=-200 if how == "short" else -900, until=30, empty=how == "empty")
    if found.latency is not None:
        assert (found.latency.clump, found.latency.block) == (LATENCY_FALLBACK.clump, LATENCY_FALLBACK.block)
        assert found.latency.beside(LatencySettings()) == LatencySettings()


def test_what_is_set_is_never_made_less_careful() -> None:
    given = LatencySettings("both", 1.25, 30.0, 20.0, gross_ratio=5.0)
    assert LatencyCalibration(1.0, 1.0, 900.0).beside(given) == given
    assert LatencyCalibration(99.0, 99.0, 100.0, 99.0).beside(given) == given, "too short a history"
    careful = LatencyCalibration(40.0, 30.0, 900.0, 8.0).beside(given)
    assert (careful.clump, careful.block, careful.gross_ratio) == (40.0, 30.0, 8.0)
    assert (careful.kind, careful.ratio) == ("both", 1.25)
