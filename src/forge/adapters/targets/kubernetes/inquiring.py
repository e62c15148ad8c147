"""What the status of a pod does not tell: its warnings and its last words, asked for beside the observing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import EVENT, POD
from forge.adapters.kubernetes.objects import Object, mapping
from forge.adapters.targets.kubernetes.progress import Details
from forge.model.errors import ForgeError

AGAIN = 2.0
"""Seconds after which the same pod is asked about again."""
MOST = 3
"""Pods that are asked about at once: those of one version fail alike."""
_FORGOTTEN = 60.0
_LINE_BYTES = "2000"


class Inquiry:
    """Asks in tasks of its own, so that whoever observes never waits; answers come with a later look."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, tuple[float, Details]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def details(self, pods: Sequence[Object]) -> dict[str, Details]:
        """Return what is known of pods that are not ready, by name, and ask anew where that is old."""
        now = time.monotonic()
        for pod in pods[:MOST]:
            name = str(pod["metadata"]["name"])
            asked = self._known.get(name)
            if name not in self._asking and (asked is None or now - asked[0] >= AGAIN):
                task = asyncio.get_running_loop().create_task(self._ask(name, pod), name=f"ask about {name}")
                self._asking[name] = task
                task.add_done_callback(lambda _task, name=name: self._asking.pop(name, None))  # type: ignore[misc]
        self._known = {name: entry for name, entry in self._known.items() if now - entry[0] < _FORGOTTEN}
        return {name: details for name, (_, details) in self._known.items()}

    async def close(self) -> None:
        """Stop asking."""
        tasks = [*self._asking.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _ask(self, name: str, pod: Object) -> None:
        events: dict[str, str] = {}
        line = ""
        try:
            events = await self._warnings(name)
            line = await self._last_line(name, pod)
        except ForgeError:
            pass  # the reasons that the status tells are told without
        self._known[name] = (time.monotonic(), Details(events, line))

    async def _warnings(self, name: str) -> dict[str, str]:
        found, _ = await self._cluster.objects(EVENT, fields=f"involvedObject.name={name},type=Warning")
        found.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
        return {str(event.get("reason", "")): str(event.get("message", "")) for event in found}

    async def _last_line(self, name: str, pod: Object) -> str:
        for status in mapping(pod, "status").get("containerStatuses") or ():
            previous = bool(mapping(status, "lastState", "terminated"))
            if not previous and not mapping(status, "state", "terminated"):
                continue
            # The state that ended last is the one to ask about; only while none runs again is it the present one.
            again = previous and not mapping(status, "state", "terminated")
            params: dict[str, Any] = {"tailLines": "1", "limitBytes": _LINE_BYTES, "container": status.get("name", "")}
            if again:
                params["previous"] = "true"
            path = POD.path(self._cluster.namespace, name, "log")
            async for line in self._cluster.lines(path, params, f"read the log of {name}", silence=AGAIN):
                if line.strip():
                    return line.strip()
        return ""
