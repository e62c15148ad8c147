"""A shop whose versions run side by side, and what leads clients to it: one route for each router."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import gateway_shops
from cluster.gateway import FrontDoors
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.routers.base import Router
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

Object = dict[str, Any]
ROUTERS = ("gateway_api", "istio", "ingress_nginx", "replicas")
PROPAGATION = 0.4
"""Seconds: the test cluster's gateway has a change in a tenth of that."""
HOST = "shop.example"


def access(kubeconfig: Path, namespace: str) -> Cluster:
    """Return a connection of the test's own."""
    return Cluster(KubernetesAccess(kubeconfig=str(kubeconfig), namespace=namespace))


def open_router(name: str, cluster: Cluster, environment: str = "production") -> Router:
    """Return a router of that name for the objects that `route` returns."""
    if name == "gateway_api":
        return GatewayApiRouter(cluster, environment, GatewayApiRouterConfig("shop"))
    if name == "istio":
        return IstioRouter(cluster, environment, IstioRouterConfig("shop", propagation=PROPAGATION))
    if name == "ingress_nginx":
        return IngressNginxRouter(cluster, environment, IngressNginxRouterConfig("shop", propagation=PROPAGATION))
    return ReplicasRouter(cluster, environment, ReplicasRouterConfig(address="http://shop"))


def host_of(namespace: str) -> str:
    """Return the host name that clients of a namespace's Ingress and VirtualService ask for."""
    return f"{namespace}.{HOST}"


def routes(name: str, namespace: str) -> Sequence[Object]:
    """Return what a team has of its own: a route to its Service, with settings that are none of Forge's business."""
    if name == "gateway_api":
        rules = [
            {"matches": [{"path": {"type": "PathPrefix", "value": "/files"}}],
             "backendRefs": [{"name": "shop", "port": 80}], "timeouts": {"request": "7s"}},
            {"backendRefs": [{"name": "shop", "port": 80, "weight": 3}], "timeouts": {"request": "9s"},
             "filters": [{"type": "ResponseHeaderModifier",
                          "responseHeaderModifier": {"set": [{"name": "x-team", "value": "shop"}]}}]},
        ]  # fmt: skip
        return [gateway_shops.gateway(), gateway_shops.http_route("shop", rules)]
    if name == "istio":
        rule = {"name": "all", "timeout": "9s", "retries": {"attempts": 2},
                "headers": {"response": {"set": {"x-team": "shop"}}},
                "route": [{"destination": {"host": "shop", "port": {"number": 80}}}]}  # fmt: skip
        service = gateway_shops.virtual_service("shop", [rule])
        service["spec"]["hosts"] = [host_of(namespace)]
        return [service]
    if name == "ingress_nginx":
        ingress = gateway_shops.ingress("shop", "shop", host_of(namespace))
        ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"] = "9"
        return [ingress]
    return []


KINDS = {"gateway_api": "httproute", "istio": "virtualservice", "ingress_nginx": "ingress"}


def door(name: str, doors: FrontDoors, namespace: str) -> tuple[str, str]:
    """Return the URL that a router's clients ask, and the Host that they name."""
    if name == "gateway_api":
        return doors.gateway(namespace, "edge"), ""
    if name == "istio":
        return doors.istio, host_of(namespace)
    if name == "ingress_nginx":
        return doors.ingress, host_of(namespace)
    return doors.service(namespace, "shop", 80), ""


def manifests(replicas: int = 1) -> list[Object]:
    """Return the manifests of every version: its pods answer with the version's id."""
    version = {"fieldRef": {"fieldPath": "metadata.annotations['forge.dev/version-id']"}}
    container = {
        "name": "web", "image": "registry.example/shop", "ports": [{"name": "http", "containerPort": 8080}],
        "command": [sys.executable, "-S", "-E", "-c", gateway_shops.PROGRAM],
        "env": [{"name": "VERSION", "valueFrom": version},
                {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }  # fmt: skip
    spec = {
        "replicas": replicas, "selector": {"matchLabels": {"app": "shop"}},
        "template": {"metadata": {"labels": {"app": "shop"}},
                     "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]}},
    }  # fmt: skip
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"}, "spec": spec}
    return [deployment, gateway_shops.service("shop")]
