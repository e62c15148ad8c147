"""Manifests of a small shop whose pods run on the test cluster's nodes, and a target that releases them."""

from __future__ import annotations

import copy
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.targets.kubernetes.target import KubernetesTarget, open_target
from forge.model.configs import KubernetesAccess
from forge.model.traffic import ReplicaCount, Version

SERVER = """
import http.server, os
who = os.environ["HOSTNAME"].rpartition("-")[2]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.environ.get('COLOUR', '')} {who}".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
print("hello from", who, flush=True)
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""
PROGRAM = [sys.executable, "-I", "-S", "-c", SERVER]
SLEEPER = ["/bin/sh", "-c", "echo hello from ${HOSTNAME##*-}; exec sleep 600"]
"""Nothing but a pod that is there: cheap, where nobody asks it anything."""
Object = dict[str, Any]


def deployment(
    name: str = "shop", *, replicas: int = 2, command: list[str] | None = None, image: str = "shop:1.0",
    fail: str = "", kind: str = "Deployment", mounts: bool = False,
) -> Object:  # fmt: skip
    """Return a workload; `fail` is a failure that the nodes play, `mounts` reads the shop's ConfigMap and Secret."""
    container: Object = {
        "name": "web", "image": image, "command": command or SLEEPER,
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }  # fmt: skip
    pod: Object = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    if mounts:
        container["envFrom"] = [{"configMapRef": {"name": f"{name}-config"}}]
        container["volumeMounts"] = [{"name": "secret", "mountPath": "/secret"}]
        pod["volumes"] = [{"name": "secret", "projected": {"sources": [{"secret": {"name": f"{name}-secret"}}]}}]
    if command is not None:
        container["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    annotations = {"forge.test/fail": fail} if fail else {}
    template = {"metadata": {"labels": {"app": name}, "annotations": annotations}, "spec": pod}
    spec: Object = {"selector": {"matchLabels": {"app": name}}, "template": template}
    if kind != "DaemonSet":
        spec["replicas"] = replicas
    if kind == "StatefulSet":
        spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def service(name: str = "shop") -> Object:
    """Return the Service in front of it."""
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def config_map(name: str = "shop-config", **data: str) -> Object:
    """Return a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data or {"COLOUR": "red"}}


def secret(name: str = "shop-secret", **data: str) -> Object:
    """Return a Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data or {"key": "hunter2"}}


def budget(least: int | str, name: str = "shop") -> Object:
    """Return a PodDisruptionBudget that wants `least` pods."""
    spec = {"minAvailable": least, "selector": {"matchLabels": {"app": name}}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec}


def autoscaler(least: int = 2, most: int = 8, name: str = "shop") -> Object:
    """Return a HorizontalPodAutoscaler; there are no metrics here, so it holds to its bounds."""
    spec = {
        "minReplicas": least, "maxReplicas": most,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "metrics": [{"type": "Resource",
                     "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}],
    }  # fmt: skip
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}


def written(folder: Path, *objects: Object, name: str = "manifests.yaml") -> str:
    """Write objects as a version's artifact and return its path."""
    path = folder / name
    path.write_text(yaml.safe_dump_all([copy.deepcopy(item) for item in objects]))
    return str(path)


class Shop:
    """A Kubernetes target whose versions all have one artifact, unless a call names another."""

    def __init__(self, kubeconfig: Path, namespace: str, artifact: str, environment: str = "production") -> None:
        self.cluster = Cluster(KubernetesAccess(kubeconfig=str(kubeconfig), namespace=namespace))
        self.target: KubernetesTarget = open_target(self.cluster, environment, {})
        self.artifact = artifact

    async def ensure(self, version: Version, replicas: int, artifact: str | None, token: int) -> None:
        await self.target.ensure(version, replicas, artifact or self.artifact, token)

    async def remove(self, version_id: str, token: int) -> None:
        await self.target.remove(version_id, token)

    async def observe(self) -> dict[str, ReplicaCount]:
        return await self.target.observe()

    def logs(self, version_id: str | None, *, follow: bool, tail: int) -> AsyncIterator[str]:
        return self.target.logs(version_id, follow=follow, tail=tail)

    async def close(self) -> None:
        """Let go of everything that was opened."""
        from forge.adapters.kubernetes.sharing import close_shared

        await self.target.close()
        await close_shared()
        await self.cluster.close()
