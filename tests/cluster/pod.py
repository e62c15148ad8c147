"""One pod in the hands of a node: containers in order, probes, restarts, and the status that a kubelet would write.

What differs from a kubelet, to keep tests quick: restarts back off from half a second up to ten (there: ten seconds up
to five minutes), and a readiness probe is asked four times a second until it passes for the first time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2

from cluster.api import Object
from cluster.container import Container, Fetch, NotConfigured, environment
from cluster.pod_failures import CRASH, failure_of, image_problem, slowness_of
from cluster.pod_status import Record, now, status_of
from cluster.pod_volumes import materialise
from cluster.probes import probed

log = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
EAGER = 0.25
"""Seconds between two readiness probes until the first one that passes."""
LAST_WORDS = 2048
Report = Callable[[Object], Awaitable[bool]]
"""Writes a pod's status; returns whether the pod is still there. Raises httpx2's errors and OSError."""
Event = Callable[[str, str, str], None]
"""Tells an event of the pod: container ("" for the pod), reason, message."""


class PodRunner:
    """Runs one pod until it is stopped. `ip` is a loopback address of its own."""

    def __init__(self, pod: Object, ip: str, folder: Path, fetch: Fetch, report: Report, event: Event) -> None:
        self.pod, self.ip, self.folder = pod, ip, folder
        self._fetch, self._report, self._event = fetch, report, event
        self.failure = failure_of(pod)
        self.records: dict[str, Record] = {}
        self.running: dict[str, Container] = {}
        self.stopping = False
        self._mounted = self._initialized = False
        self._volumes: dict[str, Path] = {}
        self._lives: dict[str, int] = {}
        self._began = pod.get("status", {}).get("startTime") or now()
        self._changed, self._unstuck = asyncio.Event(), asyncio.Event()
        self._written: Object = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._changed.set()
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._publish())]
        for task in self._tasks:
            task.add_done_callback(_complain)

    def update(self, pod: Object) -> None:
        """Take note of changes to the object: labels, annotations, conditions of others."""
        before, self.pod = self.pod, pod
        if failure_of(pod) != "stuck":
            self._unstuck.set()
        if pod["spec"].get("readinessGates") and before["status"].get("conditions") != pod["status"].get("conditions"):
            self._changed.set()

    def log_file(self, container: str, *, previous: bool = False) -> Path | None:
        """Return the log of a container's present life, or of the last that ended; None where there is none.

        Between two lives both are the one that ended.
        """
        record = self.records.get(container)
        between = record is not None and "waiting" in record.state
        life = self._lives.get(container, 0) - (1 if previous and not between else 0)
        path = self._log(container, life)
        return path if path.exists() else None

    def _log(self, container: str, life: int) -> Path:
        return self.folder / f"{container}.{life}.log"

    @property
    def restart_policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy", "Always"))

    async def stop(self, grace: float) -> None:
        """Run the preStop hooks, end every container, and return when all are gone and that is written."""
        self.stopping = True
        if self.failure == "stuck" and grace:
            await self._unstuck.wait()
        await asyncio.gather(*(self._stop_container(name, grace) for name in [*self.running]))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                while self.running or self._changed.is_set():
                    await asyncio.sleep(0.01)
        self.abandon()

    def abandon(self) -> None:
        """End everything at once and say nothing: the node is gone."""
        self.stopping = True
        for container in self.running.values():
            container.kill(signal.SIGKILL)
        for task in self._tasks:
            task.cancel()

    async def _stop_container(self, name: str, grace: float) -> None:
        container, began = self.running[name], time.monotonic()
        hook = container.spec.get("lifecycle", {}).get("preStop", {})
        if "sleep" in hook:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(container.ended.wait(), min(grace, hook["sleep"].get("seconds", 0)))
        elif hook:
            await probed({**hook, "timeoutSeconds": max(grace, 0.1)}, self.ip, container)
        await container.stop(max(0.0, grace - (time.monotonic() - began)))

    async def _run(self) -> None:
        await self._mount()
        for spec in self.pod["spec"].get("initContainers", ()):
            if not await self._initialize(spec):
                self._changed.set()
                return
        self._initialized = True
        await asyncio.gather(*(self._keep(spec, self.restart_policy) for spec in self.pod["spec"]["containers"]))
        sidecars = {each["name"] for each in self.pod["spec"].get("initContainers", ())} & self.running.keys()
        self.stopping = True
        await asyncio.gather(*(self._stop_container(name, 2.0) for name in sidecars))
        self._changed.set()

    async def _mount(self) -> None:
        """Make the volumes; what is not there is waited for."""
        while True:
            try:
                self._volumes = await materialise(self.pod, self.ip, self.folder, self._fetch)
                break
            except NotConfigured as problem:
                self._event("", "FailedMount", f"MountVolume.SetUp failed: {problem}")
            except (httpx2.HTTPError, OSError):
                pass
            await asyncio.sleep(0.5)
        self._mounted = True
        self._changed.set()

    async def _initialize(self, spec: Object) -> bool:
        """Run an init container; return whether the next may begin. One that restarts always is a sidecar."""
        if spec.get("restartPolicy") == "Always":
            self._tasks.append(asyncio.create_task(self._keep(spec, "Always")))
            while not (record := self.records.get(spec["name"])) or not record.started:
                await asyncio.sleep(0.02)
            return True
        policy = "Never" if self.restart_policy == "Never" else "OnFailure"
        await self._keep(spec, policy)
        return self.records[spec["name"]].exit_code == 0

    async def _keep(self, spec: Object, policy: str) -> None:
        """Run a container again and again, as often as its policy says."""
        name, pause = spec["name"], FIRST_PAUSE
        record = self.records.setdefault(name, Record())
        while True:
            await self._pull(spec, record)
            began = time.monotonic()
            await self._live(spec, record)
            if self.stopping or policy == "Never" or (policy == "OnFailure" and record.exit_code == 0):
                return
            if time.monotonic() - began > LONGEST_PAUSE * 3:
                pause = FIRST_PAUSE
            where = "{name}_{namespace}({uid})".format_map(self.pod["metadata"])
            words = f"back-off {pause:g}s restarting failed container={name} pod={where}"
            record.wait("CrashLoopBackOff", words)
            self._changed.set()
            self._event(name, "BackOff", words)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
            record.restarts += 1

    async def _pull(self, spec: Object, record: Record) -> None:
        """Return when the container's image is there, which for some is never."""
        image, pause = spec.get("image", ""), FIRST_PAUSE
        while problem := image_problem(self.pod, image):
            record.wait("ErrImagePull", problem)
            self._changed.set()
            self._event(spec["name"], "Failed", problem)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
            record.wait("ImagePullBackOff", f'Back-off pulling image "{image}"')
            self._changed.set()
            self._event(spec["name"], "BackOff", f'Back-off pulling image "{image}"')
            await asyncio.sleep(pause)

    async def _live(self, spec: Object, record: Record) -> None:
        """Run a container once, from its configuration to its end."""
        container = await self._configured(spec, record)
        if self.stopping:
            return
        began = now()
        try:
            await container.start()
        except OSError as error:
            ended = {"exitCode": 128, "reason": "StartError", "message": str(error)}
            record.state = {"terminated": {**ended, "startedAt": began, "finishedAt": now()}}
            self._changed.set()
            return
        self.running[spec["name"]] = container
        if self.stopping:  # told to end while it began
            container.kill(signal.SIGTERM)
        record.state = {"running": {"startedAt": began}}
        record.started = "startupProbe" not in spec
        self._changed.set()
        probing = asyncio.create_task(self._probe(spec, record, container))
        try:
            code = await container.wait()
        finally:
            probing.cancel()
            container.kill(signal.SIGKILL)
        record.ready = record.started = False
        reason = "OOMKilled" if container.out_of_memory else "Completed" if code == 0 else "Error"
        ended = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": now()}
        if code and spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            ended["message"] = last_words(container.log)
        record.state = {"terminated": ended}
        self._changed.set()
        self.running.pop(spec["name"], None)

    async def _configured(self, spec: Object, record: Record) -> Container:
        """Return the container, with its environment and mounts, once all that they name is there."""
        while True:
            try:
                env = await environment(spec, self.pod, self.ip, self._fetch)
                mounts = [self._mount_of(each) for each in spec.get("volumeMounts", ())]
                run = {**spec, "command": CRASH, "args": []} if self.failure == "crash-loop" else spec
                life = self._lives[spec["name"]] = self._lives.get(spec["name"], -1) + 1
                return Container(run, env, mounts, self._log(spec["name"], life))
            except NotConfigured as problem:
                record.wait("CreateContainerConfigError", str(problem))
                self._changed.set()
                self._event(spec["name"], "Failed", f"Error: {problem}")
            except (httpx2.HTTPError, OSError):
                pass
            await asyncio.sleep(0.5)

    def _mount_of(self, mount: Object) -> tuple[Path, str]:
        folder = self._volumes[mount["name"]]
        if not mount.get("subPath"):
            return folder, mount["mountPath"]
        path = folder / mount["subPath"]
        if not path.exists():
            path.mkdir(parents=True)
        return path, mount["mountPath"]

    async def _probe(self, spec: Object, record: Record, container: Container) -> None:
        if "startupProbe" in spec:
            if not await self._passes(spec, "startup", container):
                await self._kill_unhealthy(spec, "startup", container)
                return
            record.started = True
            self._changed.set()
        await asyncio.sleep(slowness_of(self.pod))
        probes = [self._watch_readiness(spec, record, container)]
        if "livenessProbe" in spec:
            probes.append(self._watch_liveness(spec, container))
        await asyncio.gather(*probes)

    async def _passes(self, spec: Object, kind: str, container: Container) -> bool:
        """Return True as soon as a probe passes, False when it has failed as often as it may."""
        probe = spec[f"{kind}Probe"]
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        for _ in range(probe.get("failureThreshold", 3)):
            if await self._asked(spec, kind, container):
                return True
            await asyncio.sleep(probe.get("periodSeconds", 10))
        return False

    async def _asked(self, spec: Object, kind: str, container: Container) -> bool:
        reason = await probed(spec[f"{kind}Probe"], self.ip, container)
        if kind == "readiness" and self.failure == "never-ready":
            reason = reason or "forge.test/fail: never-ready"
        if reason:
            self._event(spec["name"], "Unhealthy", f"{kind.capitalize()} probe failed: {reason}")
        return not reason

    async def _watch_readiness(self, spec: Object, record: Record, container: Container) -> None:
        probe = spec.get("readinessProbe")
        if probe is None:
            self._set_ready(record, ready=self.failure != "never-ready")
            return
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        failures = successes = 0
        passed = False
        while True:
            good = await self._asked(spec, "readiness", container)
            failures, successes = (0, successes + 1) if good else (failures + 1, 0)
            if good and successes >= probe.get("successThreshold", 1):
                passed = True
                self._set_ready(record, ready=True)
            elif failures >= probe.get("failureThreshold", 3):
                self._set_ready(record, ready=False)
            await asyncio.sleep(probe.get("periodSeconds", 10) if passed else EAGER)

    async def _watch_liveness(self, spec: Object, container: Container) -> None:
        probe, failures = spec["livenessProbe"], 0
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while failures < probe.get("failureThreshold", 3):
            failures = 0 if await self._asked(spec, "liveness", container) else failures + 1
            await asyncio.sleep(probe.get("periodSeconds", 10))
        await self._kill_unhealthy(spec, "liveness", container)

    async def _kill_unhealthy(self, spec: Object, kind: str, container: Container) -> None:
        self._event(spec["name"], "Killing", f"Container {spec['name']} failed {kind} probe, will be restarted")
        await container.stop(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _set_ready(self, record: Record, *, ready: bool) -> None:
        if record.ready != ready:
            record.ready = ready
            self._changed.set()

    def status(self) -> Object:
        """Return the status that a kubelet would write now."""
        return status_of(
            self.pod, self.records, self.ip, self._began, mounted=self._mounted, initialized=self._initialized
        )

    async def _publish(self) -> None:
        """Write the status whenever it is another one, and again until the apiserver has taken it."""
        while True:
            await self._changed.wait()
            status = self.status()
            try:
                if not self._written or not _same(status, self._written):
                    there = await self._report(status)
                    self._written = status
                    if not there:
                        self._changed.clear()
                        return
                    self.pod = {**self.pod, "status": {**self.pod["status"], "conditions": _merged(self.pod, status)}}
            except (httpx2.HTTPError, OSError):
                await asyncio.sleep(0.2)
                continue
            if _same(self.status(), self._written):
                self._changed.clear()


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a pod is no longer looked after", exc_info=task.exception())


def _merged(pod: Object, status: Object) -> list[Object]:
    """Return the conditions as they are once the status is written: those of others stay."""
    own = {each["type"] for each in status["conditions"]}
    return [*(each for each in pod["status"].get("conditions", ()) if each["type"] not in own), *status["conditions"]]


def _same(one: Object, other: Object) -> bool:
    def bare(status: Object) -> Object:
        return {**status, "conditions": [{**each, "lastTransitionTime": ""} for each in status["conditions"]]}

    return bare(one) == bare(other)


def last_words(log: Path) -> str:
    """Return the end of a log, as the message of a container that failed."""
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()[-80:]
        return "\n".join(line.partition(" ")[2] for line in lines)[-LAST_WORDS:]
    return ""


def forget(folder: Path) -> None:
    """Remove a pod's folder."""
    shutil.rmtree(folder, ignore_errors=True)
