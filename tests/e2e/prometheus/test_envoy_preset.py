"""The preset `envoy` against what a real Envoy tells of itself to a real Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forge.adapters.targets.local.proxy_process import binary


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def configuration(admin: int, listening: int, upstreams: dict[str, int]) -> dict[str, Any]:
    """An Envoy with a cluster for each version, chosen by the first part of the path."""
    routes = [
        {"match": {"prefix": f"/{name}"}, "route": {"cluster": name, "prefix_rewrite": "/"}} for name in upstreams
    ]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{
            "name": "router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    }  # fmt: skip
    filters = [{"name": "http", "typed_config": manager}]
    clusters = [
        {
            "name": name,
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
            },
        }
        for name, port in upstreams.items()
    ]
    listener = {"name": "in", "address": address(listening), "filter_chains": [{"filters": filters}]}
    return {
        "admin": {"address": address(admin)},
        "stats_flush_interval": "0.1s",  # histograms are told as of the last one
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


class Envoy:
    def __init__(self, folder: Path, admin: int, listening: int, upstreams: dict[str, int]) -> None:
        self.admin, self.listening = admin, listening
        file = folder / "envoy.json"
        file.write_text(json.dumps(configuration(admin, listening, upstreams)))
        command = [binary(), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn"]
        with (folder / "envoy.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def get(self, path: str) -> int:
        def ask() -> int:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.listening}{path}", timeout=5) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        for _ in range(200):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                return await asyncio.to_thread(ask)
            await asyncio.sleep(0.05)
        raise AssertionError("the proxy does not listen")

    async def timed(self, version: str) -> int:
        """How many durations it tells of itself, once that is the same for a second (its threads tell late)."""
        url = f"http://127.0.0.1:{self.admin}/stats/prometheus"
        counts = [-2, -1]
        while counts[-1] != counts[-2]:
            await asyncio.sleep(1)
            text = await asyncio.to_thread(lambda: _text(url))
            line = f'envoy_cluster_upstream_rq_time_count{{envoy_cluster_name="{version}"}} '
            counts.append(next((int(one.removeprefix(line)) for one in text.splitlines() if one.startswith(line)), -1))
        return counts[-1]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def envoy(world: Any, unused_tcp_port_factory: Any, tmp_path: Path) -> Iterator[Envoy]:
    world.serve("a", "1.0")
    world.ports["nobody"] = unused_tcp_port_factory()
    upstreams = {"shop-1-0": world.ports["a"], "shop-1-1": world.ports.pop("nobody")}
    found = Envoy(tmp_path, unused_tcp_port_factory(), unused_tcp_port_factory(), upstreams)
    listed = [{"targets": [f"127.0.0.1:{found.admin}"], "labels": {"__metrics_path__": "/stats/prometheus"}}]
    world.targets.write_text(json.dumps(listed))
    try:
        yield found
    finally:
        found.stop()


async def test_versions_are_counted_as_the_proxy_saw_them(world: Any, envoy: Envoy) -> None:
    await world.request("a")
    for _ in range(5):
        assert await envoy.get("/shop-1-0") == 200
        assert await envoy.get("/shop-1-1") == 503
    before = await envoy.timed("shop-1-0")
    source = world.source(preset="envoy", version="envoy_cluster_name", pattern="shop-$version")
    both = ["1.0", "1.1", "11.0"]
    first = await world.until(source, both, lambda found: len(found) == 2 and bool(found["1.0"].latency))
    assert "11.0" not in first
    assert (first["1.0"].requests, first["1.0"].errors) == (0, 0)
    for _ in range(20):
        assert await envoy.get("/shop-1-0") == 200
    for _ in range(3):
        assert await envoy.get("/shop-1-1") == 503  # nobody listens there: the version itself could not tell
    found = await world.until(source, both, lambda read: (read["1.0"].requests, read["1.1"].requests) == (20, 3))
    assert (found["1.0"].errors, found["1.1"].errors) == (0, 3)
    told = await envoy.timed("shop-1-0") - before
    assert told > 0
    timed = await world.until(source, both, lambda read: read["1.0"].latency[-1] == (float("inf"), told))
    assert dict(timed["1.0"].latency)[10.0] == told, "the bounds are in seconds"
    for result in await source.examine(["1.0"], first["1.0"].at):
        assert not result.problem
