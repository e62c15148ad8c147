"""A small client of Envoy's admin interface, which listens on a unix socket that only its owner can open."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from forge.model.errors import DependencyFailed

_LIMIT = 64 * 1024 * 1024


class EnvoyAdmin:
    """Asks the Envoy behind `path`. Every method raises DependencyFailed when it does not answer in time."""

    def __init__(self, path: Path, *, timeout: float = 3.0) -> None:
        self.path = path
        self.timeout = timeout

    async def get(self, target: str, *, method: str = "GET") -> str:
        """Return the body of one admin request."""
        try:
            return await asyncio.wait_for(self._request(target, method), self.timeout)
        except TimeoutError:
            msg = f"the proxy did not answer within {self.timeout:g}s"
            raise DependencyFailed(msg) from None
        except (OSError, ValueError, EOFError) as error:
            msg = f"the proxy cannot be reached: {error}"
            raise DependencyFailed(msg) from None

    async def stats(self, pattern: str) -> dict[str, str]:
        """Return the counters, gauges and texts whose names match a regular expression."""
        body = await self.get(f"/stats?filter={quote(pattern)}")
        pairs = (line.split(": ", 1) for line in body.splitlines() if ": " in line)
        return {name: value.strip('"') for name, value in pairs}

    async def hosts(self) -> dict[str, dict[int, Host]]:
        """Return what Envoy knows of each endpoint, by cluster and port."""
        body = await self.get("/clusters?format=json")
        found: dict[str, dict[int, Host]] = {}
        try:
            for cluster in json.loads(body).get("cluster_statuses", ()):
                hosts = (Host(status) for status in cluster.get("host_statuses", ()))
                found[cluster["name"]] = {host.port: host for host in hosts}
        except (ValueError, KeyError, AttributeError) as error:
            msg = f"the proxy told of its endpoints in a way that is not understood: {error!r}"
            raise DependencyFailed(msg) from None
        return found

    async def is_live(self) -> bool:
        """Return whether Envoy has loaded its configuration and serves."""
        try:
            return (await self.get("/ready")).strip() == "LIVE"
        except DependencyFailed:
            return False

    async def _request(self, target: str, method: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=_LIMIT)
        try:
            head = f"{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()
            raw = await reader.read(_LIMIT)
            while chunk := await reader.read(_LIMIT):
                raw += chunk
        finally:
            writer.close()
        return parse_response(raw)


class Host:
    """One endpoint as Envoy sees it."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.port: int = status["address"]["socket_address"]["port_value"]
        self.health: str = status.get("health_status", {}).get("eds_health_status", "UNKNOWN")
        numbers = {stat["name"]: int(stat.get("value", 0)) for stat in status.get("stats", ())}
        self.active = numbers.get("rq_active", 0)
        self.errors = numbers.get("rq_error", 0)
        """Answered 5xx."""
        self.requests = numbers.get("rq_success", 0) + self.errors
        """Answered."""


def parse_response(raw: bytes) -> str:
    """Return the body of an HTTP/1.1 response, chunked or not. Raises ValueError for what is none."""
    head, separator, body = raw.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"HTTP/1."):
        msg = "the admin interface did not answer in HTTP"
        raise ValueError(msg)
    if re.search(rb"(?im)^transfer-encoding:\s*chunked\s*$", head):
        body = _unchunk(body)
    return body.decode(errors="replace")


def _unchunk(body: bytes) -> bytes:
    parts: list[bytes] = []
    while body:
        size_line, _, rest = body.partition(b"\r\n")
        size = int(size_line.split(b";")[0] or b"0", 16)
        if size == 0:
            return b"".join(parts)
        if len(rest) < size:
            break
        parts.append(rest[:size])
        body = rest[size + 2 :]
    msg = "the admin interface's answer was cut off"
    raise ValueError(msg)
