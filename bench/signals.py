"""What one reading of 1,000 versions costs from Prometheus, against fetching and decoding the same bytes."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from pathlib import Path
from typing import Any

import httpx2 as httpx

from bench.figures import Figure, compare, in_turn
from forge.adapters.signals.registry import SourceContext, open_source
from forge.model.plan import EnvironmentPlan, SourcePlan

VERSIONS, REPLICAS, INTERVAL, ROUNDS = 1_000, 2, 15.0, 7
CODES = ("200", "404", "500")
BEGIN = 1_790_000_000.0


class Store:
    """Answers every query for raw counters with all of them, as they were `look` scrapes after the beginning."""

    def __init__(self) -> None:
        self.look = 0
        self.bodies: dict[int, bytes] = {}
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"]))
                body = store.body() if b"http_requests_total" in asked else EMPTY
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def body(self) -> bytes:
        if self.look not in self.bodies:
            self.bodies[self.look] = _answer([_series(v, r, code, self.look) for v in range(VERSIONS)
                                              for r in range(REPLICAS) for code in CODES])  # fmt: skip
        return self.bodies[self.look]


def _series(version: int, replica: int, code: str, look: int) -> dict[str, Any]:
    labels = {"__name__": "http_requests_total", "version": f"v{version}", "pod": f"v{version}-{replica}",
              "code": code, "instance": f"10.0.{version % 250}.{replica}:8080", "job": "shop"}  # fmt: skip
    values = [[BEGIN + (look + one) * INTERVAL, str(1000 + (look + one) * 17)] for one in range(3)]
    return {"metric": labels, "values": values}


def _answer(result: list[dict[str, Any]]) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


EMPTY = _answer([])


async def _no_secret(name: str) -> str:
    raise AssertionError(name)


def measure() -> list[Figure]:
    """Return the figure of one reading of all versions."""
    store, loop = Store(), asyncio.new_event_loop()
    config = {"http": {"url": store.url}, "preset": "plain", "histogram": "", "interval": INTERVAL}
    plan = SourcePlan("prometheus", "prometheus", config)
    source = open_source(plan, SourceContext(EnvironmentPlan("production"), Path(), _no_secret))
    versions = [f"v{number}" for number in range(VERSIONS)]
    client = httpx.AsyncClient()

    def read() -> None:
        store.look += 1
        store.body()
        found = loop.run_until_complete(source.read(versions, BEGIN + (store.look + 2) * INTERVAL))
        assert len(found) == VERSIONS

    async def fetch() -> None:
        answer = await client.post(f"{store.url}/", data={"query": "http_requests_total"})
        assert len(json.loads(answer.content)["data"]["result"]) == VERSIONS * REPLICAS * len(CODES)

    for look in range(ROUNDS + 2):
        store.look = look
        store.body()
    store.look = 0
    read()
    ours, floor = in_turn(read, lambda: loop.run_until_complete(fetch()), ROUNDS)
    assert loop.run_until_complete(source.read(["v1"], BEGIN + (store.look + 2) * INTERVAL))["v1"].requests
    loop.run_until_complete(source.close())
    loop.run_until_complete(client.aclose())
    store.server.shutdown()
    what = f"read {VERSIONS} versions from Prometheus ({VERSIONS * REPLICAS * len(CODES)} series), decoded and added up"
    return [compare(what, ours, floor, "to POST and decode the same bytes")]
