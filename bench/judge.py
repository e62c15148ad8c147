"""`python -m bench.judge [--quick] [--record]`: what judges cost and how often they are wrong, with the shipped code.

Releases are simulated by the second: weights of 5, 25 and 50 % for 300 s each, as in docs/judge.md. Every judge sees
the same readings. With --record the table and the plot go into docs/judge-results.md and .svg.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

from bench.figures import machine
from forge.core.judge.analysis import AnalysisSettings, analyse_release
from forge.core.judge.calibrate import calibrate
from forge.core.judge.canary_analysis import MannWhitneyJudge
from forge.core.judge.classic import ThresholdJudge
from forge.core.judge.evidence import Counts
from forge.core.judge.failure_limit import FailureLimitJudge, argo, flagger
from forge.core.judge.recorded import judge_recorded
from forge.core.judge.settings import SequentialSettings
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Sample
from forge.simulate.draws import binomial, poisson

DOCS = Path(__file__).parent.parent / "docs"
SECONDS, HISTORY, WEIGHTS = 900, 1800, (0.05, 0.25, 0.5)
NULLS = ("clean", "diurnal", "bursts", "clumps", "arm noise")
FAULTS = (("x2", 2.0), ("5 %", 0.05), ("20 %", 0.2), ("100 %", 1.0))
ONE = AnalysisSettings(SequentialSettings(weights={"errors": 1.0}))
STRICT = AnalysisSettings(SequentialSettings(ratio=1.0, weights={"errors": 1.0}))
JUDGES = {
    "Forge (sequential)": ONE,
    "Forge, r0 = 1": STRICT,
    "seed: 5 % over 5 min, young window": (ThresholdJudge(), 0.05, 300.0),
    "Argo: 1 % over 1 min, failureLimit 3": (FailureLimitJudge(argo(60.0, None, 3)), 0.01, 60.0),
    "Flagger: 1 % over 1 min, threshold 5": (FailureLimitJudge(flagger(60.0, 5)), 0.01, 60.0),
    "Kayenta: Mann-Whitney at 5/10/15 min": (MannWhitneyJudge(), None, 300.0),
}


class Cell(NamedTuple):
    """One kind of release: stable's error rate, requests a second, what is odd about it, and the arm's fault."""

    rate: float
    rps: float
    scenario: str = "clean"
    fault: float | None = None


class Told(NamedTuple):
    rolled_back: bool
    seconds: float
    failed: int


class World:
    """Requests and errors of both versions, second by second."""

    def __init__(self, cell: Cell, seed: int) -> None:
        self.cell, self.rng = cell, Random(seed)
        self.noise = {name: self.rng.gauss(0, 0.5) for name in ("one", "two", "arm")}
        self.burst = (0.0, 0.0, 0.0)
        self.next_burst = self.rng.expovariate(1 / 180)

    def second(self, t: int, name: str, share: float) -> Counts:
        cell, rng = self.cell, self.rng
        rate, rps = cell.rate, cell.rps
        if cell.scenario == "diurnal":
            rate *= 1 + 0.5 * math.sin(2 * math.pi * t / 1200)
            rps *= 1 + 0.3 * math.sin(2 * math.pi * t / 900)
        if name == "arm" and cell.fault is not None and t >= 0:
            rate = rate * cell.fault if cell.fault == 2.0 else cell.fault
        requests = poisson(rng, rps * share)
        if cell.scenario == "bursts":
            rate = max(rate, self._shared(t))
        if cell.scenario == "arm noise":
            keep = math.exp(-1 / 30)
            self.noise[name] = keep * self.noise[name] + rng.gauss(0, 0.5 * math.sqrt(1 - keep * keep))
            rate *= math.exp(self.noise[name] - 0.125)
        if cell.scenario == "clumps":
            errors = sum(
                1 + int(math.log(1 - rng.random()) / math.log(0.9)) for _ in range(poisson(rng, requests * rate / 10))
            )
            return Counts(requests, min(requests, errors))
        return Counts(requests, binomial(rng, requests, min(1.0, rate)))

    def _shared(self, t: int) -> float:
        if t >= self.next_burst:
            self.burst = (t, t + self.rng.uniform(5, 30), self.rng.uniform(0.02, 0.2))
            self.next_burst = self.burst[1] + self.rng.expovariate(1 / 180)
        return self.burst[2] if self.burst[0] <= t < self.burst[1] else 0.0


def readings(cell: Cell, seed: int) -> tuple[list[tuple[Counts, Counts]], list[Sample], list[Sample]]:
    """History of stable's halves, and the cumulative readings of stable and the arm."""
    world = World(cell, seed)
    past = [(world.second(t, "one", 0.5), world.second(t, "two", 0.5)) for t in range(-HISTORY, 0)]
    stable, arm = [Sample(0.0, 0, 0)], [Sample(0.0, 0, 0)]
    for t in range(SECONDS):
        weight = WEIGHTS[t // 300]
        halves = [world.second(t, name, (1 - weight) / 2) for name in ("one", "two")]
        other, own = halves[0] + halves[1], world.second(t, "arm", weight)
        stable.append(Sample(t + 1.0, stable[-1].requests + other.requests, stable[-1].errors + other.errors))
        arm.append(Sample(t + 1.0, arm[-1].requests + own.requests, arm[-1].errors + own.errors))
    return past, stable, arm


def one_release(job: tuple[Cell, int]) -> dict[str, Told]:
    """Let every judge see one release."""
    cell, seed = job
    past, stable, arm = readings(cell, seed)
    found = calibrate(past)
    told = {}
    for name, judge in JUDGES.items():
        if isinstance(judge, AnalysisSettings):
            said = analyse_release(stable, {"arm": arm}, found, judge)[0]
            fired, at = said.verdict == "rollback", said.t
        else:
            rule, above, over = judge
            strategy = Strategy(thresholds=(Threshold("error_rate", above, over),) if above else ())
            verdict = judge_recorded(rule, arm, stable, strategy=strategy)
            fired, at = verdict.kind == "rollback", verdict.at
        end = at if fired else float(SECONDS)
        told[name] = Told(fired, at, arm[round(end)].errors)
    return told


class Row(NamedTuple):
    judge: str
    cell: Cell
    releases: int
    fired: float
    seconds: float
    failed: float


def measure(cells: dict[Cell, int], jobs: int) -> list[Row]:
    """Return, for each kind of release and each judge, how often it rolled back, when, and what failed until then."""
    rows = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        work = [
            (cell, 1000 * number + seed) for number, (cell, count) in enumerate(cells.items()) for seed in range(count)
        ]
        found: dict[Cell, list[dict[str, Told]]] = {cell: [] for cell in cells}
        for (cell, _), told in zip(work, pool.map(one_release, work, chunksize=2), strict=True):
            found[cell].append(told)
    for cell, results in found.items():
        for judge in JUDGES:
            told = [result[judge] for result in results]
            fired = sorted(one.seconds for one in told if one.rolled_back)
            rows.append(
                Row(
                    judge, cell, len(told), len(fired) / len(told), fired[len(fired) // 2] if fired else math.nan,
                    sum(one.failed for one in told) / len(told),
                )
            )  # fmt: skip
    return rows


def plan(quick: bool, scale: float) -> dict[Cell, int]:
    nulls, bad = (6, 3) if quick else (round(150 * scale), round(20 * scale))
    rates = ((0.01, 500.0),) if quick else ((0.001, 500.0), (0.01, 500.0))
    cells = {Cell(rate, rps, scenario): nulls for rate, rps in rates for scenario in NULLS}
    return cells | {Cell(0.001, 500.0, "clean", fault): bad for _, fault in FAULTS}


def table(rows: list[Row]) -> str:
    lines = ["## Good releases that were rolled back", ""]
    kinds = list(dict.fromkeys(row.cell for row in rows if row.cell.fault is None))
    lines.append("| judge | " + " | ".join(f"{cell.scenario}, {cell.rate * 100:g} %" for cell in kinds) + " |")
    lines.append("|---|" + "---:|" * len(kinds))
    by = {(row.judge, row.cell): row for row in rows}
    for judge in JUDGES:
        cells = [f"{by[judge, cell].fired * 100:.1f} %" for cell in kinds]
        lines.append(f"| {judge} | " + " | ".join(cells) + " |")
    lines += ["", f"{by[next(iter(JUDGES)), kinds[0]].releases} releases a cell, stable's error rate in the title.", ""]
    bad = [cell for cell in dict.fromkeys(row.cell for row in rows) if cell.fault is not None]
    names = {fault: name for name, fault in FAULTS}
    lines += ["## Bad releases: rolled back, median seconds, failed requests in the mean", ""]
    lines.append("| judge | " + " | ".join(names[cell.fault or 0] for cell in bad) + " |")
    lines.append("|---|" + "---:|" * len(bad))
    for judge in JUDGES:
        cells = []
        for cell in bad:
            row = by[judge, cell]
            when = "never" if math.isnan(row.seconds) else f"{row.seconds:.0f} s"
            cells.append(f"{row.fired * 100:.0f} %, {when}, **{row.failed:,.0f}**")
        lines.append(f"| {judge} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"{by[next(iter(JUDGES)), bad[0]].releases} releases a cell; stable fails 0.1 % of 500 requests a second.",
    ]
    return "\n".join(lines)


def drawing(rows: list[Row]) -> str:
    """Failed requests before the rollback, logarithmic, as SVG."""
    bad = [cell for cell in dict.fromkeys(row.cell for row in rows) if cell.fault is not None]
    names = {fault: name for name, fault in FAULTS}
    height = 70 + len(bad) * (len(JUDGES) * 16 + 26)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="860" height="{height}" fill="white"/>',
        '<text x="10" y="24" font-size="15">Failed requests of a bad release until its rollback (logarithmic)</text>',
    ]
    y = 50
    for cell in bad:
        out.append(f'<text x="10" y="{y}" font-weight="bold">{names[cell.fault or 0]}</text>')
        for row in (row for row in rows if row.cell == cell):
            y += 16
            width = 420 * math.log10(max(1.0, row.failed) + 1) / 5
            colour = "#0969da" if row.judge.startswith("Forge") else "#8c959f"
            label = f"{row.failed:,.0f}" + ("" if row.fired > 0.5 else f" ({row.fired * 100:.0f} % found)")
            out.append(f'<text x="300" y="{y}" text-anchor="end">{row.judge}</text>')
            out.append(f'<rect x="310" y="{y - 10}" width="{width:.1f}" height="12" fill="{colour}"/>')
            out.append(f'<text x="{316 + width:.1f}" y="{y}">{label}</text>')
        y += 26
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench.judge", description=__doc__)
    options.add_argument("--quick", action="store_true", help="a few releases, under a minute")
    options.add_argument("--scale", type=float, default=1.0, help="so many times as many releases")
    options.add_argument("--record", action="store_true", help="write docs/judge-results.md and .svg")
    options.add_argument("--jobs", type=int, default=2)
    chosen = options.parse_args()
    began = time.perf_counter()
    rows = measure(plan(chosen.quick, chosen.scale), chosen.jobs)
    text = table(rows)
    print(f"{text}\n\n{time.perf_counter() - began:.0f} s on {machine()}")
    if chosen.record:
        note = "Measured by `make bench-judge-record` with the code of this tree; [the judge](judge.md) has the meaning.\n\n"
        note += "![failed requests until the rollback](judge-results.svg)\n\n"
        (DOCS / "judge-results.md").write_text(f"# What judges cost\n\n{note}{text}\n", encoding="utf-8")
        (DOCS / "judge-results.svg").write_text(drawing(rows), encoding="utf-8")
    worst = max(row.fired for row in rows if row.judge == next(iter(JUDGES)) and row.cell.fault is None)
    releases = min(row.releases for row in rows if row.cell.fault is None)
    # By chance alone a judge at its bound is above it in a few runs; this is four standard errors.
    return 0 if worst <= 0.01 + 4 * math.sqrt(0.01 * 0.99 / releases) else 1


if __name__ == "__main__":
    sys.exit(main())
