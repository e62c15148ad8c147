"""From the verdict to the route: how long until a split that was decided stands in the cluster, and is served.

Needs the test cluster (`python scripts/controlplane.py`), or FORGE_TEST_KUBECONFIG with one that runs; says so where
there is neither. The floor is one bare write of the same HTTPRoute.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from bench.figures import Figure, compare, spread

TESTS = Path(__file__).parents[1] / "tests"
ROUNDS = 40
VERSIONS = ("1.0", "1.1", "1.2")


def measure(rounds: int = ROUNDS) -> list[Figure]:
    """Change the split of three versions again and again."""
    sys.path.insert(0, str(TESTS))
    try:
        with cluster() as (kubeconfig, kubectl):
            return asyncio.run(_measured(kubeconfig, kubectl, rounds))
    except Missing as missing:
        return [Figure("verdict to route written, on Kubernetes", f"not measured: {missing}")]
    finally:
        sys.path.remove(str(TESTS))


class Missing(Exception):
    """There is no test cluster to be had here; says why."""


@contextlib.contextmanager
def cluster() -> Iterator[tuple[Path, Any]]:
    """Have a test cluster: its kubeconfig, and a kubectl in a namespace of one's own. Raises Missing."""
    from cluster.fixtures import fresh_namespace
    from cluster.plane import obtain
    from cluster.sharing import Cluster, NoCluster, shared_cluster

    given = os.environ.get("FORGE_TEST_KUBECONFIG")
    with contextlib.ExitStack() as stack:
        if given:
            cluster = Cluster(Path(given), Path(given).parent)
        else:
            module = obtain()
            try:
                module.find()
                cluster = stack.enter_context(shared_cluster())
            except (module.Unavailable, NoCluster) as problem:
                raise Missing(problem) from None
        namespace = stack.enter_context(fresh_namespace(cluster, "bench-route"))
        yield cluster.kubeconfig, cluster.kubectl(namespace)


async def _measured(kubeconfig: Path, kubectl: Any, rounds: int) -> list[Figure]:
    from cluster import routed_shops, shops
    from forge.adapters.routers.gateway_api import GatewayApiRouter
    from forge.model.configs import GatewayApiRouterConfig
    from forge.model.traffic import TrafficTable, Version

    namespace = kubectl.namespace
    kubectl.apply(*routed_shops.routes("gateway_api", namespace))
    with tempfile.TemporaryDirectory() as folder:
        shop = shops.Shop(kubeconfig, namespace, shops.written(Path(folder), shops.deployment(), shops.service()))
        for version in VERSIONS:
            await shop.ensure(Version(version), 1, None, 1)
        await _until_ready(shop)
    router = GatewayApiRouter(shop.cluster, "production", GatewayApiRouterConfig("shop"))
    calls = _Calls(shop.cluster.http())
    written, floor, served, requests = [], [], [], []
    for number in range(rounds):
        share = 100 + number * 200
        table = TrafficTable({"1.0": 10_000 - share, "1.1": share - 50, "1.2": 50}, number + 1)
        calls.count, began = 0, time.perf_counter()
        await router.apply(table, 1)
        written.append(time.perf_counter() - began)
        requests.append(calls.count)
        while await router.observed() != table:
            await asyncio.sleep(0.005)
        served.append(time.perf_counter() - began)
        floor.append(await _bare_write(shop.cluster, number))
    await shop.close()
    what = f"verdict to HTTPRoute written, {max(requests)} API calls"
    return [
        compare(what, written, floor, "one bare write of it"),
        Figure("verdict to split confirmed by the gateway", spread(served)),
    ]


class _Calls:
    """Counts what goes over a connection."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.count = 0
        client.event_hooks = {"request": [self._counted], "response": []}

    async def _counted(self, _request: httpx2.Request) -> None:
        self.count += 1


async def _bare_write(cluster: Any, number: int) -> float:
    from forge.adapters.kubernetes.kinds import HTTP_ROUTE

    change = {"metadata": {"annotations": {"bench": str(number)}}}
    began = time.perf_counter()
    await cluster.patch(HTTP_ROUTE, "shop", change)
    return time.perf_counter() - began


async def _until_ready(shop: Any, patience: float = 60.0) -> None:
    """Wait for pods, and for the Services that have to know them."""
    from forge.adapters.routers.backends import find_backends, ready_endpoints

    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(Exception):
            backends = await find_backends(shop.cluster, "production")
            ready = await ready_endpoints(shop.cluster, sorted(backends.names))
            if len(ready) == len(VERSIONS) and all(ready.values()):
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"the versions are not ready: {await shop.observe()}")
        await asyncio.sleep(0.2)
