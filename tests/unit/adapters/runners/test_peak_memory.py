"""Looking at a process and its descendants for their largest size."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from forge.adapters.runners.peak_memory import PeakMemory


@pytest.fixture
def start():
    started = []

    def start(*argv: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def test_the_largest_of_a_family_counts(start):
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    child = "x = b'x' * 60_000_000; print(len(x), flush=True); del x; input()"
    process = start(sys.executable, "-c", program, child)
    await asyncio.to_thread(process.stdout.readline)
    peak = PeakMemory(process.pid)
    peak.look()
    peak.stop()
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert 60_000_000 < peak.bytes < 200_000_000


async def test_it_looks_by_itself_until_it_is_stopped(start):
    peak = PeakMemory(start("sleep", "60").pid)
    while not peak.bytes:
        await asyncio.sleep(0.01)
    peak.stop()
    assert peak.bytes < 50_000_000
    peak.bytes = 0
    await asyncio.sleep(0.2)
    assert peak.bytes == 0


async def test_what_is_gone_has_nothing_to_tell(start):
    process = start("true")
    process.wait()
    peak = PeakMemory(process.pid)
    peak.look()
    peak.stop()
    assert peak.bytes == 0
