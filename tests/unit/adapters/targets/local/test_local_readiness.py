"""Readiness probes against real loopback servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forge.adapters.targets.local.readiness import probe
from forge.adapters.targets.local.replicas import choose_port
from forge.model.configs import Readiness

ROOT = Path("/")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().strip("/")
            if path == "silent":
                await asyncio.sleep(5)
            writer.write(b"hello\r\n" if path == "smtp" else f"HTTP/1.1 {path} X\r\n\r\n".encode())
            await writer.drain()
        except (EOFError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def ask(ready: Readiness, port: int) -> str | None:
    return await probe(ready, port, env={"PATH": "/usr/bin:/bin", "PORT": str(port)}, cwd=ROOT)


@pytest.mark.parametrize("code", [200, 204, 301, 399])
async def test_http_answers_that_mean_ready(port: int, code: int) -> None:
    assert await ask(Readiness(http=f"/{code}"), port) is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/404", "GET /404 answered 404"),
        ("/503", "GET /503 answered 503"),
        ("199", "GET 199 answered 199"),
        ("/smtp", "GET /smtp was not answered in HTTP"),
        ("/silent", "GET /silent gave no answer within 0.2s"),
    ],
)
async def test_http_answers_that_do_not(port: int, path: str, words: str) -> None:
    assert await ask(Readiness(http=path, timeout=0.2), port) == words


async def test_tcp(port: int) -> None:
    assert await ask(Readiness(tcp=True), port) is None
    assert "nothing listens on its port yet" in await ask(Readiness(tcp=True), choose_port({port}))


async def test_a_command_sees_the_replicas_environment(port: int) -> None:
    assert await ask(Readiness(command=("sh", "-c", f"test $PORT = {port}")), port) is None
    assert "exited with code 7" in await ask(Readiness(command=("sh", "-c", "exit 7")), port)
    assert "no-such-program" in await ask(Readiness(command=("no-such-program",)), port)


async def test_a_hanging_command_is_killed_with_its_children(port: int) -> None:
    started = time.monotonic()
    words = await ask(Readiness(command=("sh", "-c", "sleep 61 & sleep 61"), timeout=0.2), port)
    assert "gave no answer within 0.2s" in words
    assert time.monotonic() - started < 5


async def test_http_and_command_must_both_say_so(port: int) -> None:
    assert await ask(Readiness(http="/200", command=("true",)), port) is None
    assert await ask(Readiness(http="/200", command=("false",)), port) is not None
    assert "500" in await ask(Readiness(http="/500", command=("true",)), port)


async def test_nothing_to_ask_is_ready() -> None:
    assert await ask(Readiness(), 1) is None
