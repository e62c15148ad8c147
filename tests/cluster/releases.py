"""A project that releases a real service to the test cluster, users that never stop asking, and a Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import textwrap
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.gateway import FrontDoors
from cluster.prometheus import INTERVAL
from cluster.sharing import Cluster

SERVICE = """
import http.server, os, pathlib, random, threading
version, counts, lock = os.environ["VERSION"], {"200": 0, "500": 0}, threading.Lock()
bad = float(os.environ.get("BAD") or 0)
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body, code = version.encode(), 200
        if self.path == "/metrics":
            body = "".join(f'http_requests_total{{code="{code}"}} {n}\\n' for code, n in counts.items()).encode()
        elif self.path != "/healthz":
            code = 500 if random.random() < bad else 200
            with lock:
                counts[str(code)] += 1
        self.send_response(code); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server((os.environ["POD_IP"], int(os.environ.get("PORT", "8080"))), Service).serve_forever()
"""
FINAL = {"promoted", "rolled_back", "aborted", "failed", "superseded"}
DOORS = {
    "gateway_api": {"gateway_api": {"route": "shop"}},
    "istio": {"istio": {"virtual_service": "shop", "propagation": "1s"}},
    "ingress_nginx": {"ingress_nginx": {"ingress": "shop", "propagation": "1s"}},
    "replicas": "replicas",
}


def deployment(service: Path, replicas: int = 2) -> dict[str, Any]:
    """Return the Deployment of a version; the ConfigMap that it mounts says how bad it is."""
    env = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "VERSION", "valueFrom": {"configMapKeyRef": {"name": "shop-settings", "key": "version"}}},
        {"name": "BAD", "valueFrom": {"configMapKeyRef": {"name": "shop-settings", "key": "bad"}}},
    ]
    container = {
        "name": "shop", "image": "shop", "command": [sys.executable, "-I", "-S", str(service)], "env": env,
        "ports": [{"containerPort": 8080, "name": "http"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
    }  # fmt: skip
    template = {
        "metadata": {"labels": {"app": "shop"}, "annotations": {"prometheus.io/scrape": "true"}},
        "spec": {"terminationGracePeriodSeconds": 3, "containers": [container]},
    }
    strategy = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "shop"}},
        "strategy": strategy,
        "template": template,
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"}, "spec": spec}


def service() -> dict[str, Any]:
    """Return the Service that clients ask."""
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"},
            "spec": {"selector": {"app": "shop"}, "ports": ports}}  # fmt: skip


def settings_map(version: str, bad: str) -> dict[str, Any]:
    """Return the ConfigMap of a version."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "shop-settings"},
        "data": {"version": version, "bad": bad},
    }


