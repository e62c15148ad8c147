"""One pod in the hands of a node: containers in order, probes, restarts, and the status that a kubelet would write."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cluster.api import Object
from cluster.container import Container, Fetch, NotConfigured, contents, environment
from cluster.node_addresses import shown
from cluster.probes import probed

FAIL = "forge.test/fail"
"""Annotation of a pod (or its template): never-ready, crash-loop, image-error, slow, stuck."""
SLOW_SECONDS = "forge.test/seconds"
"""Annotation: how long `slow` takes to become ready; 5 by default."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before a container that ended starts again; a kubelet begins with ten."""
STUCK = 3600.0

Report = Callable[[Object], Awaitable[None]]
"""Writes a pod's status."""


class PodRunner:
    """Runs one pod until it is stopped. `ip` is a loopback address of its own."""

    def __init__(self, pod: Object, ip: str, folder: Path, fetch: Fetch, report: Report) -> None:
        self.pod, self.ip, self.folder, self._fetch, self._report = pod, ip, folder, fetch, report
        self.failure = (pod["metadata"].get("annotations") or {}).get(FAIL, "")
        self.states: dict[str, Object] = {}
        self.running: dict[str, Container] = {}
        self.ready: dict[str, bool] = {}
        self.initialized = False
        self.stopping = False
        self._started = now()
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def log_file(self, container: str, *, previous: bool = False) -> Path:
        del previous  # one file holds all of a container's lives
        return self.folder / f"{container}.log"

    @property
    def restart_policy(self) -> str:
        return str(self.pod["spec"].get("restartPolicy", "Always"))

    async def stop(self, grace: float) -> None:
        """Run the preStop hooks, end every container, and return when all are gone."""
        self.stopping = True
        if self.failure == "stuck":
            await asyncio.sleep(STUCK)
        await asyncio.gather(*(self._stop_container(name, grace) for name in [*self.running]))
        self.abandon()

    def abandon(self) -> None:
        """End everything at once and say nothing: the node is gone."""
        self.stopping = True
        for container in self.running.values():
            container.kill(signal.SIGKILL)
        if self._task is not None:
            self._task.cancel()

    async def _stop_container(self, name: str, grace: float) -> None:
        container = self.running[name]
        hook = container.spec.get("lifecycle", {}).get("preStop", {})
        if "sleep" in hook:
            await asyncio.sleep(min(grace, hook["sleep"].get("seconds", 0)))
        elif "exec" in hook:
            with contextlib.suppress(OSError, TimeoutError):
                await probed({"exec": hook["exec"], "timeoutSeconds": grace}, self.ip, container)
        elif "httpGet" in hook:
            await probed({"httpGet": hook["httpGet"], "timeoutSeconds": grace}, self.ip, container)
        await container.stop(grace)

    async def _run(self) -> None:
        await self._tell()
        if self.failure == "image-error":
            await self._fail_image()
            return
        for spec in self.pod["spec"].get("initContainers", ()):
            if not await self._run_once(spec):
                await self._tell()
                return
        self.initialized = True
        containers = self.pod["spec"]["containers"]
        for spec in containers:
            self.states[spec["name"]] = {"state": {"waiting": {"reason": "ContainerCreating"}}, "restartCount": 0}
        await asyncio.gather(*(self._keep(spec) for spec in containers))
        await self._tell()

    async def _run_once(self, spec: Object) -> bool:
        """Run an init container, again and again while it fails and the pod may; return whether it succeeded."""
        pause, restarts = FIRST_PAUSE, 0
        while not self.stopping:
            ended = await self._life(spec, restarts)
            if ended == 0:
                return True
            if self.restart_policy == "Never":
                return False
            restarts += 1
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
        return False

    async def _keep(self, spec: Object) -> None:
        pause, restarts, name = FIRST_PAUSE, 0, spec["name"]
        while not self.stopping:
            began = time.monotonic()
            code = await self._life(spec, restarts)
            if self.stopping or self.restart_policy == "Never" or (self.restart_policy == "OnFailure" and code == 0):
                return
            if time.monotonic() - began > LONGEST_PAUSE * 3:
                pause = FIRST_PAUSE
            last = self.states[name]["state"]
            words = f"back-off {pause:g}s restarting failed container={name} pod={self.pod['metadata']['name']}"
            waiting = {"reason": "CrashLoopBackOff", "message": words}
            restarts += 1
            self.states[name] = {"state": {"waiting": waiting}, "lastState": last, "restartCount": restarts}
            await self._tell()
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _life(self, spec: Object, restarts: int) -> int:
        """Run a container once; return its exit code."""
        name, last = spec["name"], self.states.get(spec["name"], {}).get("lastState", {})
        began = now()
        try:
            env = await environment(spec, self.pod, self.ip, self._fetch)
            container = Container(self._spec_to_run(spec), env, await self._mounts(spec), self.log_file(name))
            await container.start()
        except (NotConfigured, OSError) as error:
            reason = "CreateContainerConfigError" if isinstance(error, NotConfigured) else "StartError"
            waiting = {"reason": reason, "message": str(error)}
            self.states[name] = {"state": {"waiting": waiting}, "lastState": last, "restartCount": restarts}
            await self._tell()
            return 128
        self.running[name] = container
        state = {"running": {"startedAt": began}}
        self.states[name] = {"state": state, "lastState": last, "restartCount": restarts, "started": True}
        probing = asyncio.create_task(self._probe(spec, container))
        self.ready[name] = "readinessProbe" not in spec and not self.failure
        await self._tell()
        try:
            code = await container.wait()
        finally:
            probing.cancel()
        self.ready[name] = False
        self.running.pop(name, None)
        reason = "OOMKilled" if container.out_of_memory else "Completed" if code == 0 else "Error"
        ended = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": now()}
        self.states[name] = {"state": {"terminated": ended}, "lastState": last, "restartCount": restarts}
        await self._tell()
        return code

    def _spec_to_run(self, spec: Object) -> Object:
        if self.failure == "crash-loop":
            return {**spec, "command": ["sh", "-c", "echo 'this version cannot start' >&2; exit 3"], "args": []}
        return spec

    async def _probe(self, spec: Object, container: Container) -> None:
        name = spec["name"]
        if "startupProbe" in spec and not await self._started_up(spec["startupProbe"], container):
            container.kill(signal.SIGTERM)
            return
        if self.failure == "slow":
            await asyncio.sleep(float((self.pod["metadata"].get("annotations") or {}).get(SLOW_SECONDS, 5)))
        probes = [self._ready_by(name, spec.get("readinessProbe"), container)]
        if "livenessProbe" in spec:
            probes.append(self._alive_by(spec["livenessProbe"], container))
        await asyncio.gather(*probes)

    async def _started_up(self, probe: Object, container: Container) -> bool:
        for _ in range(probe.get("failureThreshold", 3)):
            if await probed(probe, self.ip, container):
                return True
            await asyncio.sleep(min(1.0, probe.get("periodSeconds", 10)))
        return False

    async def _ready_by(self, name: str, probe: Object | None, container: Container) -> None:
        """Ask four times a second until it is ready for the first time, then as often as the probe says."""
        if self.failure == "never-ready":
            return
        if probe is None:
            await self._set_ready(name, ready=True)
            return
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        failures = successes = 0
        while True:
            good = await probed(probe, self.ip, container)
            failures, successes = (0, successes + 1) if good else (failures + 1, 0)
            if good and successes >= probe.get("successThreshold", 1):
                await self._set_ready(name, ready=True)
            elif failures >= probe.get("failureThreshold", 3):
                await self._set_ready(name, ready=False)
            await asyncio.sleep(probe.get("periodSeconds", 10) if self.ready.get(name) else 0.25)

    async def _alive_by(self, probe: Object, container: Container) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        failures = 0
        while True:
            failures = 0 if await probed(probe, self.ip, container) else failures + 1
            if failures >= probe.get("failureThreshold", 3):
                await container.stop(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
                return
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _set_ready(self, name: str, *, ready: bool) -> None:
        if self.ready.get(name) != ready:
            self.ready[name] = ready
            await self._tell()

    async def _fail_image(self) -> None:
        specs = self.pod["spec"]["containers"]
        pause = 0.5
        while not self.stopping:
            for reason in ("ErrImagePull", "ImagePullBackOff"):
                for spec in specs:
                    words = f'failed to pull image "{spec.get("image", "")}": not found'
                    words = words if reason == "ErrImagePull" else f'Back-off pulling image "{spec.get("image", "")}"'
                    self.states[spec["name"]] = {"state": {"waiting": {"reason": reason, "message": words}}, "restartCount": 0}
                await self._tell()
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)

    async def _mounts(self, spec: Object) -> list[tuple[Path, str]]:
        volumes = {each["name"]: each for each in self.pod["spec"].get("volumes", ())}
        found = []
        for mount in spec.get("volumeMounts", ()):
            folder = await self._volume(volumes[mount["name"]])
            found.append((folder / mount["subPath"] if mount.get("subPath") else folder, mount["mountPath"]))
        return found

    async def _volume(self, volume: Object) -> Path:
        if "hostPath" in volume:
            path = Path(volume["hostPath"]["path"])
            if volume["hostPath"].get("type") in {"DirectoryOrCreate", "", None}:
                path.mkdir(parents=True, exist_ok=True)
            return path
        folder = self.folder / "volumes" / volume["name"]
        folder.mkdir(parents=True, exist_ok=True)
        for plural, name, optional in _sources(volume):
            item = await self._fetch(plural, name)
            if item is None:
                if optional:
                    continue
                raise NotConfigured(f'{plural.removesuffix("s")} "{name}" not found')
            chosen = {each["key"]: each["path"] for each in _items(volume)}
            for key, value in contents(item).items():
                if not chosen or key in chosen:
                    (folder / chosen.get(key, key)).write_bytes(value)
        return folder

    async def _tell(self) -> None:
        if not self.stopping:
            await self._report(self.status())

    def status(self) -> Object:
        """Return the status that a kubelet would write."""
        specs = self.pod["spec"]["containers"]
        told = [self._container_status(spec) for spec in specs]
        init = [self._container_status(spec) for spec in self.pod["spec"].get("initContainers", ())]
        ready = bool(told) and all(each["ready"] for each in told) and self.initialized
        phase = self._phase([each["state"] for each in told], [each["state"] for each in init])
        at = now()
        conditions = [
            {"type": kind, "status": str(value), "lastTransitionTime": at,
             **({} if value else {"reason": "ContainersNotReady", "message": "containers with unready status: " + str(
                 [each["name"] for each in told if not each["ready"]])})}
            for kind, value in (("PodReadyToStartContainers", True), ("Initialized", self.initialized),
                                ("ContainersReady", ready), ("Ready", ready))
        ]  # fmt: skip
        status: Object = {
            "phase": phase, "conditions": conditions, "startTime": self._started, "hostIP": "127.0.0.1",
            "hostIPs": [{"ip": "127.0.0.1"}], "podIP": shown(self.ip), "podIPs": [{"ip": shown(self.ip)}], "containerStatuses": told,
        }  # fmt: skip
        if init:
            status["initContainerStatuses"] = init
        return status

    def _container_status(self, spec: Object) -> Object:
        known = self.states.get(spec["name"], {"state": {"waiting": {"reason": "PodInitializing"}}, "restartCount": 0})
        return {
            "name": spec["name"], "image": spec.get("image", ""), "imageID": "", "started": False, "lastState": {},
            **known, "ready": self.ready.get(spec["name"], False) and "running" in known["state"],
        }  # fmt: skip

    def _phase(self, states: list[Object], init: list[Object]) -> str:
        failed_init = any((state.get("terminated") or {}).get("exitCode") for state in init)
        if failed_init and self.restart_policy == "Never":
            return "Failed"
        ended = [state["terminated"]["exitCode"] for state in states if "terminated" in state]
        if self.initialized and len(ended) == len(states) and self.restart_policy != "Always":
            if all(code == 0 for code in ended):
                return "Succeeded"
            if self.restart_policy == "Never":
                return "Failed"
        return "Running" if any("running" in state or "terminated" in state for state in states) or self._was_up else "Pending"

    @property
    def _was_up(self) -> bool:
        return any(state.get("restartCount") for state in self.states.values())


def _sources(volume: Object) -> list[tuple[str, str, bool]]:
    found: list[tuple[str, str, bool]] = []

    def add(plural: str, source: Any, key: str) -> None:
        if source:
            found.append((plural, source[key], bool(source.get("optional"))))

    add("configmaps", volume.get("configMap"), "name")
    add("secrets", volume.get("secret"), "secretName")
    for each in (volume.get("projected") or {}).get("sources", ()):
        add("configmaps", each.get("configMap"), "name")
        add("secrets", each.get("secret"), "name")
    return found


def _items(volume: Object) -> list[Object]:
    source = volume.get("secret") or volume.get("configMap") or {}
    return list(source.get("items") or ())


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def forget(folder: Path) -> None:
    """Remove a pod's folder."""
    shutil.rmtree(folder, ignore_errors=True)
