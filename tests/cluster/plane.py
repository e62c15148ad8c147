"""One control plane: etcd, apiserver, controller-manager and scheduler as processes of this machine, on loopback.

Everything of it lives in one folder: `pki/`, `etcd/`, `logs/`, `admin.kubeconfig`, and `pids.json` from which
another process can clean up after one that was killed.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from cluster.access import Api, Kubectl, Refused, until, write_file_kubeconfig, write_kubeconfig
from cluster.certificates import Authority, Pair, key_pair

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
START = 90.0
"""Seconds until everything serves; a busy machine needs several times the usual."""
ATTENDANTS_END = 15.0
"""Seconds for the nodes to end their pods."""
KILLING = 10.0
"""Seconds for killed processes to be gone."""
SERVER_NAMES = (LOOPBACK, "10.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
KUBELET_NAMES = (LOOPBACK, "localhost", *(f"node-{number}" for number in range(1, 10)))


class PartDied(Exception):
    """A part of the control plane ended by itself; the message has the end of its log."""


def script(name: str) -> Any:
    """Return `scripts/NAME.py` as a module: `find()` and `Unavailable`."""
    spec = importlib.util.spec_from_file_location(f"obtain_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def obtain() -> Any:
    """Return what finds or builds the programs of a control plane."""
    return script("controlplane")


class ControlPlane:
    """A control plane in `folder`; `programs` are the words that start each part."""

    def __init__(self, folder: Path, programs: dict[str, list[str]]) -> None:
        self.folder = folder
        self.programs = programs
        self.logs = folder / "logs"
        self.kubeconfig = folder / "admin.kubeconfig"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self.pki: dict[str, Pair] = {}

    @property
    def server(self) -> str:
        """Where the apiserver serves."""
        return f"https://{LOOPBACK}:{self.ports['kube-apiserver']}"

    @property
    def kubelet(self) -> Pair:
        """What a node serves its logs with."""
        return self.pki["kubelet"]

    def api(self) -> Api:
        """Return plain calls as the administrator."""
        return Api(self.kubeconfig)

    def kubectl(self, namespace: str = "default") -> Kubectl:
        """Return kubectl as the administrator."""
        return Kubectl(self.kubeconfig, namespace)

    def start(self) -> None:
        """Start everything; return when it serves. Raises PartDied, TimeoutError; nothing is left running then."""
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            self._prepare()
            self._start("etcd", etcd_flags(self))
            until(lambda: self.check() and etcd_serves(self), "etcd", START)
            self.start_apiserver()
            for part in ("kube-controller-manager", "kube-scheduler"):
                self._start(part, client_flags(self, part))
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            until(lambda: self.check() and self.api().found(account), "the controllers", START)
        except BaseException:
            self.stop()
            raise

    def _prepare(self) -> None:
        authority = Authority(self.folder / "pki")
        self.pki = {
            "ca": authority.pair,
            "tokens": key_pair(self.folder / "pki", "tokens"),
            "server": authority.issue("server", "kube-apiserver", hosts=SERVER_NAMES),
            "kubelet": authority.issue("kubelet", "kubelet", hosts=KUBELET_NAMES),
            "to-kubelet": authority.issue("to-kubelet", "kube-apiserver", groups=("system:masters",)),
        }
        parts = ("etcd", "etcd-peers", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
        self.ports = dict(zip(parts, free_ports(len(parts)), strict=True))
        users = {"admin": "forge-admin"} | {part: f"system:{part}" for part in parts if part.startswith("kube-")}
        for name, user in users.items():
            pair = authority.issue(name, user, groups=("system:masters",) if name == "admin" else ())
            halves = {"certificate": pair.certificate, "key": pair.key}
            data = {
                f"client-{half}-data": base64.b64encode(path.read_bytes()).decode() for half, path in halves.items()
            }
            path = self.folder / f"{name}.kubeconfig"
            write_kubeconfig(path, self.server, authority.pair.certificate.read_text(), data)
        own = authority.issue("attendants", "forge-attendants", groups=("system:masters",))
        path = self.folder / "attendants.kubeconfig"
        write_file_kubeconfig(path, self.server, authority.pair.certificate, own.certificate, own.key)

    def _start(self, part: str, flags: dict[str, object]) -> None:
        self.run(part, [*self.programs[part], *(f"--{name}={value}" for name, value in flags.items())], {})

    def run(self, part: str, words: list[str], environment: dict[str, str]) -> None:
        """Start a program as a part of the control plane: it ends with it, and its log lies among the others'."""
        with (self.logs / f"{part}.log").open("ab") as log:
            self.processes[part] = subprocess.Popen(
                words, cwd=self.folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        note_processes(self.folder, {name: process.pid for name, process in self.processes.items()})

    def check(self) -> bool:
        """Return True; raises PartDied if a part has ended."""
        for part, process in self.processes.items():
            if process.poll() is not None:
                said = (self.logs / f"{part}.log").read_text(errors="replace").strip().splitlines()
                raise PartDied(f"{part} ended with {process.returncode}: {' | '.join(said[-5:])}")
        return True

    def start_apiserver(self) -> None:
        """Start the apiserver on the port it had; return when it is ready. Raises PartDied, TimeoutError."""
        self._start("kube-apiserver", apiserver_flags(self))
        until(lambda: self.check() and apiserver_ready(self), "the apiserver", START)

    def stop_apiserver(self, how: str = "terminate") -> None:
        """End the apiserver: in order (`terminate`), or as if its machine broke (`kill`)."""
        process = self.processes.pop("kube-apiserver")
        getattr(process, how)()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # it waits for its clients' open requests first
            process.kill()
            process.wait(10)

    def restart_apiserver(self, how: str = "kill") -> None:
        """Stop it and start it on the same port, with the same data."""
        self.stop_apiserver(how)
        self.start_apiserver()

    def start_attendants(self) -> None:
        """Start nodes and gateway; return when pods can run. Raises PartDied, TimeoutError."""
        words = [sys.executable, "-m", "cluster.attendants", str(self.folder)]
        self.run("attendants", words, {"PYTHONPATH": str(ROOT / "tests")})
        noted = self.folder / "attendants.json"
        until(lambda: self.check() and noted.exists(), "nodes and gateway", START)

    def forget_history(self) -> int:
        """Compact etcd: what watches or pages from before now gets 410 Gone after the apiserver's next start.
        Return the revision."""
        now = int(etcd_call(self, "/v3/kv/range", {"key": base64.b64encode(b"/").decode()})["header"]["revision"])
        etcd_call(self, "/v3/kv/compaction", {"revision": str(now), "physical": True})
        return now

    def stop(self) -> None:
        """End every part: the nodes in order, for they have processes of their own; the others at once, for
        nothing in them is worth an orderly end."""
        attendants = self.processes.get("attendants")
        if attendants is not None and attendants.poll() is None:
            attendants.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                attendants.wait(ATTENDANTS_END)
        for process in self.processes.values():
            kill_family(process.pid)
        for process in self.processes.values():
            process.wait(20)
        self.processes.clear()
        if self.folder.exists():
            note_processes(self.folder, {})

    def remove(self) -> None:
        """Stop, and remove the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def etcd_flags(plane: ControlPlane) -> dict[str, object]:
    """Return the flags of an etcd of one member that does not wait for the disk."""
    client = f"http://{LOOPBACK}:{plane.ports['etcd']}"
    peer = f"http://{LOOPBACK}:{plane.ports['etcd-peers']}"
    return {
        "name": "only", "data-dir": plane.folder / "etcd", "listen-client-urls": client,
        "advertise-client-urls": client, "listen-peer-urls": peer, "initial-advertise-peer-urls": peer,
        "initial-cluster": f"only={peer}", "unsafe-no-fsync": "true", "log-level": "warn",
    }  # fmt: skip


def apiserver_flags(plane: ControlPlane) -> dict[str, object]:
    """Return the apiserver's flags: RBAC is on, and it reaches nodes by their address."""
    pki = plane.pki
    return {
        "etcd-servers": f"http://{LOOPBACK}:{plane.ports['etcd']}",
        "bind-address": LOOPBACK, "advertise-address": LOOPBACK, "secure-port": plane.ports["kube-apiserver"],
        "endpoint-reconciler-type": "none", "service-cluster-ip-range": "10.0.0.0/16",
        "authorization-mode": "Node,RBAC", "allow-privileged": "true",
        "cert-dir": plane.folder / "pki",
        "client-ca-file": pki["ca"].certificate,
        "tls-cert-file": pki["server"].certificate, "tls-private-key-file": pki["server"].key,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": pki["tokens"].certificate,
        "service-account-signing-key-file": pki["tokens"].key,
        "kubelet-client-certificate": pki["to-kubelet"].certificate,
        "kubelet-client-key": pki["to-kubelet"].key,
        "kubelet-certificate-authority": pki["ca"].certificate,
        "kubelet-preferred-address-types": "InternalIP",
    }  # fmt: skip


def client_flags(plane: ControlPlane, part: str) -> dict[str, object]:
    """Return the flags of the controller-manager or the scheduler."""
    kubeconfig = plane.folder / f"{part}.kubeconfig"
    both = {
        "kubeconfig": kubeconfig, "authentication-kubeconfig": kubeconfig, "authorization-kubeconfig": kubeconfig,
        "bind-address": LOOPBACK, "secure-port": plane.ports[part], "cert-dir": plane.folder / "pki",
        "leader-elect": "false", "kube-api-qps": 300, "kube-api-burst": 500,
    }  # fmt: skip
    if part == "kube-scheduler":
        return both
    return both | {
        "use-service-account-credentials": "true", "root-ca-file": plane.pki["ca"].certificate,
        "service-account-private-key-file": plane.pki["tokens"].key,
        "cluster-signing-cert-file": plane.pki["ca"].certificate, "cluster-signing-key-file": plane.pki["ca"].key,
        "node-monitor-period": "1s", "node-monitor-grace-period": "20s",
    }  # fmt: skip


def etcd_call(plane: ControlPlane, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call etcd by JSON. Raises OSError while it does not serve."""
    url = f"http://{LOOPBACK}:{plane.ports['etcd']}{path}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, json.dumps(body).encode()), timeout=10) as answer:
        return dict(json.load(answer))


def etcd_serves(plane: ControlPlane) -> bool:
    """Whether etcd answers."""
    try:
        return bool(etcd_call(plane, "/v3/maintenance/status", {}))
    except OSError:
        return False


def apiserver_ready(plane: ControlPlane) -> bool:
    """Whether the apiserver says so itself."""
    try:
        return plane.api().text("GET", "/readyz") == "ok"
    except (Refused, OSError):
        return False


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on; all are held until all are known, so no two are the same."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def note_processes(folder: Path, pids: dict[str, int]) -> None:
    """Write down what runs, with each start time: a number alone may belong to somebody else later."""
    began = {name: (pid, start_time(pid)) for name, pid in pids.items()}
    fresh = folder / f"pids.json.{os.getpid()}"
    fresh.write_text(json.dumps(began))
    fresh.rename(folder / "pids.json")


def start_time(pid: int) -> float | None:
    """Return when a process began; None if it has ended, even if nobody has taken notice yet."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def kill_family(pid: int) -> None:
    """Kill a process and what it started, and wait until they are gone."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return
    for one in family:
        with contextlib.suppress(psutil.Error):
            one.kill()
    until(lambda: all(start_time(one.pid) is None for one in family), f"the end of {pid} and its children", KILLING)


def clean_up_after(folder: Path) -> list[str]:
    """Kill what a control plane in `folder` left running when it was killed itself, and remove the folder.
    Return the names of what still ran."""
    left = []
    try:
        noted = json.loads((folder / "pids.json").read_text())
    except (OSError, ValueError):
        noted = {}
    for name, (pid, began) in noted.items():
        if began is not None and start_time(pid) == began:
            left.append(name)
            kill_family(pid)
    shutil.rmtree(folder, ignore_errors=True)
    return left
