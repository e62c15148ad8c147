"""`python -m bench.hunt [--steps N] [--from SEED]`: hunt for decisions that break an invariant.

Prints a line now and then, and the seed of whatever it finds: a test of that seed belongs into
tests/scenarios/test_hunted.py.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import traceback
from collections import Counter

from forge.simulate.hunting import hunt


def attempt(seed: int) -> tuple[int, int, str]:
    """Return (seed, steps, what was found). Odd seeds are played under a policy with gates."""
    try:
        return seed, hunt(seed, with_gates=bool(seed % 2)), ""
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return seed, 0, f"{type(error).__name__}: {error} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench.hunt", description=__doc__)
    options.add_argument("--steps", type=int, default=1_000_000, help="stop after so many decisions")
    options.add_argument("--from", dest="first", type=int, default=int(time.time()), help="the first seed")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--most", type=int, default=20, help="stop after so many findings")
    chosen = options.parse_args()
    steps, stories, began, found = 0, 0, time.monotonic(), Counter[str]()
    seeds = range(chosen.first, chosen.first + chosen.steps)  # a story is at least one step
    with multiprocessing.Pool(chosen.workers) as pool:
        for seed, made, problem in pool.imap_unordered(attempt, seeds, chunksize=4):
            steps, stories = steps + made, stories + 1
            if problem:
                found[problem] += 1
                print(f"seed {seed}: {problem}", flush=True)
            if stories % 200 == 0:
                print(f"{steps:,} steps, {stories} stories, {time.monotonic() - began:.0f} s", flush=True)
            if steps >= chosen.steps or found.total() >= chosen.most:
                break
        pool.terminate()
    print(f"{steps:,} steps in {stories} stories from seed {chosen.first}: {found.total()} findings, "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
