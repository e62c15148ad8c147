"""Clients that ask a door without a pause, and count what they got: no failed request is a claim about these."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from types import TracebackType
from urllib.parse import urlsplit

_TIMEOUT = 10.0


class Load:
    """`clients` threads, each with one kept connection, ask `url` while the block runs.

    `answers` counts the bodies of answers below 500; `failures` what went wrong, in words.
    """

    def __init__(
        self, url: str, *, host: str = "", clients: int = 4, pause: float = 0.005, headers: dict[str, str] | None = None
    ) -> None:
        parts = urlsplit(url)
        self._where, self._path = parts.netloc, parts.path or "/"
        self._headers = {**(headers or {}), **({"Host": host} if host else {})}
        self._pause, self._done = pause, threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(clients)]
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(_TIMEOUT + 5)

    @property
    def requests(self) -> int:
        """How many were made so far."""
        with self._lock:
            return self.answers.total() + self.failures.total()

    def next(self, count: int, patience: float = 30.0) -> Counter[str]:
        """Return what the next requests got, at least `count` of them."""
        with self._lock:
            before = self.answers.copy()
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with self._lock:
                fresh = self.answers - before
            if fresh.total() >= count:
                return fresh
            time.sleep(0.02)
        raise TimeoutError(f"{count} answers did not come within {patience:g} s; failures: {dict(self.failures)}")

    def _ask_on(self) -> None:
        connection = http.client.HTTPConnection(self._where, timeout=_TIMEOUT)
        while not self._done.is_set():
            try:
                connection.request("GET", self._path, headers=self._headers)
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace").strip()
                self._count(
                    body if answer.status < 500 else "", "" if answer.status < 500 else f"{answer.status} {body}"
                )
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._count("", repr(error))
            self._done.wait(self._pause)
        connection.close()

    def _count(self, answer: str, failure: str) -> None:
        with self._lock:
            if failure:
                self.failures[failure] += 1
            else:
                self.answers[answer] += 1


def ask(url: str, *, host: str = "", headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
    """Return one request's status, body and headers (in small letters)."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT)
    try:
        connection.request("GET", parts.path or "/", headers={**(headers or {}), **({"Host": host} if host else {})})
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace").strip()
        return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()
