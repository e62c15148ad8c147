"""Table 2.5: four canaries at once, and what keeps the bound for all of them together."""

from __future__ import annotations

import math
from random import Random
from statistics import median
from typing import NamedTuple

from bench.judge.tables import Job, Table, bounded, often, rows
from forge.core.judge.calibrate import Calibration
from forge.core.judge.combine import closed_log_e
from forge.core.judge.evidence import Counts, fresh_counts, log_e, update_counts
from forge.core.judge.settings import SequentialSettings
from forge.simulate.draws import binomial, poisson

ARMS, SHARE, RPS, SECONDS = 4, 0.05, 500.0, 900
SETTINGS = SequentialSettings()
WAYS = ("each for itself", "Bonferroni: M/alpha", "closed averages (Forge)")


class Canaries(NamedTuple):
    """Error rates of the bad arms; the others fail as often as stable."""

    bad: tuple[float, ...] = ()


CASES = {Canaries(): 600, Canaries((0.05,)): 60, Canaries((0.03,) * 3): 60}


class Outcome(NamedTuple):
    """When each arm was rolled back (None: never), and the failed requests of each bad arm until then."""

    at: tuple[int | None, ...]
    failed: tuple[int, ...]


def work(job: Job) -> list[Outcome]:
    case: Canaries = job.cell
    rng = Random(f"{job}")
    counts = SETTINGS.counts(Calibration(1.0, 1.0))
    rates = [*case.bad, *[0.01] * (ARMS - len(case.bad))]
    states = [fresh_counts(counts) for _ in rates]
    needed = math.log(1 / SETTINGS.alpha)
    gone: list[dict[int, int]] = [{}, {}, {}]
    # An arm that is out keeps the evidence it went with, in the closed test too.
    frozen: dict[int, float] = {}
    failed = [[0] * ARMS for _ in WAYS]
    for t in range(1, SECONDS + 1):
        requests = poisson(rng, RPS * (1 - ARMS * SHARE))
        stable = Counts(requests, binomial(rng, requests, 0.01))
        for arm, rate in enumerate(rates):
            requests = poisson(rng, RPS * SHARE)
            own = Counts(requests, binomial(rng, requests, rate))
            states[arm] = update_counts(states[arm], counts, own, stable, float(t))
            for way in range(3):
                failed[way][arm] += own.errors if arm not in gone[way] else 0
        now = {arm: log_e(state) for arm, state in enumerate(states)}
        closed = closed_log_e({f"{arm}": frozen.get(arm, told) for arm, told in now.items()})
        for arm, told in now.items():
            for way, value in enumerate((told, told - math.log(ARMS), closed[f"{arm}"])):
                if value >= needed and arm not in gone[way]:
                    gone[way][arm] = t
                    if way == 2:
                        frozen[arm] = told
        if case.bad and all(len(way.keys() & set(range(len(case.bad)))) == len(case.bad) for way in gone):
            break
    bad = len(case.bad)
    return [
        Outcome(tuple(gone[way].get(arm) for arm in range(ARMS)), tuple(failed[way][:bad])) for way in range(len(WAYS))
    ]  # fmt: skip


def told(answers: dict[Canaries, list[list[Outcome]]]) -> list[str]:
    lines = []
    for way, name in enumerate(WAYS):
        good = [one[way] for one in answers[Canaries()]]
        wrong = sum(any(at is not None for at in one.at) for one in good)
        cells = [bounded(wrong, len(good))]
        for case in list(CASES)[1:]:
            found = [one[way] for one in answers[case]]
            last = [max(SECONDS if at is None else at for at in one.at[: len(case.bad)]) for one in found]
            failed = sum(sum(one.failed) for one in found) / len(found) / len(case.bad)
            cells.append(f"{median(last):.0f} s / **{failed:.1f}**")
        lines.append([name, *cells])
    return [
        (
            "Four canaries with 5 % each of 500 requests a second, stable fails 1 %. Second of the last rollback / "
            "**failed requests of a bad arm**."
        ),
        "",
        *rows(["", "any of four good ones rolled back", "one fails 5 %", "three fail 3 %"], lines),
    ]


TABLE = Table(
    "2.5 Several canaries at once", lambda scale: {case: often(count, scale) for case, count in CASES.items()}, work,
    told, 0.25,
)  # fmt: skip
