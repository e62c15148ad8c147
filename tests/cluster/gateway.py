"""The test cluster's gateway: an Envoy that serves what the cluster's own objects say.

Gateway API, Istio, ingress-nginx and plain Services, each read by a class of its own, are written to one Envoy.
Statuses are written when Envoy has taken the change, never before. Where to connect: `front_doors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx2

from cluster.gateway_ingress import CLASS, IngressNginx
from cluster.gateway_istio import Istio
from cluster.gateway_model import Backend, Door, StatusPatch, World
from cluster.gateway_proxy import Proxy
from cluster.gateway_routes import CONTROLLER, GatewayApi
from cluster.gateway_services import Services, endpoints_of
from cluster.node_addresses import AddressBlock, unprivileged
from cluster.node_api import Api, Key, Mirror, Object, Refused

GATEWAY_CLASS = "forge-test"
WHERE = "/api/v1/namespaces/kube-system/configmaps/test-gateway"
"""A ConfigMap that tells where the doors are which no object of the cluster tells."""
_ADMIN_PORT = 9901
_TOGETHER = 0.02
"""Seconds in which changes are gathered: objects often change in groups."""
_AGAIN = 5.0
log = logging.getLogger(__name__)
SOURCES = {
    "gateway_classes": "/apis/gateway.networking.k8s.io/v1/gatewayclasses",
    "gateways": "/apis/gateway.networking.k8s.io/v1/gateways",
    "http_routes": "/apis/gateway.networking.k8s.io/v1/httproutes",
    "virtual_services": "/apis/networking.istio.io/v1/virtualservices",
    "destination_rules": "/apis/networking.istio.io/v1/destinationrules",
    "ingresses": "/apis/networking.k8s.io/v1/ingresses",
    "services": "/api/v1/services",
    "pods": "/api/v1/pods",
}


class Gateway:
    """One gateway for one cluster; `folder` is its alone."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.api = Api(kubeconfig)
        self.world = World()
        self._block, self._service_block = AddressBlock(), AddressBlock()
        self._gateway_addresses: dict[Key, str] = {}
        self.proxy = Proxy(folder.resolve(), (self._block.at(2), _ADMIN_PORT))
        self.gateway_api = GatewayApi(self._gateway_address)
        self.istio, self.nginx = Istio(self._block.at(3)), IngressNginx(self._block.at(4))
        self.services = Services(self._service_block)
        self._dirty, self._served = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start Envoy and follow the cluster; return when what the cluster says now is served."""
        await self.proxy.start()
        await self._introduce()
        mirrors = [self._mirror(name, path) for name, path in SOURCES.items()]
        slices = Mirror(self.api, "/apis/discovery.k8s.io/v1/endpointslices", self._slice_changed)
        self._tasks = [asyncio.create_task(each.run()) for each in (*mirrors, slices)]
        await asyncio.wait_for(asyncio.gather(*(each.listed.wait() for each in (*mirrors, slices))), 30)
        self._tasks.append(asyncio.create_task(self._keep_serving()))
        self._dirty.set()
        await asyncio.wait_for(self._served.wait(), 30)

    async def stop(self) -> None:
        """End everything; the cluster's objects stay as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.proxy.stop()
        await self.api.close()
        self._block.close()
        self._service_block.close()

    def _gateway_address(self, namespace: str, name: str) -> str:
        return self._gateway_addresses.setdefault((namespace, name), self._block.take())

    def _mirror(self, name: str, path: str) -> Mirror:
        mirror = Mirror(self.api, path, self._pod_changed if name == "pods" else self._changed)
        setattr(self.world, name, mirror.objects)
        return mirror

    def _changed(self, key: Key, before: Object | None, after: Object | None) -> None:
        self._dirty.set()

    def _pod_changed(self, key: Key, before: Object | None, after: Object | None) -> None:
        if self.world.destination_rules:  # only subsets ask for the labels of pods
            self._dirty.set()

    def _slice_changed(self, key: Key, before: Object | None, after: Object | None) -> None:
        self.world.take_slice(before, after)
        self._dirty.set()

    async def _introduce(self) -> None:
        """Make the classes of gateways and ingresses, and tell where the doors are."""
        gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
                   "metadata": {"name": GATEWAY_CLASS}, "spec": {"controllerName": CONTROLLER}}  # fmt: skip
        ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": CLASS},
                   "spec": {"controller": "k8s.io/ingress-nginx"}}  # fmt: skip
        stats = f"http://{self.proxy.admin[0]}:{self.proxy.admin[1]}/stats/prometheus"
        where = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "test-gateway"}, "data": {
            "istio": f"http://{self.istio.address}:{self.istio.port}", "stats": stats,
            "ingress": f"http://{self.nginx.address}:{self.nginx.port}", "services": self._service_block.at(0),
        }}  # fmt: skip
        await self._put(f"/apis/gateway.networking.k8s.io/v1/gatewayclasses/{GATEWAY_CLASS}", gateway)
        await self._put(f"/apis/networking.k8s.io/v1/ingressclasses/{CLASS}", ingress)
        await self._put(WHERE, where)

    async def _put(self, path: str, thing: Object) -> None:
        try:
            params = {"fieldManager": "test-gateway", "force": "true"}
            await self.api.ask("PATCH", path, thing, kind="apply-patch+yaml", **params)
        except Refused as refusal:
            if refusal.status != 404:  # no such CRD: nobody will ask for it
                raise

    async def _keep_serving(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dirty.wait(), _AGAIN)
            await asyncio.sleep(_TOGETHER)
            self._dirty.clear()
            try:
                await self._serve()
                self._served.set()
            except (httpx2.HTTPError, Refused) as error:
                log.warning("not served yet: %r", error)
                await asyncio.sleep(0.2)
                self._dirty.set()
            except Exception:
                log.exception("the gateway does not understand what the cluster says")
                await asyncio.sleep(0.5)

    async def _serve(self) -> None:
        """Serve the cluster as it is now, and tell those objects that have a status."""
        world = self.world
        doors = [
            door for each in (self.gateway_api, self.istio, self.nginx, self.services) for door in each.doors(world)
        ]
        backends = backends_of(doors)
        for name, backend in {each.endpoints: each for each in backends}.items():
            self.proxy.write_endpoints(name, endpoints_of(backend, world))
        statuses = [*self.gateway_api.statuses(world), *self.nginx.statuses(world)]
        began = time.monotonic()
        if not await self.proxy.serve(doors, backends):
            log.warning("Envoy has not taken the change within %.1f s", time.monotonic() - began)
            return
        for patch in statuses:
            await self._tell(patch)

    async def _tell(self, patch: StatusPatch) -> None:
        try:
            await self.api.ask("PATCH", f"{patch.path}/status", {"status": patch.status}, kind="merge-patch+json")
        except Refused as refusal:
            if refusal.status not in {404, 409}:
                raise


