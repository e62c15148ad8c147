"""What every reader of signals keeps of its contract: the proxy's and the one in memory."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forge.adapters.signals.base import Signals
from forge.adapters.signals.memory import MemorySignals
from forge.adapters.targets.local.environment import open_local, shutdown, status
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Sample, TrafficTable, Version

SERVICE = """
import http.server, os
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path.strip('/') or 200)); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Service).serve_forever()
"""


class MemoryWorld:
    def __init__(self) -> None:
        self.signals: Signals = MemorySignals(time.time)
        for version in ("1.0", "1.1"):
            self.signals.use(version, cpu_seconds=0.01, memory=1_000_000)

    async def up(self) -> None:
        pass

    async def request(self, code: int, times: int) -> None:
        self.signals.serve("1.0", times, errors=times if code >= 500 else 0)

    async def restart_source(self) -> None:
        self.signals.reset()

    def another_reader(self) -> Signals:
        again = MemorySignals(time.time)
        again._raw, again._cpu, again._memory = self.signals._raw, self.signals._cpu, self.signals._memory
        again._starts = self.signals._starts
        return again

    async def break_source(self) -> None:
        self.signals.unreachable = True

    async def down(self) -> None:
        pass


class LocalWorld:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = {"command": [sys.executable, "-I", "-S", "-c", SERVICE], "ready": {"tcp": True, "interval": 0.05}}
        self.plan = EnvironmentPlan("production", target_config=config)
        self.opened = open_local(self.plan, folder)
        self.signals: Signals = self.opened.signals

    async def up(self) -> None:
        for version in ("1.0", "1.1"):
            await self.opened.target.ensure(Version(version), 1, None, 1)
        deadline = time.monotonic() + 15
        while not all(count.ready for count in (await self.opened.target.observe()).values()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        await self.opened.router.apply(TrafficTable({"1.0": 10000}, 1), 1)
        self.address = await self.opened.router.address()

    async def request(self, code: int, times: int) -> None:
        for _ in range(times):
            await asyncio.to_thread(self._request, code)

    def _request(self, code: int) -> None:
        try:
            with urllib.request.urlopen(f"{self.address}/{code}", timeout=5) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            error.close()

    async def restart_source(self) -> None:
        pid = (await status(self.folder))["proxy"]["pid"]
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                await self.opened.router.observed()
                if (await status(self.folder))["proxy"]["pid"] not in (None, pid):
                    return
            except DependencyFailed:
                continue
            finally:
                await asyncio.sleep(0.02)

    def another_reader(self) -> Signals:
        return open_local(self.plan, self.folder).signals

    async def break_source(self) -> None:
        os.kill((await status(self.folder))["proxy"]["pid"], signal.SIGSTOP)

    async def down(self) -> None:
        pid = (await status(self.folder))["proxy"]["pid"]
        if pid is not None:
            os.kill(pid, signal.SIGCONT)
        await shutdown(self.folder)


@pytest.fixture(params=["envoy", "memory"])
async def world(request, tmp_path) -> AsyncIterator[MemoryWorld | LocalWorld]:
    world = MemoryWorld() if request.param == "memory" else LocalWorld(tmp_path / "environment")
    await world.up()
    yield world
    await world.down()


async def read(signals: Signals, version: str = "1.0") -> Sample:
    return (await signals.read([version]))[version]


async def test_counts_are_cumulative_and_by_version(world) -> None:
    await world.request(200, 6)
    await world.request(500, 2)
    await world.request(404, 1)
    samples = await world.signals.read(["1.0", "1.1", "unknown"])
    assert (samples["1.0"].requests, samples["1.0"].errors) == (9, 2)
    assert (samples["1.1"].requests, samples["1.1"].errors) == (0, 0)
    assert "unknown" not in samples
    assert abs(samples["1.0"].at - time.time()) < 5
    assert samples["1.0"].cpu_seconds > 0
    assert samples["1.0"].memory > 100_000
    await world.request(503, 1)
    again = await read(world.signals)
    assert (again.requests, again.errors) == (10, 3)


async def test_latency_is_a_cumulative_histogram_that_ends_at_infinity(world) -> None:
    await world.request(200, 5)
    deadline = time.monotonic() + 10
    while (sample := await read(world.signals)).latency == () or sample.latency[-1][1] < 5:
        assert time.monotonic() < deadline, sample
        await asyncio.sleep(0.05)
    bounds = [bound for bound, _ in sample.latency]
    counts = [count for _, count in sample.latency]
    assert bounds == sorted(bounds)
    assert counts == sorted(counts)
    assert (bounds[-1], counts[-1]) == (math.inf, 5)


async def test_nothing_falls_when_the_source_begins_anew(world) -> None:
    await world.request(500, 3)
    before = await read(world.signals)
    await world.restart_source()
    between = await read(world.signals)
    assert (between.requests, between.errors) == (before.requests, before.errors) == (3, 3)
    await world.request(200, 5)
    after = await read(world.signals)
    assert (after.requests, after.errors) == (8, 3)


async def test_another_reader_goes_on_from_the_saved_state(world) -> None:
    await world.request(500, 3)
    await read(world.signals)
    await world.restart_source()
    await world.request(200, 1)
    await read(world.signals)
    kept = json.loads(json.dumps(world.signals.state()))
    await world.request(200, 2)
    again = world.another_reader()
    again.restore(kept)
    sample = await read(again)
    assert (sample.requests, sample.errors) == (6, 3)


async def test_a_source_that_is_away_is_an_error_and_never_zeros(world) -> None:
    await world.request(200, 1)
    await read(world.signals)
    await world.break_source()
    with pytest.raises(DependencyFailed):
        await world.signals.read(["1.0"])


async def test_where_replicas_can_be_told_apart_they_add_up_to_their_version(world) -> None:
    await world.request(200, 5)
    await world.request(500, 2)
    sample = await read(world.signals)
    if isinstance(world, MemoryWorld):
        assert sample.groups == ()
        return
    assert len(sample.groups) == 1, "one replica"
    assert (sum(requests for _, requests, _ in sample.groups), sum(errors for *_, errors in sample.groups)) == (7, 2)
