"""`python -m bench [--record] [PART ...]`: measure, print a table, and with --record write bench/RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from bench.figures import Figure, machine, table

PARTS = {
    "start": "bench.start",
    "jobs": "bench.many_jobs",
    "queue": "bench.many_runs",
    "dashboard": "bench.dashboard",
    "target": "bench.local_target",
    "scale": "bench.scale",
    "false-alarms": "bench.false_alarms",
    "judge-cost": "bench.judge_cost",
    "signals": "bench.signals",
    "analyse": "bench.analyse",
    "month": "bench.month",
    "kubernetes-route": "bench.kubernetes_route",
    "kubernetes-releases": "bench.kubernetes_releases",
}
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    options.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    options.add_argument("--record", action="store_true", help="write bench/RESULTS.md")
    chosen = options.parse_args()
    unknown = [part for part in chosen.parts if part not in PARTS]
    if unknown:
        options.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    figures: list[Figure] = []
    for part in chosen.parts or PARTS:
        print(f"measuring: {part}", file=sys.stderr, flush=True)
        figures += importlib.import_module(PARTS[part]).measure()
    text = f"Measured on {machine()}. A shared machine: trust the ratios.\n\n{table(figures)}\n"
    print(text)
    if chosen.record:
        RESULTS.write_text(f"# What Forge costs\n\n{text}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
