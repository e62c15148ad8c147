"""A durable pipeline of many no-op jobs, against `make -j` that starts the very same shells and forgets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.figures import Figure, compare, in_turn

FORGE = Path(sys.executable).parent / "forge"


def job_name(lane: int, place: int) -> str:
    return f"job_{lane:02}_{place:03}"


def pipeline(jobs: int, wide: int) -> str:
    """Return a pipeline.yaml of `wide` chains, side by side."""
    lines = [f"max_parallel: {wide}", "jobs:"]
    for place in range(jobs // wide):
        for lane in range(wide):
            lines.append(f"  {job_name(lane, place)}:")
            if place:
                lines.append(f"    depends_on: {job_name(lane, place - 1)}")
            lines.append("    steps: [{run: ':'}]")
    return "\n".join(lines) + "\n"


def makefile(jobs: int, wide: int, shell: str) -> str:
    """Return a Makefile of the same graph, with the shell that Forge uses."""
    names = [job_name(lane, place) for place in range(jobs // wide) for lane in range(wide)]
    lines = [f"SHELL := {shell}", ".SHELLFLAGS := -euo pipefail -c", f".PHONY: all {' '.join(names)}"]
    lines.append("all: " + " ".join(names))
    for place in range(jobs // wide):
        for lane in range(wide):
            before = job_name(lane, place - 1) if place else ""
            lines += [f"{job_name(lane, place)}: {before}", "\t@:"]
    return "\n".join(lines) + "\n"


def measure(jobs: int = 1000, wide: int = 10, rounds: int = 3) -> list[Figure]:
    """Run both in turn."""
    with tempfile.TemporaryDirectory(prefix="forge-bench-") as name:
        folder = Path(name)
        (folder / "forge").mkdir()
        (folder / "forge" / "pipeline.yaml").write_text(pipeline(jobs, wide))
        (folder / "Makefile").write_text(makefile(jobs, wide, shutil.which("bash") or "/bin/sh"))

        def forge() -> None:
            shutil.rmtree(folder / ".forge", ignore_errors=True)
            call([str(FORGE), "run", "--yes", "--progress", "quiet"], folder)

        def make() -> None:
            call(["make", "-s", f"-j{wide}", "all"], folder)

        ours, floor = in_turn(forge, make, rounds)
        listed = subprocess.run([FORGE, "runs", "-o", "json"], cwd=folder, capture_output=True, check=True).stdout
        states = [job["state"] for job in json.loads(listed)[0]["jobs"]]
        if states != ["succeeded"] * jobs:
            raise RuntimeError(f"{states.count('succeeded')} of {jobs} jobs succeeded")
    return [compare(f"a durable run of {jobs} no-op jobs, {wide} wide", ours, floor, f"`make -j{wide}`", each=jobs)]


def call(command: list[str], folder: Path) -> None:
    # `make bench` tells its children about itself, and a make below it would behave otherwise than one of its own.
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} exited {done.returncode}: {done.stderr.decode()[-2000:]}")
