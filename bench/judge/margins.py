"""Table 2.3: what the tolerated ratio costs and what it spares."""

from __future__ import annotations

from bench.judge.ours import fires, settings
from bench.judge.tables import Job, Table, Told, often, rows, summary
from bench.judge.worlds import Cell, Release

MARGINS = {
    "r0 = 1": settings(1.0, limit=None),
    "r0 = 1.1, delta 0.02 % (default)": settings(limit=None),
    "r0 = 1.25, delta 0.05 %": settings(1.25, 0.0005, limit=None),
    "r0 = 1.5, delta 0.1 %": settings(1.5, 0.001, limit=None),
}
TIMES = (1.0, 1.1, 1.25, 1.5, 2.0)
CELLS = {**{f"x{times:g}": Cell(0.01, 5000.0, times=times) for times in TIMES}, "x2 of 0.1 %, 500/s": Cell(0.001, 500.0, times=2.0)}  # fmt: skip


def work(job: Job) -> list[Told]:
    release = Release(*job, seconds=900)
    found = [fires(release, judge) for judge in MARGINS.values()]
    return [Told(at, release.arm.errors[900 if at is None else at]) for at in found]


def told(answers: dict[Cell, list[list[Told]]]) -> list[str]:
    count = len(answers[CELLS["x2"]])
    lines = [
        [name, *(summary([one[place] for one in answers[cell]]) for cell in CELLS.values())]
        for place, name in enumerate(MARGINS)
    ]
    words = f"{count} releases of each; stable fails 1 % of 5,000 requests a second: found / median second / **mean failed requests** of 15 minutes."
    return [words, "", *rows(["margin", *CELLS], lines)]


TABLE = Table(
    "2.3 Margins", lambda scale: dict.fromkeys(CELLS.values(), often(40, scale)), work, told, 0.35
)  # fmt: skip
