"""An apiserver that misbehaves as it is told: busy, broken, silent, talking nonsense. On loopback, plain HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass
class Answer:
    """What to say: `body` (no text: as JSON), or a `stream` of lines; `hang`: nothing at all, ever."""

    code: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    stream: list[Any] | None = None
    keep_open: bool = False
    """After the stream: say no more, but do not end either."""
    hang: bool = False
    drop: bool = False
    """Close the connection in the middle."""


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    query: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class ScriptedApi:
    """Answers each request by `script(request)`; remembers all of them."""

    def __init__(self, script: Callable[[Request], Answer]) -> None:
        self.script = script
        self.requests: list[Request] = []
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    @property
    def port(self) -> int:
        assert self._server
        return int(self._server.sockets[0].getsockname()[1])

    def kubeconfig(self, folder: Path, **user: object) -> str:
        """Write a kubeconfig for it and return the path."""
        path = folder / "kubeconfig"
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": user or {"token": "t"}}],
            "contexts": [
                {"name": "test", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
                {"name": "production", "context": {"cluster": "c", "user": "u"}},
            ],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(config))
        return str(path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._open.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        line = await reader.readline()
        if not line:
            return False
        method, target, _ = line.decode().split(" ", 2)
        headers: dict[str, str] = {}
        while (header := (await reader.readline()).decode().strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path, _, query = target.partition("?")
        request = Request(method, path, query, body, headers)
        self.requests.append(request)
        answer = self.script(request)
        if answer.hang:
            await asyncio.sleep(3600)
        if answer.drop:
            return False
        await self._say(writer, answer)
        return answer.stream is None

    async def _say(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        headers = {"Content-Type": "application/json", **answer.headers}
        if answer.stream is not None:
            headers |= {"Connection": "close"}
            writer.write(_head(answer.code, headers))
            for event in answer.stream:
                writer.write((event if isinstance(event, str) else json.dumps(event)).encode() + b"\n")
                await writer.drain()
            if answer.keep_open:
                await asyncio.sleep(3600)
            return
        data = answer.body.encode() if isinstance(answer.body, str) else json.dumps(answer.body or {}).encode()
        writer.write(_head(answer.code, {**headers, "Content-Length": str(len(data))}) + data)
        await writer.drain()


def _head(code: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {code} X", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def status(code: int, message: str, **rest: Any) -> Answer:
    """Return a refusal as the apiserver words it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code, **rest}
    return Answer(code, body)


def listing(items: list[dict[str, Any]], version: str = "10") -> Answer:
    """Return an answer to a list."""
    return Answer(body={"kind": "List", "metadata": {"resourceVersion": version}, "items": items})
