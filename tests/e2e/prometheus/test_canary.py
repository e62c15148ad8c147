"""A canary on the local target whose requests are counted by a real Prometheus alone."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SERVICE = """
import http.server, os, random, threading, uuid
bad, counts, lock = float(os.environ.get("BAD", "0")), {"200": 0, "500": 0}, threading.Lock()
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body, code, kind = b"ok", 200, "text/plain"
        if self.path == "/metrics":
            lines = ["# TYPE http_requests counter"]
            lines += [f'http_requests_total{{code="{code}"}} {n}' for code, n in counts.items()]
            n, trace = sum(counts.values()), uuid.uuid4().hex
            lines += ["# TYPE http_request_duration_seconds histogram"]
            lines += [f'http_request_duration_seconds_bucket{{le="0.5"}} {n} # {{trace_id="{trace}"}} 0.02']
            lines += [f'http_request_duration_seconds_bucket{{le="+Inf"}} {n}', f"http_request_duration_seconds_count {n}"]
            body, kind = "\\n".join([*lines, "# EOF", ""]).encode(), "application/openmetrics-text; version=1.0.0"
        elif self.path != "/healthz":
            code = 500 if random.random() < bad else 200
            with lock:
                counts[str(code)] += 1
        self.send_response(code); self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Service).serve_forever()
"""

PIPELINE = """
parameters:
  version: {{type: string}}
  bad: {{type: string, default: "0"}}
environments:
  production:
    target:
      local:
        command: [{python}, -I, -S, {service}]
        replicas: 2
        ready: {{http: /healthz, interval: 50ms}}
        drain: 200ms
    signals:
      prometheus: {{url: {url}, preset: plain, interval: 250ms, trace_url: "https://tempo.example/$trace"}}
jobs:
  release:
    steps:
      - deploy:
          environment: production
          version: "${{{{ params.version }}}}"
          target: {{env: {{BAD: "${{{{ params.bad }}}}"}}}}
          strategy: {{canary: {{steps: [weight: 20%, pause: 4s, weight: 50%, pause: 2s]}}}}
          keep_previous: 0s
"""


class Load:
    """Some sixty requests a second to the environment, until it is ended."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.failed = 0
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._ending.wait(0.05):
            try:
                urllib.request.urlopen(self.address, timeout=5).close()
            except (urllib.error.URLError, ConnectionError):
                self.failed += 1

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(6)


class Releases:
    """The `forge` command in a project that knows its traffic from a Prometheus."""

    def __init__(self, forge: Any, world: Any) -> None:
        self.forge, self.world = forge, world
        self.load: Load | None = None

    def run(self, version: str, bad: str = "0", code: int = 0) -> str:
        return str(self.forge.ok("run", "-p", f"version={version}", "-p", f"bad={bad}", code=code, timeout=60))

    def environment(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.forge.ok("env", "show", "production", "-o", "json"))
        return shown

    def begin_load(self) -> None:
        self.load = Load(self.environment()["address"])
        time.sleep(2)


@pytest.fixture
def releases(tmp_path: Path, forge_in: Any, world: Any) -> Iterator[Releases]:
    project = tmp_path / "project"
    (project / "forge").mkdir(parents=True)
    (project / "service.py").write_text(SERVICE)
    text = PIPELINE.format(
        python=json.dumps(sys.executable), service=json.dumps(str(project / "service.py")), url=world.url
    )  # fmt: skip
    (project / "forge" / "pipeline.yaml").write_text(text)
    world.stop_server()
    world.targets = project / ".forge" / "environments" / "production" / "prometheus-targets.json"
    world.start()
    found = Releases(forge_in(project), world)
    try:
        yield found
    finally:
        if found.load is not None:
            found.load.end()
        found.forge("env", "down", "production", "-y", timeout=60)


@pytest.mark.long
def test_a_good_version_goes_through_and_a_bad_one_comes_back(releases: Releases) -> None:
    releases.run("1.0")
    releases.begin_load()
    releases.run("1.1")
    assert releases.environment()["stable"] == "1.1"
    releases.run("1.2", bad="0.5", code=1)
    shown = releases.environment()
    assert shown["stable"] == "1.1"
    told = releases.forge.ok("explain", "production-3")
    assert "rolled back after" in told
    assert "failed" in told
    tested = releases.forge.json("signals", "test", "production")
    (source,) = tested
    requests = next(query for query in source["queries"] if query["name"] == "requests")
    assert requests["values"]["1.1"] > 0
    of_both = releases.forge.json("signals", "traces", "production")
    assert {one["version"] for one in of_both} == {"1.1", "1.2"}
    of_one = releases.forge.ok("signals", "traces", "production", "--release", "production-3", "--version", "1.2")
    newest = next(one for one in of_both if one["version"] == "1.2")
    assert f"https://tempo.example/{newest['trace']}" in of_one
    assert "20 ms" in of_one


@pytest.mark.long
async def test_without_prometheus_a_canary_waits_and_then_goes_on(releases: Releases) -> None:
    releases.run("1.0")
    releases.begin_load()
    going = releases.forge.start("run", "-p", "version=1.1")
    await _until(lambda: any(arm["version"] == "1.1" and arm["set_weight"] for arm in releases.environment()["arms"]))
    releases.world.stop_server()
    await asyncio.sleep(8)
    waiting = releases.environment()
    assert waiting["stable"] == "1.0"
    assert {arm["version"]: arm["set_weight"] for arm in waiting["arms"] if arm["set_weight"]} == {
        "1.0": 8000,
        "1.1": 2000,
    }
    releases.world.start()
    assert await asyncio.to_thread(going.wait, 60) == 0
    assert releases.environment()["stable"] == "1.1"


async def _until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.2)
