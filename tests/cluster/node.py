"""Nodes of the test cluster: one process plays the kubelet of several.

`python -m cluster.node --kubeconfig FILE --folder DIR --certificate CRT --key KEY [--nodes 2]` registers them, keeps
their leases alive, and runs each pod's commands as local processes on a loopback address of the pod's own. There are no
images: without a `command` a container is `entrypoint.py`. A program has to listen on its pod's address (fieldRef
`status.podIP`; `node_addresses` tells why the API shows another one). `pod_failures` has what can be told to go wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2

from cluster.api import Api, Object
from cluster.container import Container
from cluster.kubelet import KubeletServer, NoLog
from cluster.node_addresses import AddressBlock, loopback
from cluster.node_events import Events
from cluster.pod import PodRunner, forget
from cluster.pod_failures import how_lost
from cluster.pod_status import now, waiting_words

BEAT_SECONDS = 1.0
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class NodeAgent:
    """Plays the kubelets of all nodes of a cluster."""

    def __init__(self, api: Api, folder: Path, certificate: Path, key: Path, names: list[str]) -> None:
        self._api, self._folder, self._names = api, folder, names
        self._server = KubeletServer(self._log_of, self._container_of, certificate, key)
        self._pods: dict[str, PodRunner] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._lost: dict[str, str] = {}
        self._addresses = AddressBlock(64, 128)
        self._events = Events(api)
        self._port = 0

    async def run(self) -> None:
        """Serve until cancelled; then end every process."""
        self._port = await self._server.start()
        try:
            for name in self._names:
                await self._register(name)
            (self._folder / "ready").touch()
            pods = [self._watch_pods(name) for name in self._names]
            await asyncio.gather(self._beat(), self._watch_nodes(), self._events.run(), *pods)
        finally:
            for runner in self._pods.values():
                runner.abandon()
            await self._server.stop()
            await self._api.close()
            self._addresses.close()

    async def _register(self, name: str) -> None:
        node: Object = {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {},
        }  # fmt: skip
        if await self._api.get(f"/api/v1/nodes/{name}") is None:
            await self._api.create("/api/v1/nodes", node)
        await self._tell_status(name)
        await self._api.merge(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})

    async def _tell_status(self, name: str) -> None:
        room = {"cpu": "64", "memory": "64Gi", "pods": "1000", "ephemeral-storage": "100Gi"}
        status: Object = {
            "capacity": room, "allocatable": room, "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}}, "conditions": _conditions(),
            # Without it the apiserver would speak SPDY for kubectl exec.
            "declaredFeatures": ["ExtendWebSocketsToKubelet"],
            "nodeInfo": {
                "machineID": name, "systemUUID": name, "bootID": name, "kernelVersion": "test", "osImage": "test",
                "containerRuntimeVersion": "processes://1", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64",
            },
        }  # fmt: skip
        await self._api.merge(f"/api/v1/nodes/{name}/status", {"status": status})

    async def _beat(self) -> None:
        while True:
            for name in self._names:
                if name not in self._lost:
                    with contextlib.suppress(httpx2.HTTPError, OSError):
                        await self._renew(name)
            await asyncio.sleep(BEAT_SECONDS)

    async def _renew(self, name: str) -> None:
        moment = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": name, "leaseDurationSeconds": 8, "renewTime": moment}
        if await self._api.merge(f"{LEASES}/{name}", {"spec": spec}) is None:
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
            await self._api.create(LEASES, lease)

    async def _watch_nodes(self) -> None:
        async for kind, item in self._api.follow("/api/v1/nodes"):
            for node in item.get("items", []) if kind == "SYNC" else [item]:
                if node["metadata"]["name"] in self._names and kind != "DELETED":
                    await self._look_at(node)

    async def _look_at(self, node: Object) -> None:
        """Lose a node, find it again, and tell that it is ready where the control plane gave it up."""
        name, how = node["metadata"]["name"], how_lost(node)
        if how and name not in self._lost:
            self._lost[name] = how
            for runner in self._of(name) if how == "dead" else ():
                runner.abandon()
        elif not how:
            back = self._lost.pop(name, "")
            ready = [each["status"] for each in node["status"].get("conditions", ()) if each["type"] == "Ready"]
            if back or ready != ["True"]:
                with contextlib.suppress(httpx2.HTTPError, OSError):
                    await self._renew(name)
                    await self._tell_status(name)
            if back:
                await self._find_again(name, back)

    async def _find_again(self, name: str, how: str) -> None:
        """Take up the pods of a node that was lost: those of a dead one begin again, at the address that they had."""
        if how == "dead":
            for uid in [uid for uid, each in self._pods.items() if each.pod["spec"]["nodeName"] == name]:
                forget(self._pods.pop(uid).folder)
                self._stopping.pop(uid, None)
        while True:
            try:
                self._sync(name, await self._api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={name}") or {})
                return
            except (httpx2.HTTPError, OSError):
                await asyncio.sleep(0.2)

    def _of(self, node: str) -> list[PodRunner]:
        return [each for each in self._pods.values() if each.pod["spec"]["nodeName"] == node]

    async def _watch_pods(self, node: str) -> None:
        async for kind, item in self._api.follow("/api/v1/pods", fieldSelector=f"spec.nodeName={node}"):
            if node in self._lost:
                continue
            if kind == "SYNC":
                self._sync(node, item)
            elif kind == "DELETED":
                self._drop(item["metadata"]["uid"])
            else:
                self._see(item)

    def _sync(self, node: str, listed: Object) -> None:
        pods = [{**pod, "apiVersion": "v1", "kind": "Pod"} for pod in listed.get("items", ())]
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid in [
            uid for uid, each in self._pods.items() if each.pod["spec"]["nodeName"] == node and uid not in there
        ]:
            self._drop(uid)
        for pod in pods:
            self._see(pod)

    def _see(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._pods:
            self._pods[uid].update(pod)
        if pod["metadata"].get("deletionTimestamp"):
            if uid not in self._stopping or pod["metadata"].get("deletionGracePeriodSeconds") == 0:
                self._stopping[uid] = asyncio.create_task(self._end(pod))
        elif uid not in self._pods and pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
            self._begin(pod)

    def _begin(self, pod: Object) -> None:
        metadata = pod["metadata"]
        base = f"/api/v1/namespaces/{metadata['namespace']}"
        folder = self._folder / "pods" / metadata["uid"]
        folder.mkdir(parents=True, exist_ok=True)
        known = pod.get("status", {}).get("podIP")
        address = loopback(known) if known else self._addresses.take()

        async def report(status: Object) -> bool:
            if pod["spec"]["nodeName"] in self._lost:
                raise OSError("nobody hears of this node")
            patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
            return await self._api.strategic(f"{base}/pods/{metadata['name']}/status", patch) is not None

        def event(container: str, reason: str, message: str) -> None:
            if pod["spec"]["nodeName"] not in self._lost:
                self._events.tell(pod, container, reason, message)

        try:
            runner = PodRunner(pod, address, folder, self._fetcher(pod), report, event)
        except ValueError as problem:  # a failure that there is not
            event("", "Failed", str(problem))
            return
        self._pods[metadata["uid"]] = runner
        runner.start()

    def _fetcher(self, pod: Object) -> Callable[[str, str], Awaitable[Object | None]]:
        base = f"/api/v1/namespaces/{pod['metadata']['namespace']}"

        async def fetch(plural: str, name: str) -> Object | None:
            if plural == "serviceaccounttokens":
                account = pod["spec"].get("serviceAccountName") or "default"
                asked = {"spec": {"audiences": [name] if name else [], "expirationSeconds": 3600}}
                return await self._api.create(f"{base}/serviceaccounts/{account}/token", asked)
            item = await self._api.get(f"{base}/{plural}/{name}")
            return None if item is None else {**item, "kind": {"secrets": "Secret"}.get(plural, "ConfigMap")}

        return fetch

    async def _end(self, pod: Object) -> None:
        metadata, runner = pod["metadata"], self._pods.get(pod["metadata"]["uid"])
        if runner is not None:
            await runner.stop(float(metadata.get("deletionGracePeriodSeconds") or 0.0))
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        while True:
            if pod["spec"]["nodeName"] not in self._lost:
                with contextlib.suppress(httpx2.HTTPError, OSError):
                    where = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
                    await self._api.delete(where, options)
                    return
            await asyncio.sleep(0.2)

    def _drop(self, uid: str) -> None:
        task = self._stopping.pop(uid, None)
        if task is not None:
            task.cancel()
        runner = self._pods.pop(uid, None)
        if runner is not None:
            runner.abandon()
            asyncio.get_running_loop().call_later(5, forget, runner.folder)

    def _named(self, namespace: str, pod: str) -> PodRunner | None:
        for runner in reversed(self._pods.values()):
            metadata = runner.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, pod):
                return runner
        return None

    def _container_of(self, namespace: str, pod: str, container: str) -> Container | None:
        runner = self._named(namespace, pod)
        return runner.running.get(container) if runner else None

    def _log_of(self, namespace: str, pod: str, container: str, previous: bool) -> Path:
        runner = self._named(namespace, pod)
        if runner is None:
            raise NoLog(404, f'pods "{pod}" not found')
        path = runner.log_file(container, previous=previous)
        if path is not None:
            return path
        if previous:
            raise NoLog(400, f'previous terminated container "{container}" in pod "{pod}" not found')
        raise NoLog(400, waiting_words(runner.records.get(container), container, pod))


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
