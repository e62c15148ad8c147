"""Table 2.6: slower versions, and slowness that both share."""

from __future__ import annotations

import itertools
import math
from random import Random
from statistics import median
from typing import NamedTuple

from bench.judge.tables import Job, Table, often, rate, rows
from bench.judge.worlds import WEIGHTS
from forge.core.judge.canary_analysis import METRICS
from forge.core.judge.latency import LatencySettings, fresh_latency, latency_log_e, update_latency
from forge.core.judge.scoring import classify, score
from forge.core.judge.windows import LARGEST
from forge.simulate.draws import poisson

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MEDIAN, SIGMA, RPS, SECONDS = 0.08, 0.7, 500.0, 900


class Slow(NamedTuple):
    """`times` all requests take so many times as long; the part `stuck` takes a second more; `blips`: both slow down
    by half, now and then."""

    times: float = 1.0
    stuck: float = 0.0
    blips: bool = False


CASES = {
    "same": Slow(), "same, shared blips": Slow(blips=True), "x1.1": Slow(1.1), "x1.25": Slow(1.25), "x1.5": Slow(1.5),
    "2 % +1 s": Slow(stuck=0.02), "0.5 % +1 s": Slow(stuck=0.005), "x0.8": Slow(0.8),
}  # fmt: skip
OURS = {
    "whole histogram": LatencySettings("whole"),
    "tails, ratio 1.1": LatencySettings("tails", 1.1),
    "both, ratio 1.25 (default)": LatencySettings("both", 1.25, 5.0, 5.0),
}
OTHERS = ("Flagger: p99 > 500 ms, threshold 1", "Flagger: threshold 5", "Kayenta: Mann-Whitney on p99")


def shares(times: float, stuck: float) -> list[float]:
    """Return which part of the requests falls into each bucket; the last is unbounded."""

    def below(bound: float) -> float:
        return 0.5 * math.erfc(-math.log(bound / (MEDIAN * times)) / SIGMA / math.sqrt(2)) if bound > 0 else 0.0

    upto = [(1 - stuck) * below(bound) + stuck * below(bound - 1) for bound in BOUNDS] + [1.0]
    return [upto[0], *(above - under for under, above in itertools.pairwise(upto))]


def work(job: Job) -> list[int | None]:
    case, rng = job.cell, Random(f"{job}")
    kept: dict[tuple[float, float], list[float]] = {}
    blip, following = (0.0, 0.0), rng.expovariate(1 / 180)
    own: list[list[int]] = []
    other: list[list[int]] = []
    for t in range(SECONDS):
        if t >= following:
            blip = (t, t + rng.uniform(5, 30))
            following = blip[1] + rng.expovariate(1 / 180)
        slow = 1.5 if case.blips and blip[0] <= t < blip[1] else 1.0
        for into, share, times, stuck in (
            (own, WEIGHTS[t // 300], case.times * slow, case.stuck), (other, 1 - WEIGHTS[t // 300], slow, 0.0),
        ):  # fmt: skip
            parts = kept.setdefault((times, stuck), shares(times, stuck))
            into.append([poisson(rng, RPS * share * part) for part in parts])
    ours = [_fires(settings, own, other) for settings in OURS.values()]
    return [*ours, _flagger(own, 1), _flagger(own, 5), _kayenta(own, other)]


def _fires(settings: LatencySettings, own: list[list[int]], other: list[list[int]]) -> int | None:
    state = fresh_latency(BOUNDS, settings)
    bounds = (*BOUNDS, LARGEST)
    for t, (arm, stable) in enumerate(zip(own, other, strict=True), start=1):
        moved = t % 300 == 1
        state = update_latency(
            state, tuple(zip(bounds, arm, strict=True)), tuple(zip(bounds, stable, strict=True)), float(t), settings,
            close_block=moved,
        )  # fmt: skip
        if latency_log_e(state) >= math.log(100):
            return t
    return None


def _p99(seconds: list[list[int]]) -> float:
    """Return the 99th percentile by interpolation in its bucket, as PromQL does."""
    counts = [sum(column) for column in zip(*seconds, strict=True)]
    rank, seen = 0.99 * sum(counts), 0
    for place, count in enumerate(counts[:-1]):
        if seen + count >= rank:
            low = BOUNDS[place - 1] if place else 0.0
            return float(low + (BOUNDS[place] - low) * (rank - seen) / max(1, count))
        seen += count
    return BOUNDS[-1]


def _flagger(own: list[list[int]], threshold: int) -> int | None:
    failed = 0
    for t in range(60, SECONDS + 1, 60):
        failed += _p99(own[t - 60 : t]) > 0.5
        if failed >= threshold:
            return t
    return None


def _kayenta(own: list[list[int]], other: list[list[int]]) -> int | None:
    metric = METRICS[1:]
    minutes = [(_p99(own[t : t + 60]), _p99(other[t : t + 60])) for t in range(0, SECONDS, 60)]
    for until in (5, 10, 15):
        values = [list(column) for column in zip(*minutes[:until], strict=True)]
        if score(metric, [classify(metric[0], *values)], {}).summary == "Fail":
            return until * 60
    return None


def told(answers: dict[Slow, list[list[int | None]]]) -> list[str]:
    lines = []
    for place, name in enumerate([*OURS, *OTHERS]):
        cells = []
        for title, case in CASES.items():
            found = [one[place] for one in answers[case]]
            fired = [at for at in found if at is not None]
            if title.startswith("same"):
                cells.append(rate(len(fired), len(found)))
            else:
                part = "" if len(fired) == len(found) else f" ({100 * len(fired) / len(found):.0f} %)"
                cells.append(f"{median(fired):.0f} s{part}" if fired else "never")
        lines.append([name, *cells])
    counts = {len(answers[case]) for case in CASES.values()}
    words = f"{max(counts)} good and {min(counts)} bad releases of each; 500 requests a second, lognormal with a median of 80 ms. Good ones: rolled back; bad ones: median second of the rollback, and how many where not all."
    return [words, "", *rows(["judge of latency", *CASES], lines)]


TABLE = Table(
    "2.6 Latency",
    lambda scale: {case: often(100 if case[:2] == (1.0, 0.0) else 30, scale) for case in CASES.values()},
    work, told, 0.4,
)  # fmt: skip
