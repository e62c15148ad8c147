"""A server as a real process, on a free loopback port, with a small project: for tests that go the whole way.

`server` is one for each test, `shared_server` one for a module. Import the fixture where it is used:
`from serving.running import server  # noqa: F401`.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

PIPELINE = """\
name: shop
jobs:
  build:
    steps:
      - id: compile
        run: |
          for number in 1 2 3; do echo "compiling part $number"; done
          echo made > shop.txt
      - publish: shop.txt
  check:
    depends_on: build
    trigger:
      manual: Does it look good?
    steps:
      - id: look
        run: echo looked
"""
START_SECONDS = 30.0
END_SECONDS = 30.0


class Server:
    """A `forge serve` (or another command of a site) that runs. `link` logs in once, as administrator."""

    def __init__(self, folder: Path, *words: str, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.errors = folder / f"{'-'.join(word.strip('-') for word in words[:1]) or 'serve'}.err"
        command = [sys.executable, "-m", "forge", *(words or ("serve", "--port", "0")), "-o", "json"]
        own = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, env={**own, **(environ or {})}
            )
        try:
            self.said: dict[str, Any] = json.loads(self._first_line())
        except BaseException:
            self.kill()
            raise
        self.url: str = self.said["url"]
        self.link: str = self.said["link"]
        self._token = ""

    def _first_line(self) -> bytes:
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if selector.select(0.2) and (line := self.process.stdout.readline()):
                    return line
                if self.process.poll() is not None:
                    break
        raise AssertionError(f"the server did not start: {self.errors.read_text()[-3000:]}")

    @property
    def token(self) -> str:
        """A token of an administrator; made when first asked for."""
        if not self._token:
            self._token = administrators_token(self.url, self.link)
        return self._token

    def client(self, token: str | None = None) -> httpx2.Client:
        """Return a client that is logged in by a token (None: the administrator's; empty: not at all)."""
        chosen = self.token if token is None else token
        headers = {"Authorization": f"Bearer {chosen}"} if chosen else {}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def stop(self) -> int:
        """End it as an operator does; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_SECONDS)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()


def administrators_token(url: str, link: str) -> str:
    """Log in by a one-time link, as a browser does, and make a token of an administrator."""
    with httpx2.Client(base_url=url, timeout=30, trust_env=False, follow_redirects=True) as browser:
        secret = parse_qs(urlsplit(link).query)["link"][0]
        browser.post("/login", data={"link": secret}).raise_for_status()
        page = browser.get("/").raise_for_status().text
        csrf = re.search(r'<meta name="csrf" content="([^"]+)">', page)
        assert csrf is not None, page[:2000]
        made = browser.post("/api/v1/tokens", json={"label": "tests"}, headers={"X-Forge-CSRF": csrf[1]})
        made.raise_for_status()
        return str(made.json()["secret"])


def make_project(folder: Path, pipeline: str = PIPELINE) -> Path:
    """Make a project in a folder; return the folder."""
    (folder / "forge").mkdir(parents=True, exist_ok=True)
    (folder / "forge/pipeline.yaml").write_text(pipeline)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of a small project, for one test."""
    running = Server(make_project(tmp_path / "shop"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a small project, for a module's tests."""
    running = Server(make_project(tmp_path_factory.mktemp("site") / "shop"))
    yield running
    running.stop()
