"""The pod of one step while it is waited for: looked at, its obstacles told, its log followed, its end understood."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import PERMISSIONS
from forge.adapters.kubernetes.kinds import EVENT, JOB, POD
from forge.adapters.kubernetes.pods import ContainerState, container_state, job_end, lost, obstacle, why_ended
from forge.adapters.runners.base import Finished
from forge.adapters.runners.kubernetes_objects import COMMAND, DELIVER
from forge.model.errors import DependencyFailed
from forge.model.units import format_duration

FIRST_LOOK = 0.2
LOOK = 3.0
"""Seconds between two looks at a command under way; the end of its log is a reason to look at once."""
PATIENCE = 300.0
"""Seconds for which a cluster may not answer while a command is under way."""
NO_POD_AFTER = 3.0
"""Seconds without a pod after which the cluster's events are asked for the reason."""


class StepPod:
    """What is known of a step's Job and pod. `say` takes lines for the step's log."""

    def __init__(self, cluster: Cluster, name: str, say: Callable[[str], None], start_timeout: float) -> None:
        self.job: Mapping[str, Any] | None = None
        self.pod: Mapping[str, Any] | None = None
        self.name = name
        self._cluster = cluster
        self._say = say
        self._start_timeout = start_timeout
        self._begun = time.monotonic()
        self._told = ""
        self._obstacle_since: float | None = None
        self._silent_since: float | None = None
        self._events_at = 0.0
        self._hurry = asyncio.Event()
        self._looked = False
        self._is_gone = False

    @property
    def command(self) -> ContainerState:
        """The state of the step's own container."""
        return container_state(self.pod, COMMAND) if self.pod else ContainerState()

    @property
    def pod_name(self) -> str:
        """The pod's name; empty: there is none yet."""
        return str(self.pod["metadata"]["name"]) if self.pod else ""

    @property
    def wants_workspace(self) -> bool:
        """Whether the pod waits for its workspace."""
        return self.pod is not None and container_state(self.pod, DELIVER).phase == "running"

    @property
    def ended(self) -> bool:
        """Whether the command has ended, or never will begin."""
        if self.command.phase == "ended":
            return True
        if self.job is None:
            return self._looked
        return bool(job_end(self.job)[0]) and (self.pod is None or self._is_gone or _is_over(self.pod))

    def ended_now(self) -> bool:
        """Whether the command has ended as far as is known, asked by somebody who has reason to think so: the next
        look is now."""
        self._hurry.set()
        return self.ended

    async def look(self) -> None:
        """Look at the Job and its pod. A cluster that does not answer is asked again, for some minutes."""
        try:
            self.job = await self._cluster.get(JOB, self.name)
            pods, _ = await self._cluster.objects(POD, labels=f"job-name={self.name}")
        except DependencyFailed as error:
            self._silent_since = self._silent_since or time.monotonic()
            if error.hint == PERMISSIONS or time.monotonic() - self._silent_since > PATIENCE:
                raise
            self._tell(f"{error.message}; asked again")
            return
        self._silent_since, self._looked, self._is_gone = None, True, not pods
        if pods:  # one that is gone is remembered as it was last
            self.pod = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""))

    async def watch(
        self, begin: Callable[[], Awaitable[None]], deliver: Callable[[str], Awaitable[None]] | None
    ) -> None:
        """Wait until the command has ended; `begin` is called once it runs, `deliver` when its pod waits for the
        workspace. Raises DependencyFailed for what will never begin."""
        pause = FIRST_LOOK
        while True:
            await self.look()
            if deliver is not None and self.wants_workspace:
                await deliver(self.pod_name)
                deliver = None
                pause = FIRST_LOOK
            if self.command.phase != "waiting":
                await begin()
            if self.ended:
                return
            if self.command.phase == "waiting":
                await self._examine()
            await self._rest(pause)
            pause = min(pause * 1.3, LOOK)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()

    async def _examine(self) -> None:
        """Tell what keeps the command from beginning; raise when it is not going to."""
        found = obstacle(self.pod, self._start_timeout) if self.pod else None
        now = time.monotonic()
        if found is None:
            self._obstacle_since = None
            if self.pod is None and now - self._begun > NO_POD_AFTER:
                await self._tell_events()
        else:
            self._obstacle_since = self._obstacle_since or now
            self._tell(found.words)
            if now - self._obstacle_since >= found.patience:
                raise DependencyFailed(found.words)
        if now - self._begun > self._start_timeout:
            late = f"the pod did not begin within {format_duration(self._start_timeout)}"
            raise DependencyFailed(f"{late}: {self._told or 'no reason was given'}")

    async def _tell_events(self) -> None:
        """A Job without a pod: its controller was refused, and said so in an event."""
        now = time.monotonic()
        if now - self._events_at < NO_POD_AFTER:
            return
        self._events_at = now
        fields = f"involvedObject.name={self.name},involvedObject.kind=Job,type=Warning"
        try:
            events, _ = await self._cluster.objects(EVENT, fields=fields)
        except DependencyFailed:
            return  # who may not read events waits without a reason
        if events:
            self._tell(f"no pod is made: {events[-1].get('message') or events[-1].get('reason')}")

    def _tell(self, words: str) -> None:
        if words != self._told:
            self._told = words
            self._say(f"forge: {words}")

    def finished(self, seconds: float) -> Finished:
        """Return how the command ended. Raises DependencyFailed when it was not the command that ended."""
        state = self.command
        taken = lost(self.pod) if self.pod else ""
        if state.exit_code == 0:
            return Finished(0, seconds)
        if self.job is not None and "DeadlineExceeded" in job_end(self.job)[1]:
            return Finished(-1, seconds, timed_out=True)
        if taken or state.exit_code is None or self.pod is None:
            raise DependencyFailed(taken or self._why_none())
        return Finished(state.exit_code, seconds, reason=why_ended(self.pod, COMMAND, state))

    def _why_none(self) -> str:
        if self.job is None:
            return f"the Job {self.name} was deleted by somebody else"
        told = job_end(self.job)[1]
        return f"the command did not come to its end: {told or 'its pod is gone'}"


def _is_over(pod: Mapping[str, Any]) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in {"Succeeded", "Failed"} or bool((pod.get("metadata") or {}).get("deletionTimestamp"))
