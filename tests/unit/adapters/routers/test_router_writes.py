"""How routers write: what they ask first, what they do when somebody writes in between, and what they never drop."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.routed_objects import http_route, ingress
from cluster.scripted_api import Answer, Request, ScriptedApi, listing, status
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.naming import labels_of
from forge.adapters.routers.gateway_api import GatewayApiRouter
from forge.adapters.routers.ingress_nginx import IngressNginxRouter
from forge.adapters.routers.istio import IstioRouter
from forge.adapters.routers.replicas import ReplicasRouter
from forge.model.configs import (
    GatewayApiRouterConfig,
    IngressNginxRouterConfig,
    IstioRouterConfig,
    KubernetesAccess,
    ReplicasRouterConfig,
)
from forge.model.errors import DependencyFailed, UsageError
from forge.model.traffic import TrafficTable

ROUTE = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/shop"
TABLE = TrafficTable({"1.0": 9000, "1.1": 1000}, 1)


class Objects:
    """An apiserver's memory of the few objects that a router needs; `between` acts before each write."""

    def __init__(self) -> None:
        self.ready = {"shop-1-0": [True], "shop-1-1": [True, False]}
        self.objects: dict[str, Any] = {}
        self.versions = ["1.0", "1.1"]
        self.conflicts = 0
        self.writes: list[Request] = []

    def play(self, request: Request) -> Answer:
        if request.path.endswith("/services"):
            return listing([self._service(version) for version in self.versions], "1")
        if request.path.endswith("/endpointslices"):
            return listing([self._slice(name, each) for name, each in self.ready.items() if name in request.query], "1")
        if request.path.endswith("/ingresses") and request.method == "GET":
            return listing([], "1")
        if request.method == "GET":
            found = self.objects.get(request.path)
            return Answer(body=found) if found else status(404, "not found", reason="NotFound")
        self.writes.append(request)
        if self.conflicts:
            self.conflicts -= 1
            return status(409, "the object has been modified", reason="Conflict")
        if request.method == "DELETE":
            return Answer(body=self.objects.pop(request.path, None) or {})
        body = json.loads(request.body)
        path = request.path if request.method == "PUT" else f"{request.path}/{body['metadata']['name']}"
        self.objects[path] = body
        return Answer(body=body)

    def _service(self, version: str) -> Any:
        notes = {"forge.dev/version-id": version, "forge.dev/service": "shop"}
        name = f"shop-{version.replace('.', '-')}"
        return {"metadata": {"name": name, "labels": labels_of("production"), "annotations": notes}}

    def _slice(self, name: str, ready: list[bool]) -> Any:
        endpoints = [{"addresses": ["10.0.0.1"], "conditions": {"ready": each}} for each in ready]
        return {"metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}}, "endpoints": endpoints}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[tuple[Objects, Cluster]]:
    objects = Objects()
    api = ScriptedApi(objects.play)
    await api.start()
    cluster = Cluster(KubernetesAccess(kubeconfig=api.kubeconfig(tmp_path), namespace="shop"))
    yield objects, cluster
    await cluster.close()
    await api.stop()


def gateway(cluster: Cluster) -> GatewayApiRouter:
    return GatewayApiRouter(cluster, "production", GatewayApiRouterConfig("shop"))


async def test_a_field_that_the_cluster_would_drop_is_refused_by_it(stage) -> None:
    """Half of the requests mirrored would become all of them where `fraction` is not known."""
    objects, cluster = stage
    objects.objects[ROUTE] = http_route()
    await gateway(cluster).apply(TABLE, 1)
    (write,) = [each for each in objects.writes if each.path == ROUTE]
    assert "fieldValidation=Strict" in write.query
    assert "fieldManager=forge" in write.query


async def test_somebody_who_writes_in_between_is_not_overwritten(stage) -> None:
    objects, cluster = stage
    objects.objects[ROUTE] = http_route()
    router = gateway(cluster)
    await router.apply(TABLE, 1)
    objects.conflicts = 2
    objects.objects[ROUTE]["spec"]["rules"][1]["timeouts"] = {"request": "1s"}
    await router.apply(TrafficTable({"1.0": 10_000}, 2), 1)
    written = objects.objects[ROUTE]
    assert written["spec"]["rules"][1]["timeouts"] == {"request": "1s"}
    assert [ref["weight"] for ref in written["spec"]["rules"][1]["backendRefs"]] == [10_000]
    objects.conflicts = 99
    with pytest.raises(DependencyFailed, match="modified"):
        await router.apply(TrafficTable({"1.1": 10_000}, 3), 1)


@pytest.mark.parametrize("make", [
    lambda cluster: gateway(cluster),
    lambda cluster: IstioRouter(cluster, "production", IstioRouterConfig("shop")),
    lambda cluster: IngressNginxRouter(cluster, "production", IngressNginxRouterConfig("shop")),
    lambda cluster: ReplicasRouter(cluster, "production", ReplicasRouterConfig()),
])  # fmt: skip
async def test_no_router_sends_traffic_where_nobody_answers(stage, make) -> None:
    objects, cluster = stage
    objects.objects[ROUTE] = http_route()
    objects.objects["/apis/networking.k8s.io/v1/namespaces/shop/ingresses/shop"] = ingress()
    objects.ready["shop-1-1"] = [False]
    with pytest.raises(DependencyFailed) as raised:
        await make(cluster).apply(TABLE, 1)
    assert "no ready endpoint of 1.1" in raised.value.message or "has no VirtualService" in raised.value.message
    assert all("configmaps" in each.path for each in objects.writes)


async def test_an_endpoint_that_leaves_does_not_count_and_one_that_says_nothing_does(stage) -> None:
    objects, cluster = stage
    objects.objects[ROUTE] = http_route()
    objects.ready["shop-1-1"] = []
    with pytest.raises(DependencyFailed, match=r"no ready endpoint of 1\.1"):
        await gateway(cluster).apply(TABLE, 1)
    objects.ready["shop-1-1"] = [None]  # type: ignore[list-item]
    await gateway(cluster).apply(TABLE, 1)


@pytest.mark.parametrize("name", ["gateway_api", "ingress_nginx"])
async def test_a_service_that_somebody_deletes_is_told(stage, name) -> None:
    objects, cluster = stage
    objects.objects[ROUTE] = http_route()
    objects.objects["/apis/networking.k8s.io/v1/namespaces/shop/ingresses/shop"] = ingress()
    router: Any = gateway(cluster)
    if name == "ingress_nginx":
        router = IngressNginxRouter(cluster, "production", IngressNginxRouterConfig("shop", propagation=0.0))
    await router.apply(TABLE, 1)
    objects.versions = ["1.0"]
    seen = await router.observed()
    assert seen is not None
    assert (seen.weights, seen.generation) == ({"1.0": 10_000}, -1)
    assert router.remark == "the Service of 1.1 was deleted by somebody: no traffic reaches what it had"
    with pytest.raises(DependencyFailed, match=r"1\.1 has no Service yet"):
        await router.apply(TABLE, 1)


async def test_an_ingress_in_another_namespace_cannot_send_here(stage) -> None:
    _, cluster = stage
    router = IngressNginxRouter(cluster, "production", IngressNginxRouterConfig("shop", namespace="edge"))
    with pytest.raises(UsageError, match="is in edge, and can only send to Services of that namespace"):
        await router.apply(TABLE, 1)


async def test_ingresses_are_written_in_the_order_that_leaves_no_gap(stage) -> None:
    objects, cluster = stage
    main = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/shop"
    objects.objects[main] = ingress()
    router = IngressNginxRouter(cluster, "production", IngressNginxRouterConfig("shop"))

    async def order(table: TrafficTable) -> list[str]:
        objects.writes.clear()
        await router.apply(table, 1)
        names = [f"{each.method} {each.path.rpartition('/')[2]}" for each in objects.writes]
        return [name for name in names if "configmaps" not in name and "forge-production" not in name]

    assert await order(TrafficTable({"1.0": 10_000}, 1)) == ["PUT shop"]
    # The canary exists before anything is told to be split: the main Ingress keeps its version.
    assert await order(TrafficTable({"1.0": 5000, "1.1": 5000}, 2)) == ["POST ingresses", "PUT shop"]
    # The main Ingress is turned first, while the canary still sends its half to the same version.
    assert await order(TrafficTable({"1.1": 10_000}, 3)) == ["PUT shop", "DELETE shop-forge-canary"]
    backend = objects.objects[main]["spec"]["rules"][0]["http"]["paths"][1]["backend"]
    assert backend["service"]["name"] == "shop-1-1"


@pytest.mark.parametrize(("spec", "status_", "address"), [
    ({"listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}]}, [{"value": "192.0.2.1"}], "http://192.0.2.1"),
    ({"listeners": [{"name": "web", "port": 8443, "protocol": "HTTPS"}]}, [{"value": "gw.example"}], "https://gw.example:8443"),
    ({"listeners": [{"name": "web", "port": 81, "protocol": "HTTP"}]}, [{"value": "2001:db8::1"}], "http://[2001:db8::1]:81"),
    ({"listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}]}, [], ""),
])  # fmt: skip
async def test_the_address_is_that_of_the_gateway(stage, spec, status_, address) -> None:
    objects, cluster = stage
    objects.objects[ROUTE] = http_route()
    gateways = ROUTE.replace("httproutes/shop", "gateways/public")
    objects.objects[gateways] = {"metadata": {"name": "public"}, "spec": spec, "status": {"addresses": status_}}
    assert await gateway(cluster).address() == address
    configured = GatewayApiRouter(cluster, "production", GatewayApiRouterConfig("shop", address="http://here"))
    assert await configured.address() == "http://here"


async def test_the_address_of_an_ingress_is_its_host(stage) -> None:
    objects, cluster = stage
    objects.objects["/apis/networking.k8s.io/v1/namespaces/shop/ingresses/shop"] = ingress()
    router = IngressNginxRouter(cluster, "production", IngressNginxRouterConfig("shop"))
    assert await router.address() == "https://shop.example"


RECORD = "/api/v1/namespaces/shop/configmaps/forge-production"


@pytest.mark.parametrize(("ready", "seen", "generation"), [
    ({"shop-1-0": [True], "shop-1-1": [True]}, {"1.0": 5000, "1.1": 5000}, 3),
    ({"shop-1-0": [True, True, True], "shop-1-1": [True]}, {"1.0": 7500, "1.1": 2500}, 3),
    ({"shop-1-0": [False], "shop-1-1": [True, True]}, {"1.1": 10_000}, 3),
    ({"shop-1-0": [], "shop-1-1": [True]}, {"1.1": 10_000}, 3),
    ({"shop-1-0": [True], "shop-1-1": [False]}, {"1.0": 10_000}, -1),
])  # fmt: skip
async def test_without_a_router_whoever_is_ready_carries_requests_whatever_was_asked(
    stage, ready, seen, generation
) -> None:
    """A version at 0 that is ready still has its share: nobody may believe that it is out."""
    objects, cluster = stage
    router = ReplicasRouter(cluster, "production", ReplicasRouterConfig())
    await router.apply(TrafficTable({"1.1": 10_000}, 3), 1)
    objects.ready = ready
    found = await router.observed()
    assert found is not None
    assert (found.weights, found.generation) == (seen, generation)
    assert bool(router.remark) == (seen != {"1.1": 10_000})
