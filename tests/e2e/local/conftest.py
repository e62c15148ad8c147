"""A real environment on this machine: Envoy, an agent, and replicas of a small HTTP service."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from forge.adapters.targets.local.environment import open_local, shutdown, status
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Route, TrafficTable, Version

SERVICE = """
import http.server, os, signal, sys, time, urllib.parse

class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(self.path).query))
        time.sleep(float(query.get("sleep", 0)))
        body = (os.environ["FORGE_VERSION"] + " " + os.environ["FORGE_REPLICA"]).encode()
        if self.path == "/environ":
            body = repr(dict(os.environ)).encode()
        self.send_response(int(os.environ.get("STATUS", query.get("status", 200))))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    do_POST = do_GET

    def log_message(self, *arguments):
        pass

print("listening on", os.environ["PORT"], flush=True)
http.server.ThreadingHTTPServer.daemon_threads = True
http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Service).serve_forever()
"""


class Reply:
    def __init__(self, code: int, headers: list[tuple[str, str]], body: str) -> None:
        self.code, self.headers, self.body = code, headers, body

    @property
    def version(self) -> str:
        return self.body.split(" ")[0]

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


class Connection:
    """One keep-alive connection to an address such as http://127.0.0.1:8080."""

    def __init__(self, address: str) -> None:
        self.host, port = address.removeprefix("http://").split(":")
        self.port = int(port)
        self.reader: asyncio.StreamReader | None = None

    async def get(self, path: str = "/", *, method: str = "GET", **headers: str) -> Reply:
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        lines = [f"{method} {path} HTTP/1.1", "host: service", "content-length: 0"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        found = [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in head[1:] if line)]
        length = int(next((v for k, v in found if k == "content-length"), 0))
        reply = Reply(int(head[0].split()[1]), found, (await self.reader.readexactly(length)).decode())
        if reply.header("connection") == "close":
            self.close()
        return reply

    def close(self) -> None:
        if self.reader is not None:
            self.writer.close()
            self.reader = None


class Load:
    """Clients that ask all the time; counts what they got."""

    def __init__(self, address: str, clients: int = 6, path: str = "/", method: str = "GET") -> None:
        self.address, self.path, self.method = address, path, method
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []
        self.clients = clients

    async def __aenter__(self) -> Load:
        self.running = True
        self.tasks = [asyncio.create_task(self._client()) for _ in range(self.clients)]
        await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running = False
        await asyncio.wait_for(asyncio.gather(*self.tasks), 20)

    @property
    def requests(self) -> int:
        return self.versions.total() + len(self.failures)

    async def _client(self) -> None:
        connection = Connection(self.address)
        while self.running:
            try:
                reply = await connection.get(self.path, method=self.method)
                if reply.code == 200:
                    self.versions[reply.version] += 1
                else:
                    self.failures.append(f"{reply.code} {reply.body}")
            except (OSError, EOFError) as error:
                self.failures.append(repr(error))
                connection.close()
                await asyncio.sleep(0.01)
        connection.close()


class World:
    """One environment and everything that a test does with it."""

    def __init__(self, folder: Path, name: str = "production", **router: Any) -> None:
        self.folder = folder / "environments" / name
        self.service = folder / "service.py"
        self.service.parent.mkdir(parents=True, exist_ok=True)
        self.service.write_text(SERVICE)
        self.command = [sys.executable, "-I", "-S", str(self.service)]
        config = {"command": self.command, "ready": {"http": "/", "interval": 0.05}, "drain": 3.0, "stop_grace": 2.0}
        self.plan = EnvironmentPlan(name=name, target_config=config, router_config=router)
        opened = open_local(self.plan, self.folder)
        self.target, self.router, self.signals = opened.target, opened.router, opened.signals
        self.generation = 0
        self.token = 1

    async def up(self, *versions: str, replicas: int = 1, artifact: str | None = None, **config: Any) -> None:
        for version in versions:
            await self.want(version, replicas, artifact=artifact, **config)
        for version in versions:
            await self.ready(version, replicas)
        await self.router.address()

    async def want(self, version: str, replicas: int = 1, artifact: str | None = None, **config: Any) -> None:
        await self.target.ensure(Version(version, config=config), replicas, artifact, self.token)

    async def ready(self, version: str, replicas: int = 1) -> None:
        async def enough() -> bool:
            count = (await self.target.observe()).get(version)
            return count is not None and count.ready == replicas == count.running

        await until(enough, f"{version} has {replicas} ready replicas")

    async def split(self, routes: tuple[Route, ...] = (), *, sticky: bool = False, **weights: int) -> None:
        """`_1_0=9500` is 95 % for version 1.0."""
        named = {name.lstrip("_").replace("_", "."): weight for name, weight in weights.items()}
        await self.route(named, routes, sticky=sticky)

    async def route(self, weights: dict[str, int], routes: tuple[Route, ...] = (), *, sticky: bool = False) -> None:
        self.generation += 1
        table = TrafficTable(weights, self.generation, routes, sticky)
        await self.router.apply(table, self.token)
        assert await self.router.observed() == table

    async def get(self, path: str = "/", **options: Any) -> Reply:
        connection = Connection(await self.router.address())
        try:
            return await connection.get(path, **options)
        finally:
            connection.close()

    async def replica(self, version: str, number: int = 1) -> dict[str, Any]:
        replicas = (await self.status())["versions"][version]["replicas"]
        return next(one for one in replicas if one["replica"] == number)

    async def status(self) -> dict[str, Any]:
        return await status(self.folder)

    def processes(self) -> set[int]:
        """Every process that belongs to this environment, however it came to be."""
        found = set()
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            words = process.info["cmdline"] or []
            ours = any(str(self.folder) in word or str(self.service) in word for word in words)
            if ours and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.add(process.pid)
        return found


async def until(condition: Callable[[], Awaitable[bool]], what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if await condition():
                return
        except DependencyFailed:
            pass
        await asyncio.sleep(0.02)
    pytest.fail(f"not within {timeout:g}s: {what}")


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture
def load() -> type[Load]:
    return Load


@pytest.fixture
def connection() -> type[Connection]:
    return Connection


@pytest.fixture
async def new_world(tmp_path: Path) -> AsyncIterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(name: str = "production", **router: Any) -> World:
        worlds.append(World(tmp_path, name, **router))
        return worlds[-1]

    yield make
    for world in worlds:
        await shutdown(world.folder)
    for world in worlds:
        assert world.processes() == set(), "a process was left behind"
        saved = json.loads((world.folder / "state.json").read_text()) if world.folder.exists() else {}
        assert not saved.get("replicas")


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    return new_world()
