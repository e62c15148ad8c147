"""Table 2.1: every judge on the same releases, good ones in five nulls and bad ones."""

from __future__ import annotations

from bench.judge.ours import DEFAULT, JUDGES, fires
from bench.judge.rules import RULES
from bench.judge.tables import Job, Table, Told, bounded, mean_failed, often, rate, rows, summary
from bench.judge.worlds import NULLS, Cell, Release

RATES, LOADS = (0.001, 0.01), (50.0, 500.0, 5000.0)
KEY = Cell(0.001, 500.0)
FAULTS = {
    "x2": KEY._replace(times=2.0),
    "5 %": KEY._replace(fault=0.05),
    "20 %": KEY._replace(fault=0.2),
    "100 %": KEY._replace(fault=1.0),
}
NAMES = (*JUDGES, *RULES)
Answers = dict[Cell, list[dict[str, Told]]]


def cells(scale: float) -> dict[Cell, int]:
    everywhere = {
        Cell(rate, rps, null): often(1000 if (rate, rps) == KEY[:2] else 60, scale)
        for rate in RATES
        for rps in LOADS
        for null in NULLS
    }
    return {cell: often(100, scale) for cell in FAULTS.values()} | everywhere


def work(job: Job) -> dict[str, Told]:
    release = Release(*job)
    found = {name: rule(release) for name, rule in RULES.items()}
    # The strict variant is judged less often: it takes as long as all else together.
    ours = JUDGES if job.seed < (200 if job.cell[:2] == KEY[:2] else 20) else {DEFAULT: JUDGES[DEFAULT]}
    found |= {name: fires(release, judge) for name, judge in ours.items()}
    return {
        name: Told(at, release.arm.errors[release.seconds if at is None else at]) for name, at in found.items()
    }  # fmt: skip


def false_rollbacks(answers: Answers, name: str, null: str, *, key: bool = False) -> tuple[int, int]:
    """Return how many good releases of a null a judge rolled back, of how many; `key`: only of the key cell."""
    told = [
        one[name]
        for cell, all_told in answers.items()
        if cell.good and cell.scenario == null and (not key or cell[:2] == KEY[:2])
        for one in all_told
        if name in one
    ]
    return sum(one.at is not None for one in told), len(told)


def worst_cell(answers: Answers, name: str) -> float:
    parts = [[one[name] for one in told if name in one] for cell, told in answers.items() if cell.good]
    return max(sum(one.at is not None for one in part) / len(part) for part in parts)


def told(answers: Answers) -> list[str]:
    bad = {name: answers[cell] for name, cell in FAULTS.items()}
    count = len(next(iter(bad.values())))
    lines = [
        (
            f"Bad releases, stable failing 0.1 % of 500 requests a second, {count} of each: found / median second / "
            "**mean failed requests** until the rollback, or in the 20 minutes that the release takes."
        ),
        "",
        *rows(
            ["judge", *bad],
            [[name, *(summary([one[name] for one in part if name in one]) for part in bad.values())] for name in NAMES],
        ),
    ]
    counts = {false_rollbacks(answers, DEFAULT, null, key=True)[1] for null in NULLS}
    lines += [
        f"Good releases that were rolled back, same service, {max(counts):,} in each null:",
        "",
        *rows(
            ["judge", *NULLS, "worst of 30 cells"],
            [
                [
                    name,
                    *(rate(*false_rollbacks(answers, name, null, key=True)) for null in NULLS),
                    rate(round(worst_cell(answers, name) * 1000), 1000),
                ]
                for name in NAMES
            ],
        ),
        ("Cells are 0.1 % and 1 % of errors at 50, 500 and 5,000 requests a second; all but the key cell have few releases, "
        "of which one alone is more than 1 %. Forge's, counted, with what the rate is at most with 95 % confidence (Clopper-Pearson, one-sided):"),
        "",
        *rows(
            ["judge", *NULLS],
            [
                [
                    f"{name}, {where}",
                    *(bounded(*false_rollbacks(answers, name, null, key=key)) for null in NULLS),
                ]
                for name in JUDGES
                for where, key in (("key cell", True), ("all cells", False))
            ],
        ),
    ]  # fmt: skip
    return lines


def drawn(answers: Answers) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Return, for the picture, mean failed requests by fault and false rollback rates by null, for each judge."""
    failed = {
        fault: {name: mean_failed([one[name] for one in answers[cell] if name in one]) for name in NAMES}
        for fault, cell in FAULTS.items()
    }
    alarms = {}
    for null in NULLS:
        counts = {name: false_rollbacks(answers, name, null, key=True) for name in NAMES}
        alarms[null] = {name: hits / of for name, (hits, of) in counts.items()}
    return failed, alarms


TABLE = Table("2.1 Failed requests and false rollbacks of every judge", cells, work, told, 0.15)
