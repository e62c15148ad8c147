"""A real Kubernetes control plane on loopback: etcd, apiserver, controller-manager and scheduler as processes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from cluster.certificates import Authority

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
SERVICES = "10.0.0.0/16"


def programs() -> dict[str, list[str]]:
    """Return the words that start each part. Raises scripts/controlplane.py's Unavailable."""
    spec = importlib.util.spec_from_file_location("obtain_controlplane", ROOT / "scripts" / "controlplane.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, list[str]] = module.find()
    return found


class ControlPlane:
    """One cluster without nodes. `stop` ends exactly the processes that `start` began."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._programs = programs()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.authority = Authority(folder / "pki")
        self.etcd_port, self.etcd_peer_port, self.port = free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self.kubeconfig = self.kubeconfig_of("admin", "system:masters")
        self._account_key = self.authority.service_account_key()
        self._server = self.authority.server("apiserver")
        self._to_kubelets = self.authority.client("apiserver-to-kubelets", "system:masters")
        self._managers = {
            name: self.kubeconfig_of(f"system:{name}") for name in ("kube-controller-manager", "kube-scheduler")
        }

    def start(self) -> None:
        """Start everything and return when the apiserver is ready and the scheduler runs."""
        self._start("etcd", {
            "data-dir": self.folder / "etcd", "listen-client-urls": f"http://127.0.0.1:{self.etcd_port}",
            "advertise-client-urls": f"http://127.0.0.1:{self.etcd_port}",
            "listen-peer-urls": f"http://127.0.0.1:{self.etcd_peer_port}", "unsafe-no-fsync": "true",
        })  # fmt: skip
        self.start_apiserver()
        common = {"leader-elect": "false", "bind-address": "127.0.0.1", "v": "1"}
        secure = dict(zip(self._managers, free_ports(2), strict=True))
        self._start("kube-controller-manager", {
            **common, "kubeconfig": self._managers["kube-controller-manager"], "secure-port": secure["kube-controller-manager"],
            "service-account-private-key-file": self._account_key, "root-ca-file": self.authority.file,
            "use-service-account-credentials": "true", "node-monitor-grace-period": "8s", "node-monitor-period": "1s",
            "concurrent-gc-syncs": "5", "endpointslice-updates-batch-period": "0s",
        })  # fmt: skip
        self._start("kube-scheduler", {
            **common, "kubeconfig": self._managers["kube-scheduler"], "secure-port": secure["kube-scheduler"],
        })  # fmt: skip
        self._wait_for("the default service account", lambda: self.ask("/api/v1/namespaces/default/serviceaccounts/default"))

    def start_apiserver(self) -> None:
        """Start the apiserver, on the port that it always had, and wait until it is ready."""
        certificate, key = self._server
        client, client_key = self._to_kubelets
        self._start("kube-apiserver", {
            "etcd-servers": f"http://127.0.0.1:{self.etcd_port}", "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1", "secure-port": self.port, "endpoint-reconciler-type": "none",
            "authorization-mode": "Node,RBAC", "client-ca-file": self.authority.file, "tls-cert-file": certificate,
            "tls-private-key-file": key, "service-account-key-file": self._account_key,
            "service-account-signing-key-file": self._account_key, "service-account-issuer": self.url,
            "service-cluster-ip-range": SERVICES, "kubelet-client-certificate": client,
            "kubelet-client-key": client_key, "kubelet-preferred-address-types": "InternalIP",
            "allow-privileged": "true", "disable-admission-plugins": "ServiceAccount", "profiling": "false", "v": "1",
        })  # fmt: skip
        self._wait_for("the apiserver", lambda: self.ask("/readyz", plain=True))

    def stop_part(self, part: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one part; SIGKILL is a crash."""
        process = self._running.pop(part)
        process.send_signal(how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart_apiserver(self, away: float = 0.0) -> None:
        """Crash the apiserver and start it again after `away` seconds."""
        self.stop_part("kube-apiserver", signal.SIGKILL)
        time.sleep(away)
        self.start_apiserver()

    def stop(self) -> None:
        """End all parts, those that need others first."""
        for part in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            if part in self._running:
                self.stop_part(part, signal.SIGKILL if part != "etcd" else signal.SIGTERM)

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run, by part."""
        return {part: process.pid for part, process in self._running.items()}

    def kubeconfig_of(self, user: str, *groups: str) -> Path:
        """Return a kubeconfig for a user of the cluster's own certificate authority."""
        certificate, key = self.authority.client(user, *groups)
        login = {"client-certificate": str(certificate), "client-key": str(key)}
        return self.write_kubeconfig(user, login)

    def write_kubeconfig(self, user: str, login: dict[str, Any], namespace: str = "default") -> Path:
        """Write a kubeconfig with one context, called `forge-tests`."""
        cluster = {"server": self.url, "certificate-authority": str(self.authority.file)}
        context = {"cluster": "forge-tests", "user": user, "namespace": namespace}
        text = yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "forge-tests",
            "clusters": [{"name": "forge-tests", "cluster": cluster}],
            "contexts": [{"name": "forge-tests", "context": context}],
            "users": [{"name": user, "user": login}],
        })  # fmt: skip
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        path.touch(0o600)
        path.write_text(text)
        return path

    def ask(self, path: str, *, plain: bool = False) -> Any:
        """Ask the apiserver as its administrator. Raises OSError while it is away, HTTPError for a refusal."""
        context = ssl.create_default_context(cafile=str(self.authority.file))
        context.load_cert_chain(self.authority.folder / "admin.crt", self.authority.folder / "admin.key")
        with urllib.request.urlopen(self.url + path, context=context, timeout=5) as answer:
            body = answer.read()
        return body if plain else json.loads(body)

    def _start(self, part: str, flags: dict[str, Any]) -> None:
        words = [*self._programs[part], *(f"--{name}={value}" for name, value in flags.items())]
        with (self.folder / f"{part}.log").open("ab") as log:
            self._running[part] = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder)},
            )  # fmt: skip

    def _wait_for(self, what: str, there: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            for part, process in self._running.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{part} ended with {process.returncode}: {self.log_of(part)[-2000:]}")
            with contextlib.suppress(OSError, urllib.error.HTTPError):
                there()
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} was not there within {PATIENCE:g} s: {self.log_of('kube-apiserver')[-2000:]}")
            time.sleep(0.1)

    def log_of(self, part: str) -> str:
        """Return what a part wrote."""
        return (self.folder / f"{part}.log").read_text(errors="replace")


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
