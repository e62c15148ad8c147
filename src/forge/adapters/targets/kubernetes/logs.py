"""The output of a version's pods: their last lines, and following them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import NotThere, Refused
from forge.adapters.kubernetes.kinds import POD
from forge.adapters.kubernetes.objects import Object, mapping
from forge.adapters.targets.kubernetes.counting import VersionSeen
from forge.model.errors import ForgeError

LOOK_AGAIN = 1.0
"""Seconds between two looks for pods that came."""
SILENCE = 10.0
"""Seconds that reading what is there may wait for more of it."""
_QUEUE = 1000
_ALL = -1

Look = Callable[[], Awaitable[dict[str, VersionSeen]]]


async def read_logs(
    cluster: Cluster, look: Look, version: str | None, *, follow: bool, tail: int
) -> AsyncIterator[str]:
    """Yield the last `tail` lines of each pod, then, with `follow`, what is added, for ever. See Target."""
    pods = _pods(await look(), version)
    if not follow:
        for label, pod in pods:
            for container in _containers(pod):
                source = _Source(label, pod, container)
                # A container that has not started has no log: the others' are read all the same.
                with contextlib.suppress(NotThere, Refused):
                    async for line in _lines(cluster, source, follow=False, tail=max(0, tail)):
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
    """Begin to follow containers as they come; one that came later is read from its first line."""
    last = tail
    while True:
        for label, pod in _pods(await look(), version):
            for container in _containers(pod):
                key = f"{pod['metadata'].get('uid', pod['metadata']['name'])}/{container}"
                if key not in readers:
                    reading = _follow(cluster, _Source(label, pod, container), last, queue)
                    readers[key] = asyncio.create_task(reading, name=f"log of {label}")
        last = _ALL
        await asyncio.sleep(LOOK_AGAIN)


@dataclass
class _Source:
    """A container's log, and up to when it was read: what broke off goes on there, without a line twice."""

    label: str
    pod: Object
    container: str
    stamp: str = ""

    def params(self, *, follow: bool, tail: int) -> dict[str, str]:
        found = {"container": self.container} if self.container else {}
        if follow:
            found |= {"follow": "true", "timestamps": "true"}
        if self.stamp:  # the server cuts seconds off: what is told twice is left out below
            return {**found, "sinceTime": self.stamp[:19] + _zone(self.stamp)}
        return {**found, "tailLines": str(tail)} if tail != _ALL else found

    def fresh(self, line: str) -> str | None:
        stamp, _, text = line.partition(" ")
        if self.stamp and _comparable(stamp) <= _comparable(self.stamp):
            return None
        self.stamp = stamp
        return f"{self.label}: {text}"


def _zone(stamp: str) -> str:
    return stamp[-6:] if stamp[-6:-5] in {"+", "-"} else "Z"


def _comparable(stamp: str) -> str:
    """Return a moment so that text compares like time: a kubelet leaves zeros at the end of a fraction out."""
    second, _, fraction = stamp.removesuffix("Z").removesuffix(_zone(stamp)).partition(".")
    return f"{second}.{fraction:0<9}"


async def _follow(cluster: Cluster, source: _Source, tail: int, queue: asyncio.Queue[str]) -> None:
    """Follow one container to the end of its pod; one that is not there yet, or is started again, is waited for."""
    while True:
        try:
            async for line in _lines(cluster, source, follow=True, tail=tail):
                told = source.fresh(line)
                if told is not None:
                    await queue.put(told)
            if await cluster.get(POD, str(source.pod["metadata"]["name"])) is None:
                return
        except NotThere:
            return
        except ForgeError:
            pass  # not started yet, or the cluster does not answer now
        await asyncio.sleep(LOOK_AGAIN)


async def _lines(cluster: Cluster, source: _Source, *, follow: bool, tail: int) -> AsyncIterator[str]:
    name = str(source.pod["metadata"]["name"])
    path = POD.path(cluster.namespace, name, "log")
    params = source.params(follow=follow, tail=tail)
    async for line in cluster.lines(path, params, f"read the log of {name}", silence=None if follow else SILENCE):
        yield line


def _containers(pod: Object) -> list[str]:
    return [str(each.get("name", "")) for each in mapping(pod, "spec").get("containers") or ()] or [""]


def _pods(versions: dict[str, VersionSeen], version: str | None) -> list[tuple[str, Object]]:
    """Return (label, pod) of a version, or of all: `1.4.0/x7k2p`."""
    return [
        (f"{seen.version_id}/{str(pod['metadata']['name']).rpartition('-')[2]}", pod)
        for seen in sorted(versions.values(), key=lambda each: each.version_id)
        for pod in seen.pods
        if version in {None, seen.version_id}
    ]
