"""A node that is lost and found again, and an apiserver that is away while pods change: on a cluster of their own."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cluster import gateway_shops as shops
from cluster.access import Kubectl, until
from cluster.fixtures import fresh_namespace
from cluster.gateway import FrontDoors
from cluster.gateway_load import Load, ask
from cluster.plane import ControlPlane

pytestmark = [pytest.mark.kubernetes, pytest.mark.long]


def ready_pods(kubectl: Kubectl) -> dict[str, str]:
    """Return the node of every pod that is ready."""
    return {
        pod["metadata"]["name"]: pod["spec"]["nodeName"]
        for pod in kubectl.json("get", "pods")["items"]
        if any(e["type"] == "Ready" and e["status"] == "True" for e in pod["status"].get("conditions", ()))
    }


def node_ready(kubectl: Kubectl, name: str) -> str:
    found = kubectl.json("get", "node", name)["status"]["conditions"]
    return next(each["status"] for each in found if each["type"] == "Ready")


def test_traffic_leaves_a_lost_node_and_its_pods_come_back_with_it(own_cluster: ControlPlane) -> None:
    with fresh_namespace(own_cluster, "lost") as name:
        kubectl = Kubectl(own_cluster.kubeconfig, name)
        shop = shops.workload("shop", "a", 2)
        spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                  "labelSelector": {"matchLabels": {"app": "shop"}}}  # fmt: skip
        shop["spec"]["template"]["spec"]["topologySpreadConstraints"] = [spread]
        route = shops.http_route("shop", [{"backendRefs": shops.weighted("shop", a=1)}])
        kubectl.apply(shop, shops.service("shop", "a"), shops.gateway(), route)
        kubectl.ok("rollout", "status", "deployment/shop-a", "--timeout=50s")
        before = ready_pods(kubectl)
        assert sorted(before.values()) == ["node-1", "node-2"]
        url = FrontDoors(lambda path: own_cluster.api()("GET", path)).gateway(name, "edge")
        until(lambda: ask(url)[0] == 200, "the shop", 15)

        kubectl.ok("annotate", "node", "node-2", "forge.test/lost=dead")
        until(lambda: node_ready(kubectl, "node-2") == "Unknown", "the node to be missed", 45)
        until(lambda: list(ready_pods(kubectl).values()) == ["node-1"], "its pods to be no longer ready", 15)
        with Load(url) as load:
            load.next(100)
        assert not load.failures

        kubectl.ok("annotate", "node", "node-2", "forge.test/lost-")
        until(lambda: node_ready(kubectl, "node-2") == "True", "the node to be back", 20)
        until(lambda: ready_pods(kubectl) == before, "the same pods to be ready again", 30)


def test_what_happened_while_the_apiserver_was_away_is_told_afterwards(own_cluster: ControlPlane) -> None:
    with fresh_namespace(own_cluster, "away") as name:
        kubectl = Kubectl(own_cluster.kubeconfig, name)
        kubectl.apply(
            shops.workload("shop", "a", 1), shops.service("shop", "a"), shops.gateway(), ended_job(),
            shops.http_route("shop", [{"backendRefs": shops.weighted("shop", a=1)}]),
        )  # fmt: skip
        kubectl.ok("rollout", "status", "deployment/shop-a", "--timeout=50s")
        until(lambda: kubectl.json("get", "pods", "-l", "job-name=short")["items"], "the job to begin", 15)
        url = FrontDoors(lambda path: own_cluster.api()("GET", path)).gateway(name, "edge")
        until(lambda: ask(url)[0] == 200, "the shop", 15)
        with Load(url) as load:
            own_cluster.stop_apiserver("kill")
            time.sleep(3)
            own_cluster.start_apiserver()
            load.next(50)
        assert not load.failures, "what is served does not need the apiserver"
        kubectl.ok("wait", "--for=condition=Complete", "job/short", "--timeout=40s")
        time.sleep(1)
        kubectl.ok("scale", "deployment/shop-a", "--replicas=2")
        kubectl.ok("rollout", "status", "deployment/shop-a", "--timeout=40s")


def ended_job() -> dict[str, Any]:
    """Return a Job whose pod ends while nobody can be told."""
    container = {"name": "main", "image": "any", "command": ["sleep", "3"]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "short"}, "spec": {"template": template}}
