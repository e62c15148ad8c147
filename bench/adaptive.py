"""`python -m bench.adaptive [--quick] [--record]`: fixed steps against weights that follow the evidence.

Table 2.4 of the design: how soon good releases are through, and what bad ones cost, by the second. The judge and the
arithmetic of the weights are the shipped ones; the release around them is a loop on counts. The old version does not
stay behind after the promotion (the release core keeps none), so only the hard limit watches from then on.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench.adaptive_world import Cell, World
from bench.figures import machine
from forge.core.judge.base import Series
from forge.core.judge.calibrate import Calibration, calibrate
from forge.core.judge.evidence import Counts
from forge.core.judge.sequential import SequentialJudge
from forge.core.judge.settings import SequentialSettings
from forge.core.release.adaptive import Evidence, leans_bad, may_take_all, next_weight, start_weight
from forge.core.release.growing import ENOUGH_READINGS
from forge.core.release.state import ReleaseState, Verdict
from forge.model.strategy import Adaptive, Strategy
from forge.model.traffic import Sample
from forge.model.units import WHOLE

DOCS = Path(__file__).parent.parent / "docs"
SECONDS, HISTORY, ACTUATION = 1200, 1800, 5
STEPS, STEP = (500, 2500, 5000), 300
JUDGE = SequentialJudge(SequentialSettings(weights={"errors": 1.0}))
FAULTS = (("x2", 2.0), ("5 %", 0.05), ("20 %", 0.2), ("100 %", 1.0))


class Policy(NamedTuple):
    """`retreat`: while in doubt it goes back to its first weight, instead of only not growing."""

    name: str
    tolerance: float | None = None
    retreat: bool = False


FIXED, ADAPTIVE = Policy("fixed 5/25/50 %, 5 min each"), Policy("adaptive, tolerance 0.1 %", 0.001)
FIXED_BACK = Policy("fixed, first step in doubt", retreat=True)
ADAPTIVE_BACK = Policy("adaptive, first weight in doubt", 0.001, retreat=True)
LOOSE = Policy("adaptive, tolerance 0.5 %", 0.005)


class Case(NamedTuple):
    """One kind of release: the service, how often it is read, the policy, and what is wrong with the version."""

    rate: float
    rps: float
    scrape: int
    policy: Policy
    fault: float | None = None
    scenario: str = "clean"


class Told(NamedTuple):
    """When it was promoted or rolled back (the traffic gone, None: never), and what of it failed until then."""

    promoted: int | None
    rolled_back: int | None
    failed: int


class Release:
    """One release under way: what the core knows of it."""

    def __init__(self, case: Case, found: Calibration) -> None:
        self.case, self.found = case, found
        self.how = Adaptive(tolerance=case.policy.tolerance) if case.policy.tolerance is not None else None
        self.reaction = float(case.scrape + ACTUATION)
        self.first = start_weight(self.how, case.rps, self.reaction) if self.how else STEPS[0]
        self.weight = self.asked = self.first
        self.changed, self.readings, self.held = 0, 0, 0
        self.promoted: int | None = None
        self.gone_at: int | None = None
        self.seen, self.memory = Evidence(), dict[str, object]()
        self.arm = self.stable = Sample(0.0, 0, 0)
        self.state = ReleaseState("bench-1", "arm", Strategy("canary"), previous="stable", traffic_since=0.0)

    def read(self, at: int, own: Counts, beside: Counts) -> None:
        """Take in one reading: judge it, and go back or on."""
        arm, stable = _with(self.arm, at, own), _with(self.stable, at, beside)
        weights = (self.weight, WHOLE - self.weight)
        mine = Series("arm", (self.arm, arm), calibration=self.found, weights=weights)
        other = mine if self.promoted is not None else Series("stable", (self.stable, stable), calibration=self.found)
        verdict, self.memory = JUDGE.judge(self.memory, self.state, mine, other, float(at))
        self.arm, self.stable = arm, stable
        if verdict.kind == "rollback" and self.gone_at is None:
            self.gone_at = at + ACTUATION
        if self.gone_at is not None or self.promoted is not None:
            return
        self.seen = self.seen.and_then((own.requests, own.errors), (beside.requests, beside.errors))
        self.readings += 1
        self._go_on(at, verdict)

    def _go_on(self, at: int, verdict: Verdict) -> None:
        doubt = verdict.kind == "inconclusive" or bool(verdict.data.get("doubt"))
        if doubt:
            self.held += self.case.scrape
            self.weight = self.first if self.case.policy.retreat else self.weight
            return
        self.weight = self.asked
        if self.how is None:
            step = (at - self.held) // STEP
            self._to(at, STEPS[step] if step < len(STEPS) else WHOLE)
            return
        pause = max(self.how.every, ENOUGH_READINGS * self.case.scrape)
        if self.readings < ENOUGH_READINGS or at - self.changed < pause or at >= self.how.decide_within:
            return
        if leans_bad(self.seen, self.found.clump):
            return
        known = (self.asked, self.seen, self.case.rps, self.reaction)
        ready = verdict.kind == "promote" and may_take_all(self.how, *known)
        self._to(at, WHOLE if ready else next_weight(self.how, *known))

    def _to(self, at: int, weight: int) -> None:
        if weight == self.asked:
            return
        self.asked = self.weight = weight
        self.changed, self.readings = at + ACTUATION if self.how else at, 0
        if weight == WHOLE:
            self.promoted = at


def _with(before: Sample, at: int, counted: Counts) -> Sample:
    return Sample(float(at), before.requests + counted.requests, before.errors + counted.errors)


def one_release(job: tuple[Case, int]) -> Told:
    """Play one release to its end."""
    case, seed = job
    world = World(Cell(case.rate, case.rps, case.scenario, case.fault), seed)
    past = [(world.second(t, "one", 0.5), world.second(t, "two", 0.5)) for t in range(-HISTORY, 0)]
    release = Release(case, calibrate(past))
    shown, failed = release.weight, 0
    own = beside = Counts()
    queue: list[tuple[int, int]] = []
    for t in range(SECONDS):
        while queue and queue[0][0] <= t:
            shown = queue.pop(0)[1]
        share = shown / WHOLE
        halves = [world.second(t, name, (1 - share) / 2) for name in ("one", "two")]
        answered = world.second(t, "arm", share)
        failed += answered.errors
        own, beside = own + answered, beside + halves[0] + halves[1]
        if (t + 1) % case.scrape == 0:
            before = release.weight
            release.read(t + 1, own, beside)
            own = beside = Counts()
            if release.weight != before:
                queue.append((t + 1 + ACTUATION, release.weight))
        if release.gone_at == t + 1:
            return Told(release.promoted, t + 1, failed)
        if case.fault is None and release.promoted is not None:
            break
    return Told(release.promoted, None, failed)


TRIED = """
## What to read into it

