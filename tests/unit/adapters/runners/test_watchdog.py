"""When a worker dies, by whatever cause, its watchdog ends its processes and itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from forge.adapters.runners.live_processes import alive
from forge.adapters.runners.watchdog import listen

WORKER = """
import asyncio, os, sys
from pathlib import Path
from forge.adapters.runners.process import ProcessRunner

class Sink:
    def write(self, data): pass

async def main():
    runner = ProcessRunner(sys.argv[1], orphan_grace=0.5)
    await runner.run(["bash", "-c", sys.argv[2]], key="k", cwd=Path(sys.argv[3]), env={"PATH": os.environ["PATH"]}, output=Sink())
    print("ended", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def living(worker: str) -> list[int]:
    return alive(0, {"FORGE_WORKER": worker})


def watchdogs(worker: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if worker in (process.info["cmdline"] or []) and any("watchdog.py" in word for word in process.info["cmdline"])
    ]


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def worker(tmp_path: Path):
    """Start a worker process with one script; it is killed at the end in any case."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, script: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, name, script, str(tmp_path)], stdout=subprocess.PIPE, cwd=tmp_path
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_everything_ends_when_the_worker_is_killed(worker, tmp_path, number):
    name = f"worker-{tmp_path.name}"
    script = "sleep 401 & (setsid sleep 402 &); (env -i sleep 403 &); touch ready; trap '' TERM; while true; do sleep 0.05; done"
    process = worker(name, script)
    wait_for((tmp_path / "ready").exists)
    assert len(living(name)) >= 3
    assert len(watchdogs(name)) == 1
    process.send_signal(number)
    process.wait()
    wait_for(lambda: not living(name))
    wait_for(lambda: not watchdogs(name))
    assert not [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[:2] == ["sleep", "403"]]


def test_term_comes_before_kill(worker, tmp_path):
    name = f"worker-{tmp_path.name}"
    # With the worker its end of the pipe is gone too: what the shell says of its children would be a SIGPIPE.
    process = worker(
        name, "exec 2>&-; trap 'echo cleaned > cleaned; exit' TERM; touch ready; while true; do sleep 0.02; done"
    )
    wait_for((tmp_path / "ready").exists)
    process.kill()
    wait_for((tmp_path / "cleaned").exists)


def test_the_watchdog_holds_nothing_of_the_worker(worker, tmp_path):
    name = f"worker-{tmp_path.name}"
    worker(name, "touch ready; sleep 404")
    wait_for((tmp_path / "ready").exists)
    (watchdog,) = watchdogs(name)
    wait_for(lambda: Path(f"/proc/{watchdog.pid}/fd").is_dir() and Path(f"/proc/{watchdog.pid}/fd/0").exists())
    descriptors = {int(path.name): os.readlink(path) for path in Path(f"/proc/{watchdog.pid}/fd").iterdir()}
    assert descriptors[0].startswith("pipe:")
    assert {name for number, name in descriptors.items() if number in {1, 2}} == {"/dev/null"}
    assert watchdog.cwd() == "/"
    # The interpreter has written nothing into its environment that we did not.
    assert "FORGE_WORKER" not in watchdog.environ()
    assert watchdog.memory_info().rss < 20_000_000


def test_it_goes_when_the_worker_ends_normally(tmp_path):
    name = f"worker-{tmp_path.name}"
    code = WORKER.replace("await asyncio.sleep(60)", "")
    done = subprocess.run([sys.executable, "-c", code, name, "true", str(tmp_path)], capture_output=True, check=True)
    assert done.stdout == b"ended\n"
    wait_for(lambda: not watchdogs(name))


def test_it_knows_which_sessions_are_open():
    ours, theirs = os.pipe()
    os.write(theirs, b"+100\n+200\n-100\n+300")
    os.write(theirs, b"1\n+40\n-200\n")
    os.close(theirs)
    try:
        assert listen(ours) == {3001, 40}
    finally:
        os.close(ours)
