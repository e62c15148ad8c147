"""Real processes of the local target: their error lines, and how full they are, beside the proxy's counters."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forge.adapters.targets.local.environment import shutdown
from forge.adapters.targets.registry import OpenEnvironment, open_environment
from forge.model.plan import EnvironmentPlan, SourcePlan
from forge.model.traffic import Sample, TrafficTable, Version

SERVICE = """
import http.server, os, sys, traceback
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/trace':
            try:
                {}['card']
            except KeyError:
                sys.stderr.write('ERROR cannot pay\\n' + traceback.format_exc()); sys.stderr.flush()
        elif self.path == '/json':
            print('{"level":"error","msg":"no stock of item 17"}', flush=True)
        elif self.path == '/crash':
            print('FATAL going down', flush=True); os._exit(3)
        else:
            print('INFO served', self.path, flush=True)
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Service).serve_forever()
"""


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = {"command": [sys.executable, "-I", "-S", "-c", SERVICE], "ready": {"tcp": True, "interval": 0.05}}
        self.plan = EnvironmentPlan(
            "production",
            target_config=config,
            sources=(SourcePlan("envoy", "envoy"), SourcePlan("logs", "logs", {})),
        )
        self.opened = self.again()

    def again(self) -> OpenEnvironment:
        return open_environment(self.plan, self.folder)

    async def up(self) -> None:
        for version in ("1.0", "1.1"):
            await self.opened.target.ensure(Version(version), 1, None, 1)
        await self.ready()
        await self.opened.router.apply(TrafficTable({"1.0": 10000}, 1), 1)
        self.address = await self.opened.router.address()

    async def ready(self) -> None:
        deadline = time.monotonic() + 15
        while not all(count.ready for count in (await self.opened.target.observe()).values()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    async def request(self, path: str, times: int = 1) -> None:
        for _ in range(times):
            await asyncio.to_thread(self._request, path)

    def _request(self, path: str) -> None:
        try:
            with urllib.request.urlopen(f"{self.address}{path}", timeout=5) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            error.close()

    async def settled(self, errors: int, version: str = "1.0") -> Sample:
        """Read until so many error lines are counted, then once more: they stay as many."""
        deadline = time.monotonic() + 10
        while True:
            sample = (await self.opened.signals.read([version]))[version]
            if sample.log_errors == errors:
                break
            assert time.monotonic() < deadline, sample
            await asyncio.sleep(0.05)
        return (await self.opened.signals.read([version]))[version]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "environment")
    await world.up()
    yield world
    await shutdown(world.folder)


async def test_error_lines_are_told_by_version_while_every_answer_is_a_success(world: World) -> None:
    await world.request("/", 3)
    assert (await world.settled(0)).templates == ()
    await world.request("/trace", 2)
    await world.request("/json")
    sample = await world.settled(3)
    assert sample.errors == 0
    assert sample.requests == 6
    assert {(one.text, one.lines) for one in sample.templates} == {
        ("ERROR cannot pay | KeyError: <text>", 2),
        ("no stock of item <num>", 1),
    }
    assert sample.lacks == ()
    assert (await world.settled(0, "1.1")).templates == ()


async def test_gauges_and_restarts_of_real_processes(world: World) -> None:
    first = (await world.opened.signals.read(["1.0"]))["1.0"]
    await asyncio.sleep(1.05)
    sample = (await world.opened.signals.read(["1.0", "1.1"]))["1.0"]
    gauges = {gauge.name: gauge for gauge in sample.gauges}
    assert set(gauges) == {"cpu", "memory", "threads", "open_files"}
    assert gauges["memory"].value == sample.memory
    assert gauges["memory"].limit is not None
    assert not gauges["memory"].grows_with_load
    assert all(gauges[name].grows_with_load for name in ("cpu", "threads", "open_files"))
    assert gauges["open_files"].value >= 3
    assert "cpu" not in {gauge.name for gauge in first.gauges}
    assert dict(sample.values) == {"restarts": 0.0}


async def test_a_replica_that_crashes_is_counted_with_its_last_words(world: World) -> None:
    await world.settled(0)
    await world.request("/crash")
    sample = await world.settled(1)
    assert [one.text for one in sample.templates] == ["FATAL going down"]
    deadline = time.monotonic() + 15
    while dict((await world.opened.signals.read(["1.0"]))["1.0"].values).get("restarts") != 1.0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_another_reader_goes_on_from_the_saved_state(world: World) -> None:
    await world.request("/trace")
    before = await world.settled(1)
    kept = json.loads(json.dumps(world.opened.signals.state()))
    await world.request("/trace")
    world.opened = world.again()
    world.opened.signals.restore(kept)
    sample = await world.settled(2)
    assert sample.templates[0].text == before.templates[0].text
    assert sample.templates[0].lines == 2
