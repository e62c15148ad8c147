"""Traffic for the demo: a steady number of requests a second from real sockets, counted by who answered how."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PROXY = "(no version)"
"""Who answered when no version said so: the proxy itself, or nobody."""


@dataclass
class Tally:
    """How many requests each version answered, and how many of those failed: 5xx, broken off, or too late."""

    requests: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    first_failure: dict[str, float] = field(default_factory=dict)
    """When a version first failed, and when it last answered, by the monotonic clock."""
    last_answer: dict[str, float] = field(default_factory=dict)

    def count(self, version: str, *, failed: bool, at: float) -> None:
        """Count a request."""
        self.requests[version] += 1
        self.failed[version] += failed
        self.last_answer[version] = at
        if failed:
            self.first_failure.setdefault(version, at)

    def since(self, earlier: Tally) -> Tally:
        """Return what was counted after `earlier`."""
        return Tally(self.requests - earlier.requests, self.failed - earlier.failed)

    def copy(self) -> Tally:
        """Return what was counted up to now."""
        return Tally(Counter(self.requests), Counter(self.failed), dict(self.first_failure), dict(self.last_answer))

    def exposure(self, version: str) -> float:
        """Return the seconds from a version's first failure to its last answer: how long users met it."""
        return self.last_answer[version] - self.first_failure[version] if version in self.first_failure else 0.0


class Load:
    """Sends `rate` requests a second to a URL on this machine, in a thread of its own, between start and stop.

    The pace does not depend on the answers, so that a slow service is not spared. It ends by itself after
    `longest` seconds, whatever becomes of its owner.
    """

    def __init__(self, url: str, *, rate: float, clients: int = 16, longest: float = 600.0) -> None:
        parts = urlsplit(url)
        if parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
            raise ValueError(f"the load goes to this machine only, not to {parts.hostname}")
        self._host, self._port, self._path = parts.hostname, parts.port or 80, parts.path or "/"
        self._gap = clients / rate
        self._clients = clients
        self._longest = longest
        self._tally = Tally()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> Tally:
        """End, and return the whole count."""
        self._stopped.set()
        self._thread.join()
        return self.tally()

    def tally(self) -> Tally:
        """Return the count up to now."""
        with self._lock:
            return self._tally.copy()

    async def _run(self) -> None:
        end = time.monotonic() + self._longest
        await asyncio.gather(*(self._client(number, end) for number in range(self._clients)))

    async def _client(self, number: int, end: float) -> None:
        connection = Connection(self._host, self._port, self._path)
        due = time.monotonic() + self._gap * number / self._clients
        while not self._stopped.is_set() and time.monotonic() < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            # A client that fell far behind does not send a burst to catch up.
            due = max(due + self._gap, time.monotonic() - 1.0)
            version, failed = await connection.ask()
            with self._lock:
                self._tally.count(version, failed=failed, at=time.monotonic())
        connection.close()


class Connection:
    """One client's connection, kept open between requests."""

    def __init__(self, host: str, port: int, path: str, timeout: float = 5.0) -> None:
        self._address = (host, port)
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        self._timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> tuple[str, bool]:
        """Send a request; return which version answered, and whether it failed."""
        try:
            async with asyncio.timeout(self._timeout):
                status, body = await self._exchange()
        except (OSError, EOFError, TimeoutError, ValueError):
            self.close()
            return PROXY, True
        try:
            version = json.loads(body)["version"]
        except (ValueError, TypeError, KeyError):
            version = PROXY
        return version, status >= 500

    async def _exchange(self) -> tuple[int, bytes]:
        used_before = self._streams is not None
        try:
            return await self._once()
        except (ConnectionError, asyncio.IncompleteReadError) as problem:
            half_an_answer = isinstance(problem, asyncio.IncompleteReadError) and problem.partial
            if half_an_answer or not used_before:
                raise
            # The other side may close an idle connection at any time; every HTTP client then tries a new one.
            self.close()
            return await self._once()

    async def _once(self) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        if fields.get("connection") == "close":
            self.close()
        return int(head[0].split()[1]), body

    def close(self) -> None:
        """Close it; the next request opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
