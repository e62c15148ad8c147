"""Workloads for the tests of the gateway: each pod answers with its version, and ends as good servers do."""

from __future__ import annotations

import sys
from typing import Any

Object = dict[str, Any]
PROGRAM = """
import http.server, os, signal, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (os.environ["VERSION"] + os.environ.get("HASTE", "")).encode()
        self.send_response(int(os.environ.get("STATUS", "200")))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        seen = self.headers.get("x-seen")
        if seen:
            print("seen", seen, flush=True)
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
server = Server((os.environ["HOST"], 8080), Answer)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving", os.environ["VERSION"], flush=True)
server.serve_forever(0.05)
"""


def versions(name: str, *told: str, replicas: int = 2, **env: str) -> list[Object]:
    """Return a Deployment and a Service for each version, called NAME-VERSION."""
    return [each for version in told for each in (workload(name, version, replicas, env), service(name, version))]


def workload(name: str, version: str, replicas: int = 2, env: dict[str, str] | None = None) -> Object:
    """Return a Deployment whose pods go on serving a second after they were told to end."""
    labels = {"app": name, "version": version}
    listed = [{"name": key, "value": value} for key, value in {"VERSION": version, **(env or {})}.items()]
    container = {
        "name": "web", "image": f"registry.example/{name}:{version}",
        "command": [sys.executable, "-S", "-E", "-c", PROGRAM], "ports": [{"name": "http", "containerPort": 8080}],
        "env": [*listed, {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }  # fmt: skip
    if "STATUS" in (env or {}):
        container["readinessProbe"] = {"tcpSocket": {"port": "http"}, "periodSeconds": 1}
    template = {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 5, "containers": [container]}}
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "strategy": strategy, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"{name}-{version}"}, "spec": spec}


def service(name: str, version: str = "") -> Object:
    """Return a Service that selects one version, or all of them."""
    selector = {"app": name, **({"version": version} if version else {})}
    spec = {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    title = f"{name}-{version}" if version else name
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": title}, "spec": spec}


def gateway(name: str = "edge") -> Object:
    """Return a Gateway with one HTTP listener at 8080."""
    spec = {"gatewayClassName": "forge-test", "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}]}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name}, "spec": spec}


def http_route(name: str, rules: list[Object], parent: str = "edge") -> Object:
    """Return an HTTPRoute of a Gateway."""
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name},
            "spec": {"parentRefs": [{"name": parent}], "rules": rules}}  # fmt: skip


def weighted(name: str, **weights: int) -> list[Object]:
    """Return backendRefs to the Services of versions."""
    return [{"name": f"{name}-{version}", "port": 80, "weight": weight} for version, weight in weights.items()]


def virtual_service(name: str, http: list[Object]) -> Object:
    """Return a VirtualService of the host `name`."""
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name},
            "spec": {"hosts": [name], "http": http}}  # fmt: skip


def destinations(name: str, **weights: int) -> list[Object]:
    """Return a VirtualService's destinations: the Services of versions."""
    return [{"destination": {"host": f"{name}-{version}", "port": {"number": 80}}, "weight": weight}
            for version, weight in weights.items()]  # fmt: skip


def ingress(name: str, backend: str, host: str, **canary: str) -> Object:
    """Return an Ingress; with `canary` annotations (without prefix, _ for -) a canary beside another."""
    prefix = "nginx.ingress.kubernetes.io/"
    annotations = {f"{prefix}{key.replace('_', '-')}": value for key, value in canary.items()}
    if canary:
        annotations[f"{prefix}canary"] = "true"
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": backend, "port": {"number": 80}}}}
    rules = [{"host": host, "http": {"paths": [path]}}]
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "annotations": annotations},
            "spec": {"ingressClassName": "nginx", "rules": rules}}  # fmt: skip
