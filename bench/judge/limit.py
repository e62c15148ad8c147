"""Table 2.7: the seed's limit of 5 % by the letter, and as evidence."""

from __future__ import annotations

import math
from typing import NamedTuple

from bench.judge.rules import window
from bench.judge.tables import Job, Table, Told, often, rows, summary
from bench.judge.worlds import COMPARED, Cell, Release
from forge.core.judge.evidence import Counts
from forge.core.judge.slo import SloSettings, fresh_slo, slo_log_e, update_slo

LOADS = ((0.01, 50.0), (0.001, 500.0))
FAULTS = (None, 0.04, 0.08, 0.2, 1.0)
SETTINGS = SloSettings()


class Both(NamedTuple):
    guard: Told
    rule: Told


def work(job: Job) -> Both:
    release = Release(*job, history=0, seconds=COMPARED)
    found = (_guard(release), window(release.arm, 0.05, 300))
    return Both(*(Told(at, release.arm.errors[COMPARED if at is None else at]) for at in found))


def _guard(release: Release) -> int | None:
    state, arm = fresh_slo(SETTINGS), release.arm
    for t in range(1, COMPARED + 1):
        counts = Counts(arm.requests[t] - arm.requests[t - 1], arm.errors[t] - arm.errors[t - 1])
        state = update_slo(state, SETTINGS, counts, float(t))
        if slo_log_e(state) >= math.log(1 / SETTINGS.alpha):
            return t
    return None


def told(answers: dict[Cell, list[Both]]) -> list[str]:
    lines = []
    for rate, rps in LOADS:
        found = [answers[Cell(rate, rps, fault=fault)] for fault in FAULTS]
        name = f"{rate * 100:g} %, {rps:g}/s"
        lines.append([f"{name}: evidence (Forge)", *(summary([one.guard for one in part]) for part in found)])
        lines.append([f"{name}: > 5 % of a young window", *(summary([one.rule for one in part]) for part in found)])
    words = f"{len(answers[Cell(*LOADS[0])])} releases of each: found / median second / **mean failed requests** of 15 minutes. 4 % is within the limit."
    return [words, "", *rows(["", "as good as stable", "4 %", "8 %", "20 %", "100 %"], lines)]


TABLE = Table(
    "2.7 A hard limit of 5 %",
    lambda scale: {Cell(*load, fault=fault): often(200, scale) for load in LOADS for fault in FAULTS},
    work, told, 0.05,
)  # fmt: skip
