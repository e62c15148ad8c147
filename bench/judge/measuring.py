"""Every table's releases over all processors; every release has a seed of its own, so that any can be played again."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bench.judge import arms, key, latency, limit, margins, robust
from bench.judge.tables import Job, Table

TABLES: dict[str, Table] = {
    "key": key.TABLE, "robust": robust.TABLE, "margins": margins.TABLE, "arms": arms.TABLE, "latency": latency.TABLE,
    "limit": limit.TABLE,
}  # fmt: skip


def work(named: tuple[str, Job]) -> tuple[Any, float]:
    """Play one release; return what is told of it and the processor's seconds."""
    name, job = named
    began = time.process_time()
    return TABLES[name].work(job), time.process_time() - began


def measure(
    names: Sequence[str], scale: float, processes: int
) -> tuple[dict[str, dict[Any, list[Any]]], dict[str, float]]:
    """Return all answers by table and cell, and the seconds of processor that each table took."""
    jobs = [
        (name, Job(cell, seed))
        for name in sorted(names, key=lambda name: -TABLES[name].cost)
        for cell, count in TABLES[name].cells(scale).items()
        for seed in range(count)
    ]
    answers: dict[str, dict[Any, list[Any]]] = {name: {} for name in names}
    spent = dict.fromkeys(names, 0.0)
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        size = max(1, min(20, len(jobs) // (20 * processes)))
        for (name, job), (found, seconds) in zip(jobs, pool.map(work, jobs, chunksize=size), strict=True):
            answers[name].setdefault(job.cell, []).append(found)
            spent[name] += seconds
    return answers, spent
