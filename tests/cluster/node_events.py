"""Events of pods as a kubelet tells them: one object for each thing that happens, counted when it happens again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict

import httpx2

from cluster.api import Api, Object
from cluster.pod_status import now

_REMEMBERED = 1000
_QUIET = 5.0
"""Seconds until the same event is counted again: probes fail more often than anybody reads."""


class Events:
    """Writes events one after the other, so that a pod never waits for them."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._waiting: asyncio.Queue[tuple[Object, str, str, str]] = asyncio.Queue(_REMEMBERED)
        self._told: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def tell(self, pod: Object, container: str, reason: str, message: str) -> None:
        """Tell a warning of a pod, or of a container of it; lost where a thousand wait already."""
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait((pod, container, reason, message))

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            with contextlib.suppress(httpx2.HTTPError, OSError):
                await self._write(*await self._waiting.get())

    async def _write(self, pod: Object, container: str, reason: str, message: str) -> None:
        meta, clock = pod["metadata"], asyncio.get_running_loop().time()
        digest = hashlib.sha256(f"{meta['uid']}{container}{reason}{message}".encode()).hexdigest()[:16]
        count, last = self._told.get(digest, (0, -_QUIET))
        if clock - last < _QUIET:
            return
        self._told[digest] = count + 1, clock
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        where = f"/api/v1/namespaces/{meta['namespace']}/events"
        name = f"{meta['name']}.{digest}"
        again = {"count": count + 1, "lastTimestamp": now()}
        if count and await self._api.merge(f"{where}/{name}", again) is not None:
            return
        about = {"apiVersion": "v1", "kind": "Pod", **{key: meta[key] for key in ("name", "namespace", "uid")}}
        if container:
            about["fieldPath"] = f"spec.containers{{{container}}}"
        await self._api.create(where, {
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": about, "type": "Normal" if reason == "Killing" else "Warning", "reason": reason,
            "message": message, "firstTimestamp": now(), "source": {"component": "kubelet", "host": pod["spec"]["nodeName"]},
            **again,
        })  # fmt: skip