- 20 bad releases a cell are an impression: a mean moves by a fifth between seeds, and `100 %` excludes no less than 86 %.
  None of 60 good ones rolled back excludes no more than 5 % with 95 % confidence; the bound itself is
  [measured elsewhere](judge-results.md).
- With 50 requests a second and 0.1 % errors only about half of the good releases are through in 15 minutes. The others wait
  for a person. Fixed steps promote all of them, having proved little: they find 5 % of the regressions of two times.
- A regression of two times costs more than with fixed steps in 7 of 12 cells: the weight has grown by then.
- With a tolerance of 0.5 % a version with twice 0.1 % is promoted: that is what was asked for.

## What was tried

- **Back to the first weight while in doubt** (last rows): with fixed steps a little less fails in the regression of two
  times. Adaptive, less fails where errors are frequent, but with 0.1 % fewer are found in time. Going back by one change
  only was between the two. None of it is done: in doubt nothing grows, and that is all.
- **Waiting while more fails than chance explains**, at 1, 2 and 3 standard deviations: 1 made good releases wait too long,
  2 is what is done. **The smaller of two rates of stable for the promotion**: without it one of 20 regressions of two
  times was promoted at 0.1 % and 5,000 requests a second. Both were chosen on the seeds of this table, so it flatters
  them. On 60 seeds that nothing was chosen on (read every second), failed requests of a regression of two times without
  and with both: 141 and 122 (0.1 %, 500 a second), 94 and 75 (0.1 %, 5,000), 94 and 89 (1 %, 500), 85 and 63 (1 %,
  5,000). Good releases took 139 and 155, 115 and 115, 86 and 92, 100 and 100 s in the median.
