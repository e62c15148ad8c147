"""Good releases through the whole core in a simulated world, null by null: how often is one rolled back?

`python -m bench.false_alarms [RELEASES] [SEED]`. What `bench.judge` asks of the judge alone is asked here of all that
decides: readings, arms, steps, patience and people.
"""

from __future__ import annotations

import multiprocessing
import sys
import time

from bench.figures import Figure
from forge.simulate.nulls import NULLS, FalseAlarms, false_alarms

PART = 50
"""A story has so many releases; then another one begins, with another seed."""


def measure(releases: int = 300, seed: int = 1, processes: int = 2) -> list[Figure]:
    """Play so many releases in each null under the default judge, and a tenth of them under the classic rule."""
    began = time.monotonic()
    parts = max(1, releases // PART)
    size = min(releases, PART)
    work = [(null, size, seed + part, "sequential") for null in NULLS for part in range(parts)]
    work += [(null, max(1, releases // 10), seed, "threshold") for null in NULLS]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        told = pool.starmap(false_alarms, work, chunksize=1)
    ours, rule = told[: -len(NULLS)], told[-len(NULLS) :]
    figures = [
        _figure(_sum([one for one in ours if one.null == null]), classic)
        for null, classic in zip(NULLS, rule, strict=True)
    ]
    everything = _sum(ours)
    took = f"{everything.decisions:,} decisions in {time.monotonic() - began:.0f} s"
    return [*figures, Figure("the same, all nulls together", _words(everything), took)]


def _figure(ours: FalseAlarms, rule: FalseAlarms) -> Figure:
    what = f"good releases that were rolled back, {ours.null}"
    return Figure(what, _words(ours), f"{rule.rolled_back} of {rule.releases} by the 5 % rule")


def _words(told: FalseAlarms) -> str:
    bound = f"at most {told.at_most() * 100:.2g} % with 95 % confidence"
    others = f", {told.others} left to people" if told.others else ""
    return f"{told.rolled_back} of {told.releases} ({bound}){others}"


def _sum(told: list[FalseAlarms]) -> FalseAlarms:
    return FalseAlarms(
        told[0].null, sum(one.releases for one in told), sum(one.rolled_back for one in told),
        sum(one.promoted for one in told), sum(one.others for one in told), sum(one.decisions for one in told),
    )  # fmt: skip


if __name__ == "__main__":
    from bench.figures import table

    print(table(measure(*(int(word) for word in sys.argv[1:]))))
