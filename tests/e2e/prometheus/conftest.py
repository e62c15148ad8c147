"""A real Prometheus that scrapes real services, all on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from forge.adapters.signals.base import Reading, Source
from forge.adapters.signals.registry import SourceContext, open_source
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan, SourcePlan

ROOT = Path(__file__).parents[3]
INTERVAL = 0.25
SERVICE = """
import http.server, os, sys, time, urllib.parse
import prometheus_client as p
version = sys.argv[2]
requests = p.Counter("http_requests", "x", ["version", "code"])
seconds = p.Histogram("http_request_duration_seconds", "x", ["version"], buckets=(0.05, 0.5, 1))
pool = p.Gauge("pool_used", "x", ["version"])
requests.labels(version, "200"); seconds.labels(version); pool.labels(version).set(0)
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        wanted = dict(urllib.parse.parse_qsl(query))
        body, kind, code = b"ok", "text/plain", int(wanted.get("code", 200))
        if path == "/metrics":
            made, kind = p.exposition.choose_encoder(self.headers.get("Accept", ""))
            body = made(p.REGISTRY)
        else:
            for _ in range(int(wanted.get("times", 1))):
                requests.labels(version, str(code)).inc()
                seconds.labels(version).observe(float(wanted.get("took", 0.01)), {"trace_id": wanted.get("trace", "t")})
            pool.labels(version).set(float(wanted.get("pool", 3)))
        self.send_response(200); self.send_header("Content-Type", kind); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
"""


def program() -> str:
    """The server's program; a machine that cannot have one skips, but never in CI."""
    spec = importlib.util.spec_from_file_location("obtain_prometheus", ROOT / "scripts" / "prometheus.py")
    assert spec
    assert spec.loader
    obtain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(obtain)
    try:
        return str(obtain.find())
    except obtain.Unavailable as problem:
        if os.environ.get("CI") == "true":
            pytest.fail(str(problem))
        pytest.skip(str(problem))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class World:
    """Services of several versions, the server that scrapes them, and a source that reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.targets = folder / "prometheus-targets.json"
        self.targets.write_text("[]")
        self.ports: dict[str, int] = {}
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self.server: subprocess.Popen[bytes] | None = None
        self.sources: list[Source] = []

    def serve(self, name: str, version: str) -> None:
        """Start one replica, on the port that it had before."""
        port = self.ports.setdefault(name, free_port())
        command = [sys.executable, "-c", SERVICE, str(port), version]
        self.services[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stop(self, name: str) -> None:
        service = self.services.pop(name)
        service.kill()
        service.wait(10)

    def scrape(self) -> None:
        """Tell the server of the services that were started so far."""
        listed = [{"targets": [f"127.0.0.1:{port}"], "labels": {}} for port in self.ports.values()]
        fresh = self.targets.with_suffix(".new")
        fresh.write_text(json.dumps(listed))
        fresh.replace(self.targets)

    def start(self) -> None:
        every = f"{int(INTERVAL * 1000)}ms"
        (self.folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {every}, scrape_timeout: {every}}}\n"
            "scrape_configs:\n"
            "- job_name: services\n"
            f"  file_sd_configs: [{{files: ['{self.targets}'], refresh_interval: 1s}}]\n"
        )
        command = [
            program(), f"--config.file={self.folder / 'prometheus.yml'}", f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn",
            "--enable-feature=exemplar-storage",
        ]  # fmt: skip
        with (self.folder / "prometheus.log").open("ab") as log:
            self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop_server(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(20)
            self.server = None

    async def request(self, name: str, **wanted: object) -> None:
        query = "&".join(f"{key}={value}" for key, value in wanted.items())
        url = f"http://127.0.0.1:{self.ports[name]}/?{query}"
        for _ in range(400):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).close())
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} does not listen")

    def source(self, **config: Any) -> Source:
        async def no_secret(name: str) -> str:
            raise AssertionError(name)

        settings = {"http": {"url": self.url}, "preset": "plain", "interval": INTERVAL, **config}
        plan = SourcePlan("prometheus", "metrics", settings)
        opened = open_source(plan, SourceContext(EnvironmentPlan("production"), self.folder, no_secret))
        self.sources.append(opened)
        return opened

    async def until(
        self, source: Source, versions: list[str], holds: Callable[[dict[str, Reading]], bool]
    ) -> dict[str, Reading]:
        """Read again and again until it holds; a server that is still starting is waited for."""
        deadline = time.monotonic() + 20
        last: object = None
        while time.monotonic() < deadline:
            try:
                last = found = await source.read(versions, time.time())
                if holds(found):
                    return found
            except DependencyFailed as error:
                last = error
            await asyncio.sleep(0.1)
        log = (self.folder / "prometheus.log").read_text()[-1000:]
        raise AssertionError(f"it never came to that; last: {last}\n{log}")

    async def close(self) -> None:
        for source in self.sources:
            await source.close()
        self.stop_server()
        for name in [*self.services]:
            self.stop(name)


Started = Callable[..., Awaitable[World]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    try:
        found.start()
        yield found
    finally:
        await found.close()
