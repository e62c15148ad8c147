"""What a real Prometheus scrapes of the test cluster's gateway is what Forge's presets read in production."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import gateway_shops as shops
from cluster.access import Kubectl, until
from cluster.gateway import FrontDoors
from cluster.gateway_load import ask
from cluster.sharing import Cluster
from forge.adapters.signals.base import Reading, Source
from forge.adapters.signals.registry import SourceContext, open_source
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan, SourcePlan

pytestmark = pytest.mark.kubernetes
OPEN = "envoy_gateway", "istio", "ingress_nginx"


async def no_secret(name: str) -> str:
    raise AssertionError(name)


@pytest.fixture
async def sources(pod_prometheus: str, tmp_path: Path) -> AsyncIterator[dict[str, Source]]:
    """A source for each preset, reading the same Prometheus."""
    context = SourceContext(EnvironmentPlan("production"), tmp_path, no_secret)
    found = {}
    for preset in OPEN:
        settings = {"http": {"url": pod_prometheus}, "preset": preset, "interval": 1.0}
        found[preset] = open_source(SourcePlan("prometheus", "metrics", settings), context)
    yield found
    for source in found.values():
        await source.close()


async def read_until(source: Source, holds: Callable[[dict[str, Reading]], bool]) -> dict[str, Reading]:
    deadline, last = time.monotonic() + 25, None
    while time.monotonic() < deadline:
        try:
            last = await source.read(["good", "bad"], time.time())
            if holds(last):
                return last
        except DependencyFailed:
            pass
        await asyncio.sleep(0.25)
    raise AssertionError(f"it never came to that; last: {last}")


async def test_the_presets_of_all_routers_count_what_clients_met(
    cluster: Cluster, kubectl: Kubectl, sources: dict[str, Any]
) -> None:
    doors, host = FrontDoors(lambda path: cluster.api("GET", path)), f"shop.{kubectl.namespace}.example"
    bad = [shops.workload("shop", "bad", 1, {"STATUS": "503"}), shops.service("shop", "bad")]
    header = {"headers": [{"name": "x-bad", "value": "1"}]}
    kubectl.apply(
        *shops.versions("shop", "good", replicas=1), *bad, shops.gateway(),
        shops.http_route("shop", [{"matches": [header], "backendRefs": shops.weighted("shop", bad=1)},
                                  {"backendRefs": shops.weighted("shop", good=1)}]),
        shops.virtual_service("shop", [
            {"match": [{"headers": {"x-bad": {"exact": "1"}}}], "route": shops.destinations("shop", bad=100)},
            {"route": shops.destinations("shop", good=100)}]),
        shops.ingress("shop", "shop-good", host),
        shops.ingress("shop-canary", "shop-bad", host, canary_by_header="x-bad", canary_by_header_value="1"),
    )  # fmt: skip
    for version in ("good", "bad"):
        kubectl.ok("rollout", "status", f"deployment/shop-{version}", "--timeout=50s")
    where = {
        "envoy_gateway": (doors.gateway(kubectl.namespace, "edge"), ""),
        "istio": (doors.istio, f"shop.{kubectl.namespace}"),
        "ingress_nginx": (doors.ingress, host),
    }
    for url, name in where.values():
        until(lambda url=url, name=name: ask(url, host=name)[0] == 200, f"{url} to serve", 15)
        until(lambda url=url, name=name: ask(url, host=name, headers={"x-bad": "1"})[1] == "bad", "the bad one", 15)
    for preset, source in sources.items():
        await read_until(source, lambda found: found.keys() >= {"good", "bad"} and bool(found["good"].latency))
        url, name = where[preset]
        for _ in range(20):
            assert ask(url, host=name)[0] == 200
        for _ in range(6):
            assert ask(url, host=name, headers={"x-bad": "1"})[0] == 503
    for preset, source in sources.items():
        found = await read_until(source, lambda read: (read["good"].requests, read["bad"].requests) == (20, 6))
        assert (found["good"].errors, found["bad"].errors) == (0, 6), preset
        timed = await read_until(source, lambda read: bool(read["good"].latency) and read["good"].latency[-1][1] >= 20)
        bounds = dict(timed["good"].latency)
        assert bounds[5.0] >= 20, f"{preset}: the bounds are in seconds"
