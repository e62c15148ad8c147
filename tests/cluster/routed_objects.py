"""Objects that routers split, as teams have them, and tables to split them by: for tests without a cluster."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.routers.backends import Backends, with_table, without_marks
from forge.adapters.routers.gateway_api import GatewayApiRouter
from forge.adapters.routers.istio import IstioRouter
from forge.adapters.routers.routed import RoutedObject
from forge.model.configs import GatewayApiRouterConfig, IstioRouterConfig, KubernetesAccess
from forge.model.traffic import TrafficTable

CLUSTER = Cluster(KubernetesAccess(namespace="shop"))
VERSIONS = ("1.0", "1.1", "1.2", "2.0")
BACKENDS = Backends("shop", {version: f"shop-{version.replace('.', '-')}" for version in VERSIONS})
ORIGINAL = "forge.dev/original"


@st.composite
def tables(draw: st.DrawFn, most: int = 4) -> TrafficTable:
    versions = draw(st.lists(st.sampled_from(VERSIONS), min_size=1, max_size=most, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=len(versions) - 1, max_size=len(versions) - 1)))
    edges = [0, *cuts, 10_000]
    weights = {version: high - low for version, low, high in zip(versions, edges, edges[1:], strict=False)}
    return TrafficTable(weights, draw(st.integers(1, 1000)))


def positive(table: TrafficTable) -> dict[str, int]:
    return {version: weight for version, weight in table.weights.items() if weight}


def http_route() -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "shop", "namespace": "shop", "generation": 3, "labels": {"team": "shop"}},
        "spec": {
            "parentRefs": [{"name": "public"}], "hostnames": ["shop.example"],
            "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": "/static"}}],
                 "backendRefs": [{"name": "files", "port": 80, "weight": 1}]},
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "timeouts": {"request": "5s"},
                 "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-debug"]}}],
                 "backendRefs": [{"name": "shop", "kind": "Service", "group": "", "port": 80, "weight": 1}]},
            ],
        },
    }  # fmt: skip


def virtual_service() -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {
            "hosts": ["shop.example"], "gateways": ["public"],
            "http": [
                {"name": "files", "match": [{"uri": {"prefix": "/static"}}],
                 "route": [{"destination": {"host": "files.shop.svc.cluster.local"}}]},
                {"name": "all", "timeout": "5s", "retries": {"attempts": 2},
                 "route": [{"destination": {"host": "shop.shop.svc.cluster.local", "subset": "v1", "port": {"number": 80}}}]},
            ],
        },
    }  # fmt: skip


def ingress() -> dict[str, Any]:
    backend = {"service": {"name": "shop", "port": {"number": 80}}}
    files = {"service": {"name": "files", "port": {"name": "http"}}}
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "shop", "namespace": "shop", "annotations": {"cert-manager.io/issuer": "ours"}},
        "spec": {
            "ingressClassName": "nginx", "tls": [{"hosts": ["shop.example"], "secretName": "shop-tls"}],
            "rules": [{"host": "shop.example", "http": {"paths": [
                {"path": "/static", "pathType": "Prefix", "backend": files},
                {"path": "/", "pathType": "Prefix", "backend": backend},
            ]}}],
        },
    }  # fmt: skip


def gateway_router() -> GatewayApiRouter:
    return GatewayApiRouter(CLUSTER, "production", GatewayApiRouterConfig(route="shop"))


def istio_router(**settings: Any) -> IstioRouter:
    config = IstioRouterConfig(virtual_service="shop", **settings)
    return IstioRouter(CLUSTER, "production", config, clock=lambda: 100.0)


def freed(router: RoutedObject, item: dict[str, Any]) -> dict[str, Any]:
    """What `hand_back` would leave."""
    return without_marks(router.restored(item, BACKENDS))


def written(router: RoutedObject, item: dict[str, Any], table: TrafficTable, token: int = 1) -> dict[str, Any]:
    """What the cluster has after `apply`."""
    return with_table(router.routed(item, table, BACKENDS), table, token)
