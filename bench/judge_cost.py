"""What the default judge costs: time of one look at one arm, and its state, with errors, latency, CPU and memory."""

from __future__ import annotations

import json
import statistics
import time
from random import Random
from typing import Any

from bench.figures import Figure
from forge.core.judge.base import Series
from forge.core.judge.sequential import SequentialJudge
from forge.core.release.state import ReleaseState
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Sample
from forge.simulate.draws import poisson

SECONDS, METRICS = 600, 4
BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 1.7e308)


def measure() -> list[Figure]:
    """Return the median time of an update of one metric of one arm, and the largest state as JSON."""
    chance, judge = Random(1), SequentialJudge()
    release = ReleaseState("p-1", "2", Strategy(thresholds=(Threshold("error_rate", 0.05, 300.0),)))
    arm, stable = [_first()], [_first()]
    state: dict[str, Any] = {}
    took, largest = [], 0
    for second in range(1, SECONDS + 1):
        arm.append(_next(chance, arm[-1], 50))
        stable.append(_next(chance, stable[-1], 950))
        own = Series("2", tuple(arm[-330:]), 0.0, 2, (500, 500))
        other = Series("1", tuple(stable[-330:]), 0.0, 2, (9500, 9500))
        began = time.perf_counter()
        _, state = judge.judge(state, release, own, other, float(second))
        took.append(time.perf_counter() - began)
        largest = max(largest, len(json.dumps(state, separators=(",", ":"))))
    each = statistics.median(took) * 1000 / METRICS
    return [
        Figure("judge: update of one metric of one arm, median", f"{each:.2f} ms", "at most 0.3 ms"),
        Figure("judge: state of one arm, all metrics, largest", f"{largest / 1000:.1f} kB", "at most 4 kB"),
    ]


def _first() -> Sample:
    return Sample(0.0, 0, 0, tuple((bound, 0) for bound in BOUNDS), 0.0, 80_000_000)


def _next(chance: Random, last: Sample, rate: int) -> Sample:
    requests = poisson(chance, rate)
    errors = min(requests, poisson(chance, requests * 0.001))
    reached = [1 - 0.8 ** (index + 1) for index in range(len(BOUNDS) - 1)] + [1.0]
    latency = tuple(
        (bound, count + round(requests * part)) for (bound, count), part in zip(last.latency, reached, strict=True)
    )
    used = (last.cpu_seconds or 0.0) + 0.001 * requests
    return Sample(last.at + 1, last.requests + requests, last.errors + errors, latency, used, 80_000_000)