def backends_of(doors: list[Door]) -> list[Backend]:
    """Return every backend that a door names."""
    found: dict[Backend, None] = {}
    for door in doors:
        if door.plain is not None:
            found[door.plain] = None
        for host in door.hosts:
            for rule in host.rules:
                found |= {share.backend: None for share in rule.shares if share.backend is not None}
                found |= {backend: None for backend, _ in rule.mirrors}
    return list(found)


Ask = Callable[[str], Object]
"""Returns the object at a path of the API."""


class FrontDoors:
    """Where clients of a cluster connect, read from the cluster itself: works in any process of the tests."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._where: dict[str, str] = ask(WHERE)["data"]

    @property
    def istio(self) -> str:
        """The URL of the door of all VirtualServices; the request's Host says which."""
        return self._where["istio"]

    @property
    def ingress(self) -> str:
        """The URL of the door of all Ingresses; the request's Host says which."""
        return self._where["ingress"]

    @property
    def stats(self) -> str:
        """The URL that Prometheus scrapes (`gateway_prometheus.scrape_configs`)."""
        return self._where["stats"]

    def gateway(self, namespace: str, name: str, port: int = 8080, *, patience: float = 15.0) -> str:
        """Return the URL of a Gateway's listener, waiting until the Gateway has its address."""
        deadline = time.monotonic() + patience
        path = f"{SOURCES['gateways'].removesuffix('/gateways')}/namespaces/{namespace}/gateways/{name}"
        while not (addresses := (self._ask(path).get("status") or {}).get("addresses")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the Gateway {namespace}/{name} got no address")
            time.sleep(0.05)
        return f"http://{addresses[0]['value']}:{unprivileged(port)}"

    def service(self, namespace: str, name: str, port: int) -> str:
        """Return the URL of a plain Service's port."""
        cluster_ip = self._ask(f"/api/v1/namespaces/{namespace}/services/{name}")["spec"]["clusterIP"]
        block = ".".join(self._where["services"].split(".")[:2])
        return f"http://{block}.{'.'.join(cluster_ip.split('.')[2:])}:{unprivileged(port)}"
