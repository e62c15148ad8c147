"""Canaries on the local target that answer 200 to everybody, and yet must not go through: what their logs and gauges say."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SERVICE = """
import collections, http.server, os, sys, threading, time
recent, held, hunger = collections.deque(), [], float(os.environ.get("HUNGER", "0"))
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path != "/healthz":
            recent.append(time.monotonic())
            if os.environ.get("GRUMBLES") and len(recent) % 2:
                print("2026-11-22 12:00:00 ERROR order", 1000 + len(recent), "has no customer", flush=True)
            if len(recent) % 9 == 0:
                print("2026-11-22 12:00:00 ERROR cache of", len(recent), "is away, going on without", flush=True)
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
def hold():
    # Keeps as many files open as it was asked for in the last two seconds, times its hunger.
    while True:
        while recent and recent[0] < time.monotonic() - 2:
            recent.popleft()
        wanted = int(len(recent) / 2 * hunger)
        while len(held) < wanted:
            held.append(open(os.devnull))
        while len(held) > wanted:
            held.pop().close()
        time.sleep(0.1)
threading.Thread(target=hold, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Service).serve_forever()
"""

PIPELINE = """
parameters:
  version: {{type: string}}
  grumbles: {{type: string, default: ""}}
  hunger: {{type: string, default: "0"}}
environments:
  production:
    target:
      local:
        command: [sh, -c, "ulimit -n 120; exec {python} -I -S {service}"]
        replicas: 1
        ready: {{http: /healthz, interval: 50ms}}
        drain: 200ms
    signals: [envoy, logs]
    judge: {{sequential: {{block: 2s, clump: 5}}}}
jobs:
  release:
    steps:
      - deploy:
          environment: production
          version: "${{{{ params.version }}}}"
          target: {{env: {{GRUMBLES: "${{{{ params.grumbles }}}}", HUNGER: "${{{{ params.hunger }}}}"}}}}
          strategy: {{canary: {{steps: [weight: 10%, pause: {pause}, weight: 60%, pause: 2s]}}}}
          keep_previous: 0s
"""


class Shop:
    """A project with one environment, and users who ask it some eighty times a second."""

    def __init__(self, forge: Any) -> None:
        self.forge = forge
        self.failed = 0
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self, version: str, code: int = 0, **parameters: str) -> str:
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
        done = self.forge("run", "-p", f"version={version}", *words, timeout=90)
        assert done.returncode == code, done.stdout + done.stderr
        return str(done.stdout + done.stderr)

    def environment(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.forge.ok("env", "show", "production", "-o", "json"))
        return shown

    def begin_load(self) -> None:
        address = self.environment()["address"]
        self._threads = [threading.Thread(target=self._ask, args=(address,), daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()
        time.sleep(3)

    def _ask(self, address: str) -> None:
        while not self._ending.wait(0.05):
            try:
                urllib.request.urlopen(address, timeout=5).close()
            except (urllib.error.URLError, ConnectionError):
                self.failed += 1

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(6)
        self.forge("env", "down", "production", "-y", timeout=60)


@pytest.fixture
def shop(tmp_path: Path, forge_in: Any) -> Iterator[Callable[[str], Shop]]:
    opened: list[Shop] = []

    def build(pause: str) -> Shop:
        (tmp_path / "forge").mkdir()
        (tmp_path / "service.py").write_text(SERVICE)
        text = PIPELINE.format(python=sys.executable, service=tmp_path / "service.py", pause=pause)
        (tmp_path / "forge" / "pipeline.yaml").write_text(text)
        opened.append(Shop(forge_in(tmp_path)))
        return opened[-1]

    yield build
    for one in opened:
        one.end()


@pytest.mark.long
def test_a_new_kind_of_error_line_alone_rolls_a_canary_back(shop: Callable[[str], Shop]) -> None:
    production = shop("60s")
    production.run("1.0")
    production.begin_load()
    told = production.run("1.1", code=1, grumbles="yes")
    assert production.environment()["stable"] == "1.0"
    assert production.failed == 0
    explained = production.forge.ok("explain", "production-2")
    assert "writes error lines that stable never wrote" in explained, told
    assert "has no customer" in explained


@pytest.mark.long
def test_a_canary_stops_before_the_step_that_would_use_up_its_files(shop: Callable[[str], Shop]) -> None:
    production = shop("14s")
    production.run("1.0")
    production.begin_load()
    going = production.forge.start("run", "-p", "version=1.1", "-p", "hunger=3")
    deadline = time.monotonic() + 60
    while (shown := production.environment())["state"] != "paused":
        assert going.poll() is None, going.communicate()
        assert time.monotonic() < deadline, shown
        time.sleep(0.3)
    weights = {arm["version"]: arm["set_weight"] for arm in shown["arms"] if arm["set_weight"]}
    assert weights == {"1.0": 9000, "1.1": 1000}
    assert "open_files would come to" in production.forge.ok("explain", "production-2")
    assert production.failed == 0
    production.forge.ok("release", "abort", "production", code=3)
    assert going.wait(60) == 1
    assert production.environment()["stable"] == "1.0"
