"""A Job of the user's own, followed to its end: every container of every pod that it has, and its conditions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import PERMISSIONS
from forge.adapters.kubernetes.following import Position, Reader, follow
from forge.adapters.kubernetes.kinds import JOB, POD
from forge.adapters.kubernetes.pods import Pod, container_state, job_end, lost, obstacle, why_ended
from forge.model.errors import DependencyFailed
from forge.model.units import format_duration

FIRST_LOOK = 0.2
LOOK = 1.0
PATIENCE = 300.0
"""Seconds for which a cluster may not answer while a Job is under way."""
LOG_PATIENCE = 30.0


class JobEnd(msgspec.Struct, frozen=True):
    """How a Job ended: its controller's words, and the exit code of the last container that failed."""

    succeeded: bool
    words: str
    exit_code: int | None = None


class DeletedError(DependencyFailed):
    """The Job is gone; there is nothing to wait for."""


class JobFollower:
    """Follows one Job. `write` takes the bytes of its logs, `say` lines of Forge's own; `marks` is a folder that
    remembers how far the logs were read, so that another worker goes on there."""

    def __init__(
        self, cluster: Cluster, name: str, namespace: str, *, write: Callable[[bytes], object],
        say: Callable[[str], None], marks: Path, start_timeout: float,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._name = name
        self._namespace = namespace
        self._write = write
        self._say = say
        self._marks = marks
        self._start_timeout = start_timeout
        self._logs: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._pods: dict[str, Pod] = {}
        self._present: frozenset[str] = frozenset()
        self._many = False
        self._told = ""
        self._obstacle_since: float | None = None

    async def end(self) -> JobEnd:
        """Wait for the Job's end. Raises DependencyFailed when it cannot begin, is deleted, or the cluster is away."""
        pause, begun, silent = FIRST_LOOK, time.monotonic(), 0.0
        try:
            while True:
                try:
                    job = await self._look()
                    silent = 0.0
                except DeletedError:
                    raise
                except DependencyFailed as error:
                    silent = silent or time.monotonic()
                    if error.hint == PERMISSIONS or time.monotonic() - silent > PATIENCE:
                        raise
                    self._tell(f"{error.message}; asked again")
                    await asyncio.sleep(LOOK)
                    continue
                self._begin_logs()
                ended, words = job_end(job)
                if ended:
                    await self._finish_logs()
                    return self._end(ended == "complete", words)
                self._examine(begun)
                await asyncio.sleep(pause)
                pause = min(pause * 1.3, LOOK)
        finally:
            for task in self._logs.values():
                task.cancel()
            await asyncio.gather(*self._logs.values(), return_exceptions=True)

    async def _look(self) -> Mapping[str, Any]:
        job = await self._cluster.get(JOB, self._name, self._namespace)
        if job is None:
            raise DeletedError(f"the Job {self._name} was deleted by somebody else")
        spec = job.get("spec") or {}
        pods, _ = await self._cluster.objects(POD, labels=f"job-name={self._name}", namespace=self._namespace)
        self._present = frozenset(str(pod["metadata"]["name"]) for pod in pods)
        self._pods |= {str(pod["metadata"]["name"]): pod for pod in pods}
        containers = len((((spec.get("template") or {}).get("spec") or {}).get("containers")) or ())
        self._many = self._many or containers > 1 or int(spec.get("parallelism") or 1) > 1
        return job

    def _begin_logs(self) -> None:
        for task in self._logs.values():
            if task.done():
                task.result()  # a log that may not be read is told at once
        for name, pod in self._pods.items():
            spec = pod.get("spec") or {}
            for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
                at = (name, str(container["name"]))
                if at not in self._logs and container_state(pod, at[1]).phase != "waiting":
                    self._begin_log(*at)

    def _begin_log(self, pod: str, container: str) -> None:
        if not self._many and self._logs:
            self._say(f"forge: Pod {pod}, container {container}")  # another attempt, or what follows an init container
        mark = self._marks / f"{pod}.{container}"
        write = _prefixed(self._write, f"[{pod}/{container}] ".encode()) if self._many else self._write
        reader = Reader(_position(mark), write)

        def changed(position: Position) -> None:
            with contextlib.suppress(OSError):  # it costs doubled lines after a crash, no more
                mark.write_bytes(msgspec.json.encode(position))

        def over() -> bool:
            return pod not in self._present or container_state(self._pods[pod], container).phase == "ended"

        following = follow(
            self._cluster, pod, container, reader, over, namespace=self._namespace, changed=changed
        )  # fmt: skip
        self._logs[pod, container] = asyncio.create_task(following)

    async def _finish_logs(self) -> None:
        if not self._logs:
            return
        _, late = await asyncio.wait(self._logs.values(), timeout=LOG_PATIENCE)
        if late:
            self._say("forge: the end of the log could not be had in time")

    def _examine(self, begun: float) -> None:
        """Tell what keeps pods from running; raise when they are not going to."""
        now = time.monotonic()
        waiting = [pod for name, pod in self._pods.items() if name in self._present]
        found = next((one for pod in waiting if (one := obstacle(pod, self._start_timeout)) is not None), None)
        if found is not None:
            self._obstacle_since = self._obstacle_since or now
            self._tell(found.words)
            if now - self._obstacle_since >= found.patience:
                raise DependencyFailed(found.words)
            return
        self._obstacle_since = None
        if not self._pods and now - begun > self._start_timeout:
            raise DependencyFailed(f"the Job had no pod within {format_duration(self._start_timeout)}")

    def _end(self, succeeded: bool, words: str) -> JobEnd:
        if succeeded:
            return JobEnd(True, words)
        for pod in sorted(
            self._pods.values(), key=lambda one: str(one["metadata"].get("creationTimestamp")), reverse=True
        ):
            for container in (pod.get("spec") or {}).get("containers") or ():
                state = container_state(pod, str(container["name"]))
                if state.exit_code:
                    why = why_ended(pod, str(container["name"]), state) or f"exit code {state.exit_code}"
                    return JobEnd(False, f"{why}; {words}", state.exit_code)
            if taken := lost(pod):
                return JobEnd(False, f"{taken}; {words}")
        return JobEnd(False, words)

    def _tell(self, words: str) -> None:
        if words != self._told:
            self._told = words
            self._say(f"forge: {words}")


def _prefixed(write: Callable[[bytes], object], prefix: bytes) -> Callable[[bytes], object]:
    """Return a writer that puts `prefix` before every line: several logs at once have to be told apart."""

    def prefixed(data: bytes) -> None:
        lines = data.removesuffix(b"\n").split(b"\n")
        write(b"".join(prefix + line + b"\n" for line in lines))

    return prefixed


def _position(mark: Path) -> Position:
    try:
        return msgspec.json.decode(mark.read_bytes(), type=Position)
    except (OSError, msgspec.MsgspecError):
        return Position()
