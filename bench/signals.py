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
BOUNDS = ("0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf")
SERIES = VERSIONS * REPLICAS * (len(CODES) + len(BOUNDS))
LARGEST_STATE = 2 * 1024 * 1024
"""Bytes of what is saved between two looks at 1,000 versions."""
BEGIN = 1_790_000_000.0


class Store:
    """Answers every query for raw counters with all of them, as they were `look` scrapes after the beginning."""

    def __init__(self) -> None:
        self.look = 0
        self.bodies: dict[tuple[int, str], bytes] = {}
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"]))
                body = store.body(next((kind for kind in KINDS if f"{kind}%7B".encode() in asked), ""))
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

    def body(self, kind: str) -> bytes:
        if (self.look, kind) not in self.bodies:
            labels = [(version, replica, one) for version in range(VERSIONS) for replica in range(REPLICAS)
                      for one in KINDS.get(kind, ((), ""))[0]]  # fmt: skip
            self.bodies[self.look, kind] = _answer([_series(kind, *one, self.look) for one in labels])
        return self.bodies[self.look, kind]


KINDS = {"http_requests_total": (CODES, "code"), "http_request_duration_seconds_bucket": (BOUNDS, "le")}
"""What is kept, and which label tells its series apart."""


def _series(kind: str, version: int, replica: int, apart: str, look: int) -> dict[str, Any]:
    labels = {"__name__": kind, "version": f"v{version}", "pod": f"v{version}-{replica}", KINDS[kind][1]: apart,
              "instance": f"10.0.{version % 250}.{replica}:8080", "job": "shop"}  # fmt: skip
    values = [[BEGIN + (look + one) * INTERVAL, str(1000 + (look + one) * 17)] for one in range(3)]
    return {"metric": labels, "values": values}


def _answer(result: list[dict[str, Any]]) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


async def _no_secret(name: str) -> str:
    raise AssertionError(name)


def measure() -> list[Figure]:
    """Return the figure of one reading of all versions."""
    store, loop = Store(), asyncio.new_event_loop()
    config = {"http": {"url": store.url}, "preset": "plain", "interval": INTERVAL}
    plan = SourcePlan("prometheus", "prometheus", config)
    source = open_source(plan, SourceContext(EnvironmentPlan("production"), Path(), _no_secret))
    versions = [f"v{number}" for number in range(VERSIONS)]
    client = httpx.AsyncClient()

    def read() -> None:
        store.look += 1
        found = loop.run_until_complete(source.read(versions, BEGIN + (store.look + 2) * INTERVAL))
        assert len(found) == VERSIONS
        assert all(one.latency for one in found.values())

    async def fetch() -> None:
        answers = await asyncio.gather(*(client.post(store.url, data={"query": f"{kind}{{"}) for kind in (*KINDS, "x")))
        assert sum(len(json.loads(answer.content)["data"]["result"]) for answer in answers) == SERIES

    for store.look in range(ROUNDS + 3):
        for kind in (*KINDS, ""):
            store.body(kind)  # what the store itself costs is not measured
    store.look = 0
    read()
    ours, floor = in_turn(read, lambda: loop.run_until_complete(fetch()), ROUNDS)
    assert loop.run_until_complete(source.read(["v1"], BEGIN + (store.look + 2) * INTERVAL))["v1"].requests
    saved = len(json.dumps(source.state()))
    assert saved < LARGEST_STATE, f"the state of {VERSIONS} versions has {saved} bytes"
    loop.run_until_complete(source.close())
    loop.run_until_complete(client.aclose())
    store.server.shutdown()
    what = (
        f"read {VERSIONS} versions from Prometheus ({SERIES} series), decoded and added up;"
        f" {saved // 1024} KB are kept between two readings"
    )
    return [compare(what, ours, floor, "to POST and decode the same bytes")]
