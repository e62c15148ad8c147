"""`python -m bench.judge [--quick] [--only TABLE] [--scale N] [--record]`: the tables of docs/judge-results.md.

With --record they are written there, with the plot. Exit 1 when a null is above its bound by more than chance.
"""

from __future__ import annotations

import argparse
import sys
import time
from math import sqrt
from pathlib import Path
from typing import Any

from bench.figures import machine
from bench.judge import key
from bench.judge.measuring import TABLES, measure
from bench.judge.ours import DEFAULT, JUDGES
from bench.judge.page import page, picture
from bench.judge.worlds import NULLS

DOCS = Path(__file__).parents[2] / "docs"
QUICK = 0.02


def beyond(answers: dict[Any, list[Any]]) -> list[str]:
    """Return the nulls in which Forge's judge is above 1 % by more than four standard errors."""
    counted = {null: key.false_rollbacks(answers, DEFAULT, null) for null in NULLS}
    return [null for null, (hits, of) in counted.items() if hits / of > 0.01 + 4 * sqrt(0.01 * 0.99 / of)]


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench.judge", description=__doc__)
    options.add_argument("--quick", action="store_true", help="a few releases, under a minute")
    options.add_argument("--only", action="append", choices=TABLES, help="only this table; may be repeated")
    options.add_argument("--scale", type=float, default=1.0, help="so many times as many releases")
    options.add_argument("--record", action="store_true", help="write docs/judge-results.md and .svg")
    options.add_argument("--jobs", type=int, default=2)
    chosen = options.parse_args()
    names = chosen.only or list(TABLES)
    if chosen.record and set(names) != set(TABLES):
        options.error("--record is of all tables")
    began = time.perf_counter()
    answers, spent = measure(names, QUICK if chosen.quick else chosen.scale, chosen.jobs)
    seconds = time.perf_counter() - began
    parts = {TABLES[name].title: TABLES[name].told(answers[name]) for name in names}
    for title, told in parts.items():
        print("\n".join([f"## {title}", "", *told]))
    used = ", ".join(f"{name} {of:.0f} s" for name, of in spent.items())
    print(f"{seconds:.0f} s on {machine()}; of processor: {used}")
    if chosen.record:
        (DOCS / "judge-results.md").write_text(page(parts, seconds, machine()), encoding="utf-8")
        (DOCS / "judge-results.svg").write_text(picture(*key.drawn(answers["key"]), tuple(JUDGES)), encoding="utf-8")
    failed = beyond(answers["key"]) if "key" in names else []
    for null in failed:
        print(f"more good releases than promised are rolled back: {null}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
