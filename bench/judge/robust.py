"""Table 2.2: what clumps and correlated errors do to the evidence, and what the calibration is worth."""

from __future__ import annotations

from bench.judge.ours import fires, settings
from bench.judge.tables import Job, Table, often, rate, rows
from bench.judge.worlds import Cell, Release
from forge.core.judge.calibrate import FALLBACK, Calibration, calibrate

CELLS = tuple(Cell(0.01, rps, null) for null in ("clumps", "arm noise") for rps in (500.0, 5000.0))
INDEPENDENT = Calibration(1.0, 1.0)
VARIANTS = (
    "as if errors were independent (G = 1, block 1 s)",
    "G = 20, block 1 s",
    "no history: G = 20, block 15 s",
    "5 min of history",
    "30 min of history (default)",
    "30 min of history, strict (r0 = 1)",
)


def work(job: Job) -> list[bool]:
    release = Release(*job, seconds=900)
    normal, strict = settings(limit=None), settings(1.0, limit=None)
    short = calibrate(release.past[-300:])
    tried = (
        (INDEPENDENT, normal), (Calibration(20.0, 1.0), normal), (FALLBACK, normal), (short, normal), (None, normal),
        (None, strict),
    )  # fmt: skip
    return [fires(release, judge, found) is not None for found, judge in tried]


def told(answers: dict[Cell, list[list[bool]]]) -> list[str]:
    count = len(answers[CELLS[0]])
    heads = ["good releases rolled back", *(f"{cell.scenario}, {cell.rps:,.0f}/s" for cell in CELLS)]
    lines = [
        [name, *(rate(sum(one[place] for one in answers[cell]), count) for cell in CELLS)]
        for place, name in enumerate(VARIANTS)
    ]
    return [
        f"{count} releases of each; stable fails 1 %. Errors alone, without the hard limit.",
        "",
        *rows(heads, lines),
    ]


TABLE = Table(
    "2.2 What breaks the evidence and what holds it", lambda scale: dict.fromkeys(CELLS, often(60, scale)), work, told,
    0.3,
)  # fmt: skip
