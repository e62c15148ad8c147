"""Nodes of the test cluster: one process plays the kubelet of several.

`python -m cluster.node --kubeconfig FILE --folder DIR --certificate CRT --key KEY [--nodes 2]` registers them, keeps
their leases alive, and runs each pod's commands as local processes on a loopback address of the pod's own. There are no
images: a container needs a `command`, and has to listen on its pod's address (fieldRef `status.podIP`). The annotation
`forge.test/fail` of a pod chooses a failure, `forge.test/lost` of a node makes it vanish.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import signal
from pathlib import Path

import httpx2
from cluster.api import Api, Object
from cluster.container import Container
from cluster.kubelet import KubeletServer
from cluster.pod import PodRunner, forget, now

LOST = "forge.test/lost"
BEAT_SECONDS = 1.0
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class NodeAgent:
    """Plays the kubelets of all nodes of a cluster."""

    def __init__(self, api: Api, folder: Path, certificate: Path, key: Path, names: list[str]) -> None:
        self._api, self._folder, self._names = api, folder, names
        self._server = KubeletServer(self._log_of, self._container_of, certificate, key)
        self._pods: dict[str, PodRunner] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._lost: set[str] = set()
        self._addresses = (f"127.{a}.{b}.{c}" for a in range(81, 127) for b in range(256) for c in range(1, 255))

    async def run(self) -> None:
        """Serve until cancelled; then end every process."""
        port = await self._server.start()
        try:
            for name in self._names:
                await self._register(name, port)
            (self._folder / "ready").touch()
            await asyncio.gather(self._beat(), self._watch_nodes(), *(self._watch_pods(name) for name in self._names))
        finally:
            for runner in self._pods.values():
                runner.abandon()
            await self._server.stop()
            await self._api.close()

    async def _register(self, name: str, port: int) -> None:
        room = {"cpu": "64", "memory": "64Gi", "pods": "1000", "ephemeral-storage": "100Gi"}
        node: Object = {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {},
        }  # fmt: skip
        if await self._api.get(f"/api/v1/nodes/{name}") is None:
            await self._api.create("/api/v1/nodes", node)
        status: Object = {
            "capacity": room, "allocatable": room, "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}, "conditions": _conditions(),
            "nodeInfo": {
                "machineID": name, "systemUUID": name, "bootID": name, "kernelVersion": "test", "osImage": "test",
                "containerRuntimeVersion": "processes://1", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64",
            },
        }  # fmt: skip
        await self._api.merge(f"/api/v1/nodes/{name}/status", {"status": status})
        await self._api.merge(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})

    async def _beat(self) -> None:
        while True:
            for name in self._names:
                if name not in self._lost:
                    with contextlib.suppress(httpx2.HTTPError, OSError):
                        await self._renew(name)
            await asyncio.sleep(BEAT_SECONDS)

    async def _renew(self, name: str) -> None:
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": name, "leaseDurationSeconds": 8, "renewTime": moment}
        if await self._api.merge(f"{LEASES}/{name}", {"spec": spec}) is None:
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
            await self._api.create(LEASES, lease)
        await self._api.merge(f"/api/v1/nodes/{name}/status", {"status": {"conditions": _conditions()}})

    async def _watch_nodes(self) -> None:
        async for kind, item in self._api.follow("/api/v1/nodes"):
            for node in item.get("items", []) if kind == "SYNC" else [item]:
                name = node["metadata"]["name"]
                lost = (node["metadata"].get("annotations") or {}).get(LOST) == "true"
                if lost and name not in self._lost:
                    self._lost.add(name)
                    for runner in [each for each in self._pods.values() if each.pod["spec"]["nodeName"] == name]:
                        runner.abandon()
                elif not lost:
                    self._lost.discard(name)

    async def _watch_pods(self, node: str) -> None:
        async for kind, item in self._api.follow("/api/v1/pods", fieldSelector=f"spec.nodeName={node}"):
            if node in self._lost:
                continue
            if kind == "SYNC":
                there = {pod["metadata"]["uid"] for pod in item.get("items", [])}
                for pod in item.get("items", []):
                    self._see({**pod, "apiVersion": "v1", "kind": "Pod"})
                mine = [uid for uid, each in self._pods.items() if each.pod["spec"]["nodeName"] == node]
                for uid in set(mine) - there:
                    self._drop(uid)
            elif kind == "DELETED":
                self._drop(item["metadata"]["uid"])
            else:
                self._see(item)

    def _see(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            if uid not in self._stopping:
                self._stopping[uid] = asyncio.create_task(self._end(pod))
        elif uid not in self._pods and pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
            self._begin(pod)

    def _begin(self, pod: Object) -> None:
        metadata = pod["metadata"]
        base = f"/api/v1/namespaces/{metadata['namespace']}"

        async def fetch(plural: str, name: str) -> Object | None:
            item = await self._api.get(f"{base}/{plural}/{name}")
            return None if item is None else {**item, "kind": {"secrets": "Secret"}.get(plural, "ConfigMap")}

        async def report(status: Object) -> None:
            with contextlib.suppress(httpx2.HTTPError, OSError):
                await self._api.merge(f"{base}/pods/{metadata['name']}/status", {"status": status})

        folder = self._folder / "pods" / metadata["uid"]
        folder.mkdir(parents=True)
        self._pods[metadata["uid"]] = PodRunner(pod, next(self._addresses), folder, fetch, report)
        self._pods[metadata["uid"]].start()

    async def _end(self, pod: Object) -> None:
        metadata, runner = pod["metadata"], self._pods.get(pod["metadata"]["uid"])
        if runner is not None:
            await runner.stop(float(metadata.get("deletionGracePeriodSeconds") or 0.0))
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        while True:
            try:
                await self._api.delete(f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}", options)
                return
            except (httpx2.HTTPError, OSError):
                await asyncio.sleep(0.2)

    def _drop(self, uid: str) -> None:
        task = self._stopping.pop(uid, None)
        if task is not None and uid in self._pods and not self._pods[uid].stopping:
            task.cancel()
        runner = self._pods.pop(uid, None)
        if runner is not None:
            runner.abandon()
            asyncio.get_running_loop().call_later(5, forget, runner.folder)

    def _container_of(self, namespace: str, pod: str, container: str) -> Container | None:
        for runner in reversed(self._pods.values()):
            metadata = runner.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, pod):
                return runner.running.get(container)
        return None

    def _log_of(self, namespace: str, pod: str, container: str) -> Path | None:
        for runner in reversed(self._pods.values()):
            metadata = runner.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, pod):
                path = runner.log_file(container)
                return path if path.exists() else None
        return None


def _conditions() -> list[Object]:
    at = now()
    return [
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": at, "lastTransitionTime": at},
        *({"type": kind, "status": "False", "lastHeartbeatTime": at, "lastTransitionTime": at}
          for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")),
    ]  # fmt: skip


async def _main(options: argparse.Namespace) -> None:
    names = [f"node-{number}" for number in range(1, options.nodes + 1)]
    agent = NodeAgent(Api(options.kubeconfig), options.folder, options.certificate, options.key, names)
    task = asyncio.create_task(agent.run())
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("kubeconfig", "folder", "certificate", "key"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--nodes", type=int, default=2)
    asyncio.run(_main(parser.parse_args()))
