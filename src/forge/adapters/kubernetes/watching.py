"""Objects of one kind, kept in memory: listed once, then watched, listed again when the watch cannot go on.

What is read from here takes microseconds and is as new as the last event. While the cluster does not answer, what was
read last counts for a few seconds, and then reading fails: stale data must not pass for new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from forge.adapters.kubernetes import errors
from forge.adapters.kubernetes.connection import SECONDS, Cluster
from forge.adapters.kubernetes.kinds import Kind
from forge.model.errors import DependencyFailed, ForgeError

Object = dict[str, Any]

WATCH_SECONDS = 60
"""The server ends a watch after this long, and it is continued: what died silently is noticed."""
SILENCE = WATCH_SECONDS + 15.0
PATIENCE = 3.0
"""Seconds for which what was read last still counts while the cluster does not answer."""
IDLE = 120.0
"""Seconds without a reader after which a watch ends by itself."""
_LONGEST_PAUSE = 2.0


class Watched:
    """The objects of one kind in one namespace. Starts with the first reader; `close` or a long silence ends it."""

    def __init__(
        self, cluster: Cluster, kind: Kind, *, namespace: str = "", labels: str = "",
        trim: Callable[[Object], Object] | None = None, idle: float = IDLE,
    ) -> None:  # fmt: skip
        """`trim` makes an object smaller before it is kept."""
        self._cluster, self._kind, self._namespace, self._labels = cluster, kind, namespace, labels
        self._trim = trim or without_managed_fields
        self._idle = idle
        self._known: dict[str, Object] = {}
        self._version = ""
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listed = asyncio.Event()
        self._problem: ForgeError | None = None
        self._lost_at = 0.0
        self._read_at = 0.0
        self.lists = 0
        """How many times everything was read."""

    async def objects(self) -> list[Object]:
        """Return what is there now. Raises the cluster's last refusal when it was not read for some seconds."""
        self._read_at = time.monotonic()
        self._begin()
        if not self._listed.is_set():
            try:
                async with asyncio.timeout(SECONDS):
                    await self._listed.wait()
            except TimeoutError:
                raise DependencyFailed(f"{self._cluster.name}: no answer to a list of {self._kind.plural}") from None
        if self._problem is not None and time.monotonic() - self._lost_at > PATIENCE:
            raise self._problem
        return list(self._known.values())

    def take(self, item: Object) -> None:
        """Know an object as a write returned it, before its event comes; older news of it are ignored then."""
        if not self._listed.is_set():
            return
        name = item["metadata"]["name"]
        known = self._known.get(name)
        if known is None or _newer(item, known):
            self._known[name] = self._trim({**item, "apiVersion": self._kind.api_version, "kind": self._kind.name})

    async def close(self) -> None:
        """End the watch; the next reader starts another."""
        task, self._task = self._task, None
        self._listed.clear()
        if task is not None and self._loop is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        if self._task is not None and not self._task.done() and self._loop is loop:
            return
        # Another loop's watch died with it: nothing of it can be waited for here.
        self._loop, self._listed, self._problem, self._version = loop, asyncio.Event(), None, ""
        self._task = loop.create_task(self._run(), name=f"watch {self._kind.plural}")

    async def _run(self) -> None:
        pause = 0.1
        while time.monotonic() - self._read_at < self._idle:
            try:
                if not self._version:
                    await self._list()
                    pause = 0.1
                await self._follow()
            except errors.Gone:
                self._version = ""
            except ForgeError as error:
                self._version = ""
                self._fail(error)
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
            except Exception as error:
                self._version = ""
                self._fail(DependencyFailed(f"{self._cluster.name}: watching {self._kind.plural}: {error!r}"))
                await asyncio.sleep(_LONGEST_PAUSE)
        self._listed.clear()

    def _fail(self, error: ForgeError) -> None:
        if self._problem is None:
            self._lost_at = time.monotonic()
        self._problem = error
        if not self._listed.is_set():  # nobody should wait for a first list that is refused
            self._lost_at = 0.0
            self._listed.set()

    async def _list(self) -> None:
        found, self._version = await self._cluster.objects(
            self._kind, labels=self._labels, namespace=self._namespace
        )  # fmt: skip
        self._known = {item["metadata"]["name"]: self._trim(item) for item in found}
        self.lists += 1
        self._problem = None
        self._listed.set()

    async def _follow(self) -> None:
        params = {
            "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": self._version, **({"labelSelector": self._labels} if self._labels else {}),
        }  # fmt: skip
        path = self._kind.path(self._namespace or self._cluster.namespace)
        asked = f"watch {self._kind.plural}"
        async for line in self._cluster.lines(path, params, asked, silence=SILENCE):
            if line:
                self._absorb(_event(line, asked), asked)
            if time.monotonic() - self._read_at > self._idle:
                return

    def _absorb(self, event: Object, asked: str) -> None:
        item = event.get("object")
        what = event.get("type")
        if not isinstance(item, dict):
            raise DependencyFailed(f"{self._cluster.name}: {asked}: an event without an object")
        if what == "ERROR":
            raise errors.failure(int(item.get("code") or 500), msgspec.json.encode(item), asked, self._cluster.name)
        metadata = item.get("metadata") or {}
        self._version = str(metadata.get("resourceVersion") or self._version)
        if what == "BOOKMARK":
            return
        name = str(metadata.get("name", ""))
        if what == "DELETED":
            self._known.pop(name, None)
            return
        known = self._known.get(name)
        if known is None or not _newer(known, item):
            self._known[name] = self._trim({**item, "apiVersion": self._kind.api_version, "kind": self._kind.name})


def without_managed_fields(item: Object) -> Object:
    """Return an object without the largest thing that nobody here reads."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {**item, "metadata": metadata}


def _event(line: str, asked: str) -> Object:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise DependencyFailed(f"{asked}: an event that is no JSON") from None


def _newer(item: Object, than: Object) -> bool:
    """Resource versions of one kind are compared as numbers (Kubernetes guarantees their order since 1.35)."""
    versions = [str(each["metadata"].get("resourceVersion", "")) for each in (item, than)]
    return all(text.isdigit() for text in versions) and int(versions[0]) > int(versions[1])