def doors(router: str, host: str = "shop.example") -> list[dict[str, Any]]:
    """Return what leads users to the Service with this router, by its host where many share a front door."""
    backend = {"name": "shop", "port": 80}
    if router == "gateway_api":
        listener = {"name": "http", "port": 8080, "protocol": "HTTP"}
        gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "public"},
                   "spec": {"gatewayClassName": "forge-test", "listeners": [listener]}}  # fmt: skip
        route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "shop"},
                 "spec": {"parentRefs": [{"name": "public"}], "rules": [{"backendRefs": [backend]}]}}  # fmt: skip
        return [gateway, route]
    if router == "istio":
        return [{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "shop"},
                 "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": "shop"}}]}]}}]  # fmt: skip
    if router == "ingress_nginx":
        path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "shop", "port": {"number": 80}}}}
        return [{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "shop"},
                 "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [path]}}]}}]  # fmt: skip
    return []


class Users:
    """Some people who ask an address again and again; `failed` and `answers` count what they met."""

    def __init__(self, address: str, host: str = "", people: int = 4, pause: float = 0.02) -> None:
        self.address, self.host, self.pause = address, host, pause
        self.failed: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(people)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Users:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(6)

    def share(self, seconds: float) -> dict[str, float]:
        """Return which version answered how large a part of the requests of the next seconds."""
        before = Counter(self.answers)
        time.sleep(seconds)
        now = Counter(self.answers) - before
        return {version: count / max(1, now.total()) for version, count in now.items()}

    def until_all_are(self, version: str, patience: float = 15.0) -> None:
        """Wait until nobody but this version answers; without a router old pods answer until they are gone."""
        deadline = time.monotonic() + patience
        while (found := self.share(0.5)) != {version: 1.0}:
            assert time.monotonic() < deadline, found

    def _ask(self) -> None:
        while not self._ending.wait(self.pause):
            try:
                code, body = self._answer()
            except (OSError, http.client.HTTPException) as error:
                self.failed[f"{type(error).__name__}: {error}"] += 1
                continue
            self.answers[body] += 1
            if code != 200:
                self.failed[f"{code} {body}"] += 1

    def _answer(self) -> tuple[int, str]:
        address = urllib.parse.urlsplit(self.address)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
        try:
            connection.request("GET", "/", headers={"Host": self.host} if self.host else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()


class Project:
    """A folder with a pipeline and manifests; `run` releases a version of them."""

    def __init__(
        self, folder: Path, cluster: Cluster, namespace: str, forge: Any, router: str, prometheus: str = ""
    ) -> None:
        self.folder, self.cluster, self.namespace, self.router = folder, cluster, namespace, router
        self.forge = forge(folder, {"KUBECONFIG": str(cluster.kubeconfig)})
        (folder / "forge").mkdir(parents=True)
        (folder / "k8s").mkdir()
        (folder / "service.py").write_text(SERVICE)
        self.host = (
            f"{namespace}.example"  # tests that run side by side share the front doors of istio and ingress_nginx
        )
        self.manifests(doors(router, self.host))
        self.prometheus = prometheus
        self.strategy: Any = {
            "canary": {"steps": [{"weight": "20%"}, {"pause": "4s"}, {"weight": "50%"}, {"pause": "2s"}]}
        }

    def manifests(self, more: list[dict[str, Any]], replicas: int = 2) -> None:
        """Write the manifests; the ConfigMap is written anew by each run."""
        objects = [deployment(self.folder / "service.py", replicas=replicas), service(), *more]
        (self.folder / "k8s" / "shop.yaml").write_text(yaml.safe_dump_all(objects))

    def write(self) -> None:
        """Write the pipeline as it is set now."""
        environment: dict[str, Any] = {
            "target": {"kubernetes": {"namespace": self.namespace, "manifests": "k8s"}},
            "router": DOORS[self.router],
        }
        if self.prometheus:
            environment["signals"] = {"prometheus": {
                "url": self.prometheus, "preset": "plain", "version": "forge_dev_version", "interval": f"{INTERVAL}s",
                "match": f'namespace="{self.namespace}"',
            }}  # fmt: skip
        script = textwrap.dedent("""
            cat > k8s/settings.yaml <<END
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop-settings"},
             "data": {"version": "$FORGE_PARAM_VERSION", "bad": "$FORGE_PARAM_BAD"}}
            END
        """).strip()
        deploy = {
            "environment": "production", "version": "${{ params.version }}", "strategy": self.strategy,
            "keep_previous": "0s",
        }  # fmt: skip
        pipeline = {
            "parameters": {"version": {"type": "string"}, "bad": {"type": "string", "default": "0"}},
            "environments": {"production": environment},
            "jobs": {"release": {"steps": [{"run": script}, {"deploy": deploy}]}},
        }
        (self.folder / "forge" / "pipeline.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))

    def run(self, version: str, bad: str = "0", code: int = 0, timeout: float = 110) -> str:
        """Release a version; return everything that was said."""
        done = self.forge("run", "-p", f"version={version}", "-p", f"bad={bad}", timeout=timeout)
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout + done.stderr)

    @contextlib.contextmanager
    def working(self, version: str, after: str = "") -> Iterator[None]:
        """Release a version, in a process that stays to work on it, until it has a fifth of the traffic."""
        if after:
            self.until_share(after, 2000)
        process = self.forge.start("run", "-p", f"version={version}")
        try:
            self.until_share(version, 2000)
            yield
        finally:
            process.terminate()
            process.communicate(timeout=20)

    def environment(self) -> dict[str, Any]:
        """Return what `forge env show` says."""
        shown: dict[str, Any] = json.loads(self.forge.ok("env", "show", "production", "-o", "json"))
        return shown

    def until(self, good: Callable[[dict[str, Any]], bool], what: str, patience: float = 60.0) -> dict[str, Any]:
        """Return the environment as soon as it is so; the test fails when it is not in time."""
        deadline = time.monotonic() + patience
        while True:
            shown = self.environment()
            if good(shown):
                return shown
            assert time.monotonic() < deadline, f"{what}: {json.dumps(shown, indent=1)}"
            time.sleep(0.3)

    def until_share(self, version: str, weight: int) -> None:
        """Wait until the router shows that a version has this weight."""
        self.until(
            lambda shown: any(arm["version"] == version and arm["actual_weight"] == weight for arm in shown["arms"]),
            version,
        )

    def until_stable(self, version: str) -> None:
        """Wait until a version is stable."""
        self.until(lambda shown: shown["stable"] == version, f"stable {version}")

    def settled(self) -> None:
        """Wait until no release is under way."""
        self.until(
            lambda shown: shown["stable"] and all(each["state"] in FINAL for each in shown["releases"]), "settled"
        )

    def users(self, **settings: Any) -> Users:
        """Return users at the door of this project's router."""
        front = FrontDoors(lambda path: self.cluster.api("GET", path))
        if self.router == "gateway_api":
            return Users(front.gateway(self.namespace, "public"), **settings)
        if self.router == "istio":
            return Users(front.istio, self.host, **settings)
        if self.router == "ingress_nginx":
            return Users(front.ingress, self.host, **settings)
        return Users(front.service(self.namespace, "shop", 80), **settings)
