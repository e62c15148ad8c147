"""A queue of many runs on PostgreSQL, few of them allowed at once: how long until those run, and until all have run.

Two workers share the work. The second half of the story is a bad day: PostgreSQL is restarted and one worker killed in
the middle; every run has to end as succeeded, and no step may have run twice except those that the crash cut off.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.figures import Figure, seconds

TESTS = Path(__file__).parents[1] / "tests"
PATIENCE = 240.0


def pipeline(limit: int, nap: float, ran: Path) -> str:
    """Return a pipeline of one short job, of which `limit` runs may go on at once; each leaves its id in a file."""
    return (
        f"concurrency: {{group: queue, limit: {limit}}}\n"
        "jobs:\n  one:\n    steps:\n"
        f'      - run: echo "$FORGE_RUN" >> {ran}; sleep {nap}\n'
    )


def measure(runs: int = 1000, limit: int = 101, nap: float = 0.2) -> list[Figure]:
    """Run the queue twice: in peace, and with a restart and a kill."""
    sys.path.insert(0, str(TESTS))
    try:
        peace, _ = play(runs, limit, nap, trouble=False)
        trouble, ran = play(runs, limit, nap, trouble=True)
    finally:
        sys.path.remove(str(TESTS))
    twice = sum(count - 1 for count in ran.values())
    return [
        Figure(
            f"{runs} queued runs, {limit} at once, two workers on PostgreSQL: {limit} running", seconds(peace["full"])
        ),
        Figure(f"the same: all {runs} started", seconds(peace["started"])),
        Figure(
            "the same with PostgreSQL restarted and a worker killed",
            f"{seconds(trouble['started'])}; {runs - len(ran)} lost, {twice} steps cut off and run again",
        ),
    ]


def play(runs: int, limit: int, nap: float, *, trouble: bool) -> tuple[dict[str, float], Counter[str]]:
    """Queue the runs and let two workers have them; return the seconds to each point, and how often each run ran."""
    with tempfile.TemporaryDirectory(prefix="forge-bench-") as name, _postgres() as server:
        folder = Path(name)
        (folder / "forge").mkdir()
        ran = folder / "ran"
        (folder / "forge" / "pipeline.yaml").write_text(pipeline(limit, nap, ran))
        settings = {**os.environ, "FORGE_DATABASE": server.url()}
        os.environ["FORGE_DATABASE"] = settings["FORGE_DATABASE"]
        try:
            return asyncio.run(_play(folder, ran, server, settings, runs, limit, trouble=trouble))
        finally:
            del os.environ["FORGE_DATABASE"]


async def _play(
    folder: Path, ran: Path, server: Any, settings: dict[str, str], runs: int, limit: int, *, trouble: bool
) -> tuple[dict[str, float], Counter[str]]:
    from forge.engine.engine import Engine
    from forge.engine.planning import load
    from forge.engine.project import Project

    reached: dict[str, float] = {}
    project = Project(folder)
    async with Engine.open(project) as engine:
        plan = load(project)
        for _ in range(runs):
            await engine.start_run(plan, actor="bench")
        workers = [_worker(folder, settings) for _ in range(2)]
        began = time.monotonic()
        try:
            while "ended" not in reached:
                if time.monotonic() - began > PATIENCE:
                    raise TimeoutError(f"after {PATIENCE:.0f} s: {reached}")
                if trouble and "started" not in reached and len(_lines(ran)) > runs // 4:
                    trouble = False
                    workers[0].kill()
                    await asyncio.to_thread(server.stop, signal.SIGQUIT)
                    await asyncio.to_thread(server.start)
                    workers.append(_worker(folder, settings))
                await _look(engine, ran, reached, began, runs, limit)
                await asyncio.sleep(0.2)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait(30)
    return reached, Counter(_lines(ran))


async def _look(engine: Any, ran: Path, reached: dict[str, float], began: float, runs: int, limit: int) -> None:
    from forge.model.errors import DependencyFailed

    since = time.monotonic() - began
    try:
        going = await engine.store.machines.newest("run", statuses=("running",), limit=runs)
        ended = await engine.store.machines.newest("run", statuses=("succeeded",), limit=runs)
    except DependencyFailed:
        return
    begun = len(set(_lines(ran)))
    if len(going) >= limit or begun >= runs:
        reached.setdefault("full", since)
    if begun >= runs:
        reached.setdefault("started", since)
    if len(ended) >= runs:
        reached["ended"] = since


def _lines(ran: Path) -> list[str]:
    try:
        return ran.read_text().split()
    except FileNotFoundError:
        return []


def _worker(folder: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    program = Path(__file__).parents[1] / "tests" / "e2e" / "engine_program.py"
    return subprocess.Popen([sys.executable, str(program), str(folder), "5"], env=settings, stdout=subprocess.DEVNULL)


@contextmanager
def _postgres() -> Iterator[Any]:
    from conftest import PostgresServer

    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


if __name__ == "__main__":
    from bench.figures import table

    sys.stdout.write(table(measure(*(int(word) for word in sys.argv[1:3]))) + "\n")
