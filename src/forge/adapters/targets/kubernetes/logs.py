"""The output of a version's pods: their last lines, and following them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import POD
from forge.adapters.kubernetes.objects import Object, mapping
from forge.adapters.targets.kubernetes.counting import VersionSeen
from forge.model.errors import ForgeError

LOOK_AGAIN = 1.0
"""Seconds between two looks for pods that came."""
_QUEUE = 1000

Look = Callable[[], Awaitable[dict[str, VersionSeen]]]


async def read_logs(
    cluster: Cluster, look: Look, version: str | None, *, follow: bool, tail: int
) -> AsyncIterator[str]:
    """Yield the last `tail` lines of each pod, then, with `follow`, what is added, for ever. See Target."""
    pods = _pods(await look(), version)
    if not follow:
        for label, pod in pods:
            async for line in _lines(cluster, pod, follow=False, tail=tail):
                yield f"{label}: {line}"
        return
    queue: asyncio.Queue[str] = asyncio.Queue(_QUEUE)
    readers: dict[str, asyncio.Task[None]] = {}
    watcher = asyncio.create_task(_watch(cluster, look, version, tail, queue, readers), name="follow logs")
    try:
        while True:
            getting = asyncio.create_task(queue.get())
            done, _ = await asyncio.wait({getting, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if getting not in done:
                getting.cancel()
                watcher.result()
                return
            yield getting.result()
    finally:
        for task in (watcher, *readers.values()):
            task.cancel()
        await asyncio.wait({watcher, *readers.values()})


async def _watch(
    cluster: Cluster, look: Look, version: str | None, tail: int, queue: asyncio.Queue[str],
    readers: dict[str, asyncio.Task[None]],
) -> None:  # fmt: skip
    """Begin to follow pods as they come; one that came later is read from its first line."""
    last = tail
    while True:
        for label, pod in _pods(await look(), version):
            uid = str(pod["metadata"].get("uid", pod["metadata"]["name"]))
            if uid not in readers:
                readers[uid] = asyncio.create_task(_follow(cluster, label, pod, last, queue), name=f"log of {label}")
        last = -1
        await asyncio.sleep(LOOK_AGAIN)


async def _follow(cluster: Cluster, label: str, pod: Object, tail: int, queue: asyncio.Queue[str]) -> None:
    """Follow one pod to its end; a container that is not there yet, or is started again, is waited for."""
    while True:
        try:
            async for line in _lines(cluster, pod, follow=True, tail=tail):
                await queue.put(f"{label}: {line}")
                tail = 0
        except ForgeError:
            await asyncio.sleep(LOOK_AGAIN)
        else:
            tail = 0
            await asyncio.sleep(LOOK_AGAIN)
        if await cluster.get(POD, str(pod["metadata"]["name"])) is None:
            return


async def _lines(cluster: Cluster, pod: Object, *, follow: bool, tail: int) -> AsyncIterator[str]:
    """Yield lines of all containers of a pod, one after the other; with `follow` those of the first."""
    names = [str(each.get("name", "")) for each in mapping(pod, "spec").get("containers") or ()]
    path = POD.path(cluster.namespace, str(pod["metadata"]["name"]), "log")
    for name in names[:1] if follow else names:
        params = {"container": name} if name else {}
        if follow:
            params["follow"] = "true"
        if tail >= 0:
            params["tailLines"] = str(tail)
        silence = None if follow else 10.0
        async for line in cluster.lines(path, params, f"read the log of {pod['metadata']['name']}", silence=silence):
            yield line


def _pods(versions: dict[str, VersionSeen], version: str | None) -> list[tuple[str, Object]]:
    """Return (label, pod) of a version, or of all: `1.4.0/x7k2p`."""
    return [
        (f"{seen.version_id}/{str(pod['metadata']['name']).rpartition('-')[2]}", pod)
        for seen in sorted(versions.values(), key=lambda each: each.version_id)
        for pod in seen.pods
        if version in {None, seen.version_id}
    ]
