"""An application of a site on a real port, in the test's own process; and reading streams of events from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from forge.server.app import make_app
from forge.server.serving import HttpServer, bind
from forge.server.settings import read_settings
from forge.server.site import open_site
from serving.inside import Asked, FixedIdentity


@contextlib.asynccontextmanager
async def listening(folder: Path, **given: Any) -> AsyncIterator[Asked]:
    """Serve the project in a folder on a free port of this process."""
    async with open_site(read_settings(None, folder, environ={}, port=0, **given)) as site:
        site.identity = FixedIdentity()
        socket = bind(site.settings)
        url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        config = uvicorn.Config(make_app(site), lifespan="off", log_config=None, timeout_graceful_shutdown=2)
        server = HttpServer(config)
        task = asyncio.create_task(server.serve(sockets=[socket]))
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:
                yield Asked(site, client)
        finally:
            site.closing.set()
            server.should_exit = True
            await task


class Messages:
    """The messages of a stream, read one after another. Made by `watching`."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()
        self.comments = 0

    async def next(self, seconds: float = 10.0) -> dict[str, str]:
        """Return the next message: its fields. Raises TimeoutError, StopAsyncIteration at the end."""
        async with asyncio.timeout(seconds):
            fields: dict[str, str] = {}
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments += 1
                elif not line and "data" in fields:
                    return fields
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = f"{fields[name]}\n{value}" if name in fields and name == "data" else value
            raise StopAsyncIteration

    async def event(self, kind: str = "", seconds: float = 20.0) -> dict[str, Any]:
        """Return the next event of the log (of that kind)."""
        async with asyncio.timeout(seconds):
            while True:
                stored = json.loads((await self.next(seconds))["data"])
                if not kind or stored["event"]["kind"] == kind:
                    return dict(stored)


@contextlib.asynccontextmanager
async def watching(client: httpx2.AsyncClient, path: str, **headers: str) -> AsyncIterator[Messages]:
    """Open a stream."""
    asked = {"accept": "text/event-stream", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with client.stream("GET", path, headers=asked) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Messages(answer)
