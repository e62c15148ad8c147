"""`python -m bench.analyse [--releases N] [--samples N] [--latency]`: how long `forge analyse` takes over a file.

The file is the same every time: every release has its own seed. Judging is linear in the number of releases; with
fewer than 2,000 the figure for 2,000 is extrapolated, and says so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from bench.figures import Figure, table
from forge.simulate.draws import binomial, poisson, spread

RELEASES, SAMPLES, HISTORY = 2000, 1200, 300
LIMIT = 600.0
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
BUCKETS = (0.25, 0.37, 0.32, 0.05, 0.009, 0.0009, 0.0001)


def rows(number: int, samples: int = SAMPLES, *, latency: bool = False) -> Iterator[str]:
    """Yield the rows of one release: stable in two groups with history, and a canary; every tenth one is bad."""
    rng = Random(number)
    wrong = 0.02 if number % 10 == 3 else 0.001
    arms = {"stable/1": (150, 0.001), "stable/2": (150, 0.001), "canary": (60, wrong)}
    counts = {arm: [0] * (2 + (len(BUCKETS) if latency else 0)) for arm in arms}
    for t in range(-HISTORY, samples):
        for arm, (rps, chance) in arms.items():
            if arm == "canary" and t < 0:
                continue
            total = counts[arm]
            requests = poisson(rng, rps)
            total[0] += requests
            total[1] += binomial(rng, requests, chance)
            if latency:
                seen = 0
                for place, more in enumerate(spread(rng, requests, BUCKETS), start=2):
                    seen += more
                    total[place] += seen
            yield f"r{number},{t},{arm},{','.join(map(str, total))}\n"


def write(path: Path, releases: int, samples: int = SAMPLES, *, latency: bool = False) -> None:
    """Write the file; without latency it has the five columns that are needed."""
    columns = [f"le_{bound:g}" for bound in (*BOUNDS, float("inf"))] if latency else []
    with path.open("w") as file:
        file.write(",".join(["release", "t", "arm", "requests", "errors", *columns]) + "\n")
        for number in range(releases):
            file.writelines(rows(number, samples, latency=latency))


def measure() -> list[Figure]:
    """Return the figures of small files, with and without latency."""
    return [measure_file(60), measure_file(30, latency=True)]


def measure_file(releases: int, samples: int = SAMPLES, *, latency: bool = False, jobs: int = 2) -> Figure:
    """Return the time of the command itself, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "readings.csv"
        write(path, releases, samples, latency=latency)
        command = [sys.executable, "-m", "forge", "analyse", str(path), "-o", "json", "--jobs", str(jobs)]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
        seconds, used = time.perf_counter() - began, os.times()
        if len(done.stdout.splitlines()) != releases:
            raise AssertionError("not every release was judged")
        size = path.stat().st_size / 1e6
    what = f"forge analyse, {releases:,} releases of {samples:,} samples{', with latency' if latency else ''}"
    told = f"{seconds:.0f} s ({size:,.0f} MB, {used.children_user:.0f} s of processor)"
    if releases < RELEASES:
        told += f"; {seconds * RELEASES / releases:.0f} s for {RELEASES:,}, extrapolated"
    return Figure(what, told, f"{LIMIT:.0f} s for {RELEASES:,}", f"{seconds * RELEASES / releases / LIMIT:.2f}")


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench.analyse", description=__doc__)
    options.add_argument("--releases", type=int, default=100)
    options.add_argument("--samples", type=int, default=SAMPLES)
    options.add_argument("--latency", action="store_true", help="with seven buckets of latency")
    options.add_argument("--jobs", type=int, default=2)
    chosen = options.parse_args()
    print(table([measure_file(chosen.releases, chosen.samples, latency=chosen.latency, jobs=chosen.jobs)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