"""


class Row(NamedTuple):
    case: Case
    releases: int
    promoted: float
    rolled_back: float
    median: float
    p95: float
    failed: float


def measure(cases: dict[Case, int], jobs: int) -> list[Row]:
    """Play so many releases of each kind, and add up."""
    context = multiprocessing.get_context("spawn")
    # The same seeds for every policy: they differ in what they do, not in their luck.
    work = [(case, seed) for case, count in cases.items() for seed in range(count)]
    found: dict[Case, list[Told]] = {case: [] for case in cases}
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for (case, _), told in zip(work, pool.map(one_release, work, chunksize=4), strict=True):
            found[case].append(told)
    return [_row(case, told) for case, told in found.items()]


def _row(case: Case, told: list[Told]) -> Row:
    times = sorted(one.promoted for one in told if one.promoted is not None)
    return Row(
        case, len(told), len(times) / len(told), sum(one.rolled_back is not None for one in told) / len(told),
        times[len(times) // 2] if times else math.nan, times[int(len(times) * 0.95)] if times else math.nan,
        sum(one.failed for one in told) / len(told),
    )  # fmt: skip


def plan(quick: bool, scale: float) -> dict[Case, int]:
    good, bad = (4, 2) if quick else (round(60 * scale), round(20 * scale))
    services = [(0.001, 500.0, 1)] if quick else [
        (rate, rps, scrape) for rate in (0.001, 0.01) for rps in (50.0, 500.0, 5000.0) for scrape in (1, 15)
    ]  # fmt: skip
    cases = {}
    for service in services:
        for policy in (FIXED, ADAPTIVE):
            cases[Case(*service, policy)] = good
            cases |= {Case(*service, policy, fault): bad for _, fault in FAULTS}
    for policy in () if quick else (LOOSE, FIXED_BACK, ADAPTIVE_BACK):
        for rate in (0.001, 0.01):
            cases[Case(rate, 500.0, 1, policy)] = good
            cases |= {Case(rate, 500.0, 1, policy, fault): bad for _, fault in FAULTS}
    return cases


NOISY = ("bursts", "clumps", "arm noise")


def noisy(quick: bool, scale: float) -> dict[Case, int]:
    """Good releases of services whose errors do not come one by one."""
    count = 2 if quick else round(60 * scale)
    return {
        Case(rate, 500.0, 1, policy, None, scenario): count
        for scenario in (NOISY[:1] if quick else NOISY)
        for rate in ((0.001,) if quick else (0.001, 0.01))
        for policy in (FIXED, ADAPTIVE)
    }  # fmt: skip


def table(rows: list[Row], noise: list[Row]) -> str:
    by = {row.case: row for row in rows}
    lines = [
        "| stable fails, requests/s, read every | policy | good: promoted, median / p95 | "
        + " | ".join(name for name, _ in FAULTS)
        + " |",
        "|---|---|---|" + "---:|" * len(FAULTS),
    ]
    for case in (case for case in by if case.fault is None):
        row = by[case]
        bad = [by[case._replace(fault=fault)] for _, fault in FAULTS]
        cells = [f"{one.rolled_back * 100:.0f} %, **{one.failed:,.0f}**" for one in bad]
        where = f"{case.rate * 100:g} %, {case.rps:g}, {case.scrape} s"
        lines.append(f"| {where} | {case.policy.name} | {_good(row)} | " + " | ".join(cells) + " |")
    good, bad_count = rows[0].releases, rows[1].releases
    heads = [f"{policy.name}: promoted, median / p95; rolled back" for policy in (FIXED, ADAPTIVE)]
    note = (
        f"{good} good and {bad_count} bad releases a cell, the same seeds for every policy; of the bad ones: how many "
        "were rolled back within 1200 s, and failed requests of the version in the mean (until the traffic was gone, "
        "or 1200 s)."
    )
    lines += ["", note, "", "## Good releases of noisy services", ""]
    lines += [f"| stable fails | {' | '.join(heads)} |", "|---|---|---|"]
    told = {row.case: row for row in noise}
    for case in (case for case in told if case.policy == FIXED):
        pair = [told[case], told[case._replace(policy=ADAPTIVE)]]
        cells = [f"{_good(one)}; {one.rolled_back * 100:.1f} %" for one in pair]
        lines.append(f"| {case.rate * 100:g} %, {case.scenario} | " + " | ".join(cells) + " |")
    lines += ["", f"{noise[0].releases} releases a cell, 500 requests a second, read every second."]
    return "\n".join(lines)


def _good(row: Row) -> str:
    if math.isnan(row.median):
        return f"{row.promoted * 100:.0f} %"
    return f"{row.promoted * 100:.0f} %, {row.median:.0f} / {row.p95:.0f} s"


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench.adaptive", description=__doc__)
    options.add_argument("--quick", action="store_true", help="a few releases, under a minute")
    options.add_argument("--scale", type=float, default=1.0, help="so many times as many releases")
    options.add_argument("--record", action="store_true", help="write docs/adaptive-results.md")
    options.add_argument("--jobs", type=int, default=2)
    chosen = options.parse_args()
    began = time.perf_counter()
    rows = measure(plan(chosen.quick, chosen.scale), chosen.jobs)
    noise = measure(noisy(chosen.quick, chosen.scale), chosen.jobs)
    text = table(rows, noise)
    print(f"{text}\n\n{time.perf_counter() - began:.0f} s on {machine()}")
    if chosen.record:
        note = (
            "Measured by `make bench-adaptive-record` with the judge and the arithmetic of this tree; the release around "
            "them is a loop on counts. Between a verdict and the traffic being gone lie 5 s. [Adaptive canaries]"
            "(pipeline.md#adaptive-canaries) has the meaning.\n\n"
        )
        (DOCS / "adaptive-results.md").write_text(
            f"# What adaptive promotion costs\n\n{note}{text}\n{TRIED}", encoding="utf-8"
        )
    outage = [row for row in rows if row.case.policy == ADAPTIVE and row.case.fault == 1.0]
    # In the mean a total outage costs no more than the budget, the least weight, and its own Poisson noise.
    return 0 if all(row.failed <= 40 or row.case.scrape > 1 for row in outage) else 1


if __name__ == "__main__":
    sys.exit(main())
