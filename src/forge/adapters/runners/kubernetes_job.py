"""Runs a step's command in a pod of a cluster: a Job that goes on without a worker and is found again by its name."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import Conflict
from forge.adapters.kubernetes.following import Position, Reader, follow
from forge.adapters.kubernetes.kinds import JOB, POD, SECRET
from forge.adapters.kubernetes.naming import annotation
from forge.adapters.runners.base import Finished, OutputSink, StepFiles
from forge.adapters.runners.kubernetes_objects import (
    COMMAND,
    KEY,
    StepObjects,
    build,
    hash_of,
    is_shared,
    job_name,
    owned,
    places,
)
from forge.adapters.runners.kubernetes_pod import StepPod
from forge.adapters.runners.kubernetes_workspace import WorkspaceCarrier, told_size
from forge.adapters.runners.process import uninterrupted
from forge.model.configs import KubernetesRunnerConfig
from forge.model.errors import DependencyFailed

LOG_PATIENCE = 30.0
"""Seconds that the rest of a log may take when its command has ended."""
LINGER = 30.0
"""Seconds beyond its grace that a pod may take to be gone."""


async def always() -> bool:
    """Every cancellation is meant for the command."""
    return True


class KubernetesRunner:
    """A `Runner` whose commands are Jobs of one pod.

    `scope` keeps projects apart that use one cluster. `told_to_stop` is asked when `run` is cancelled: True ends
    the pod; False leaves it to the next worker, which finds it by the step's key.
    """

    local = False

    def __init__(
        self,
        config: KubernetesRunnerConfig,
        cluster: Cluster,
        *,
        scope: str = "",
        told_to_stop: Callable[[], Awaitable[bool]] = always,
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._scope = scope
        self._told_to_stop = told_to_stop

    async def run(
        self,
        argv: Sequence[str],
        *,
        key: str,
        cwd: Path,
        env: Mapping[str, str],
        output: OutputSink,
        timeout: float | None = None,
        grace: float = 10.0,
        files: StepFiles | None = None,
    ) -> Finished:
        """Run `argv` in a pod and return how it ended. See `Runner`."""
        files = files or StepFiles(cwd)
        step = _Step(self._cluster, self._config, job_name(key, self._scope), files, output)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(timeout) as limit:
                await step.begin(
                    lambda: build(
                        argv, key=key, scope=self._scope, cwd=cwd, env=env, files=files, config=self._config,
                        shared_outputs=step.shared_outputs, timeout=timeout, grace=grace,
                    ),
                    key,
                )  # fmt: skip
                finished = await step.through(begun)
        except TimeoutError:
            if not limit.expired():
                raise
            await uninterrupted(lambda: self._end(step, grace))
            return Finished(-1, time.monotonic() - begun, timed_out=True)
        except asyncio.CancelledError:
            if await asyncio.shield(self._told_to_stop()):
                await uninterrupted(lambda: self._end(step, grace))
            raise
        except DependencyFailed:
            await uninterrupted(lambda: self._end(step, grace))
            raise
        finally:
            await step.stop_following()
        await uninterrupted(step.remove)
        return finished

    async def kill(self, key: str, grace: float = 0.0) -> int:
        """End the pod of step `key`, whichever worker began it; return how many there were."""
        name = job_name(key, self._scope)
        pods, _ = await self._cluster.objects(POD, labels=f"job-name={name}")
        await end_job(self._cluster, name, grace)
        return len(pods)

    async def _end(self, step: _Step, grace: float) -> None:
        # What the command says while it ends is followed, too.
        with contextlib.suppress(DependencyFailed):
            await end_job(self._cluster, step.name, grace)
        step.forget()


async def end_job(cluster: Cluster, name: str, grace: float, namespace: str = "") -> None:
    """Delete a Job and wait until its pods are gone, at most some seconds longer than their grace."""
    await cluster.delete(JOB, name, namespace=namespace)
    with contextlib.suppress(DependencyFailed):
        await cluster.delete(SECRET, name, namespace=namespace)
    deadline = time.monotonic() + grace + LINGER
    pause = 0.1
    while time.monotonic() < deadline:
        pods, _ = await cluster.objects(POD, labels=f"job-name={name}", namespace=namespace)
        if not pods:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 1.0)


class _Step:
    """One step's Job from its creation to its removal."""

    def __init__(
        self, cluster: Cluster, config: KubernetesRunnerConfig, name: str, files: StepFiles, output: OutputSink
    ) -> None:
        self.name = name
        self._cluster = cluster
        self._files = files
        self._output = output
        self._say = _line_writer(output)
        self._pod = StepPod(cluster, name, self._say, config.start_timeout)
        private = files.workspace.with_name(f"{files.workspace.name}.private") / f"pod-{hash_of(name)[:12]}"
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._private = private
        self._log: asyncio.Task[None] | None = None
        self.shared_outputs: Path | None = None
        self._carrier: WorkspaceCarrier | None = None
        if is_shared(config):
            self.shared_outputs = private / "taken"
            self.shared_outputs.mkdir(exist_ok=True)
            self.shared_outputs.chmod(0o777)  # the pod may be another user; the folder around it lets nobody in here
        else:
            self._carrier = WorkspaceCarrier(cluster, files, places(config, files), private)

    async def begin(self, objects: Callable[[], StepObjects], key: str) -> None:
        """Have the Job run: the one that another worker began, or a new one. Idempotent, whatever was done of it."""
        job = await self._cluster.get(JOB, self.name)
        if job is None:
            made = await asyncio.to_thread(objects)
            with contextlib.suppress(Conflict):
                job = await self._cluster.create(made.job)
            job = job or await self._cluster.get(JOB, self.name)
        elif annotation(job, KEY) != key:
            raise DependencyFailed(
                f"the Job {self.name} is there already and belongs to {annotation(job, KEY) or 'somebody'}"
            )
        if job is None:
            raise DependencyFailed(f"the Job {self.name} was deleted by somebody else")
        if (job.get("spec") or {}).get("suspend"):
            secret = (await asyncio.to_thread(objects)).secret
            with contextlib.suppress(Conflict):
                await self._cluster.create(owned(secret, job))
            await self._cluster.patch(JOB, self.name, {"spec": {"suspend": False}})

    async def through(self, begun: float) -> Finished:
        """Follow the command to its end; return it when workspace and outputs are back."""
        await self._pod.watch(self._follow, self._deliver if self._carrier else None)
        if self._pod.command.phase == "ended":
            await self._follow()
        if self._log is not None:
            done, _ = await asyncio.wait((self._log,), timeout=LOG_PATIENCE)
            for task in done:
                task.result()
            if not done:
                self._say("forge: the end of the log could not be had in time")
        finished = self._pod.finished(time.monotonic() - begun)
        await self._fetch(finished)
        return finished

    async def remove(self) -> None:
        """Delete the Job, its pod and its Secret; what cannot be deleted now expires by itself."""
        with contextlib.suppress(DependencyFailed):
            await self._cluster.delete(JOB, self.name)
            await self._cluster.delete(SECRET, self.name)
        self.forget()

    def forget(self) -> None:
        """Remove what was kept beside the workspace."""
        shutil.rmtree(self._private, ignore_errors=True)

    async def stop_following(self) -> None:
        """Let go of the log."""
        if self._log is not None:
            self._log.cancel()
            await asyncio.gather(self._log, return_exceptions=True)

    async def _follow(self) -> None:
        if self._log is not None:
            if self._log.done():
                self._log.result()  # a log that may not be read is told at once
            return
        mark = self._private / "position"
        reader = Reader(_position(mark), self._output.write)

        def changed(position: Position) -> None:
            with contextlib.suppress(OSError):  # it costs a doubled line after a crash, no more
                mark.write_bytes(msgspec.json.encode(position))

        following = follow(
            self._cluster, self._pod.pod_name, COMMAND, reader, self._pod.ended_now, changed=changed
        )  # fmt: skip
        self._log = asyncio.create_task(following)

    async def _deliver(self, pod: str) -> None:
        if self._carrier is not None:
            size = await self._carrier.deliver(pod)
            self._say(f"forge: the workspace was sent to Pod {pod} ({told_size(size)})")

    async def _fetch(self, finished: Finished) -> None:
        """Bring outputs and workspace back. A command that failed has failed, whether they come or not."""
        try:
            if self._carrier is not None:
                mark = self._private / "fetched"
                if not mark.exists():  # a worker that fetched it may have died before it could say so
                    await self._carrier.fetch(self._pod.pod_name)
                    mark.touch()
            elif self.shared_outputs is not None:
                await asyncio.to_thread(_take_outputs, self.shared_outputs, self._files.writes)
        except DependencyFailed as error:
            if finished.exit_code == 0:
                raise
            self._say(f"forge: {error.message}")


def _take_outputs(shared: Path, wanted: Sequence[Path]) -> None:
    for path in wanted:
        source = shared / path.name
        try:
            if source.is_file() and not source.is_symlink():
                shutil.copyfile(source, path)
        except OSError as error:
            raise DependencyFailed(f"the outputs could not be read: {error}") from error


def _position(mark: Path) -> Position:
    try:
        return msgspec.json.decode(mark.read_bytes(), type=Position)
    except (OSError, msgspec.MsgspecError):
        return Position()


def _line_writer(output: OutputSink) -> Callable[[str], None]:
    """Return what writes a line of Forge's own: a step's log puts it on a line of its own."""
    say = getattr(output, "say", None)
    if callable(say):
        return say  # type: ignore[no-any-return]
    return lambda line: output.write(f"{line}\n".encode())
