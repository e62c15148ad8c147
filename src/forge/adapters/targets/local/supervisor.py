"""Keeps an environment's replicas and proxy as they are wanted: starts, watches, probes, drains, stops.

What to do is decided by `reconcile.py`; here it is done. Order matters in two places: a process runs its
command only after it is on record, and a replica leaves the proxy before it is told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from forge.adapters.routers.envoy_config import cluster_name
from forge.adapters.targets.local import logs, proxy_process, readiness, reconcile, scraped, versions
from forge.adapters.targets.local.folders import EnvironmentFolder, replace_file
from forge.adapters.targets.local.processes import (
    ProcessIdentity,
    is_alive,
    kill_leftovers,
    signal_group,
    watch,
)
from forge.adapters.targets.local.proxy import ProxyFiles
from forge.adapters.targets.local.records import forgotten, load_state, since_boot, state_view
from forge.adapters.targets.local.replicas import (
    Gated,
    choose_port,
    clean_environment,
    describe_exit,
    port_is_free,
    start_gated,
)
from forge.adapters.targets.local.state import AgentState, Replica
from forge.model.errors import DependencyFailed

_HOUSEKEEPING = 2.0
_ADMIN_PATIENCE = 10.0
_ABANDON_GRACE = 2.0
_DRAIN_POLL = 0.05

ProbeKind = Literal["ready", "live"]


class Supervisor:
    """The one that looks after an environment. Use from one event loop only; `state` is always as saved."""

    def __init__(self, folder: EnvironmentFolder, *, clock: Callable[[], float] = since_boot) -> None:
        self.folder = folder
        self.runtime = folder.runtime()
        self.files = ProxyFiles(folder, self.runtime)
        self.clock = clock
        self.state = load_state(folder)
        root = str(folder.root.resolve())
        if self.state.folder != root:
            self.state = replace(forgotten(self.state), folder=root)
        self.changed = asyncio.Event()
        self.settled = asyncio.Condition()
        self.traffic = asyncio.Lock()
        """Held while a table is handed over, and while a version that a table may name goes."""
        self.proxy_wanted = True
        self.holds: Callable[[], bool] = lambda: True
        """Whether the environment's folder is still ours."""
        self._saved: AgentState | None = None
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._watched: dict[str, tuple[ProcessIdentity, int]] = {}
        self._probes: dict[tuple[str, ProbeKind], tuple[ProcessIdentity, asyncio.Task[None]]] = {}
        self._idle: dict[str, int] = {}
        self._idle_since_polls = 2
        self._scraped = ""

    def update(self, state: AgentState) -> None:
        """Take a new state over, durably, and have the loop look at it."""
        self.state = state
        self.save()
        self.changed.set()

    def save(self) -> None:
        """Put the state on disk, if it is not there yet."""
        if self.state != self._saved and self.holds():
            replace_file(self.folder.state, msgspec.json.encode(self.state), durable=True, mode=0o600)
            self._saved = self.state

    def adopt(self) -> None:
        """Take over what an earlier agent left running."""
        alive = {
            key
            for key, replica in self.state.replicas.items()
            if replica.process is not None and self._watch(key, replica.process)
        }
        for key, replica in self.state.replicas.items():
            if replica.process is not None and key not in alive:
                kill_leftovers(replica.process, _mark(replica))
        state = reconcile.adopt(self.state, alive, self.clock())
        state = replace(state, proxy=replace(state.proxy, retry_at=0.0))
        process = state.proxy.process
        if process is not None and not self._watch("", process):
            state = proxy_process.on_exit(state, "was gone when the agent came back", self.clock())
        self.update(state)
        if state.stopping:
            self.stop_proxy()

    async def run(self) -> None:
        """Look after everything until everything was told to stop and is gone."""
        tasks = [asyncio.create_task(self._drain_watch()), asyncio.create_task(self._housekeeping())]
        try:
            while not self._done() and self.holds():
                self.changed.clear()
                wake_at = await self._step()
                async with self.settled:
                    self.settled.notify_all()
                delay = None if wake_at is None else max(0.0, wake_at - self.clock())
                try:
                    await asyncio.wait_for(self.changed.wait(), delay)
                except TimeoutError:
                    continue
        finally:
            for task in [*tasks, *(task for _, task in self._probes.values())]:
                task.cancel()

    def _done(self) -> bool:
        gone = not self.state.replicas and self.state.proxy.process is None
        return self.state.stopping and gone

    async def _step(self) -> float | None:
        """Decide and do, once; return when to do so again at the latest."""
        now = self.clock()
        idle = frozenset(key for key, polls in self._idle.items() if polls >= self._idle_since_polls)
        before = set(self.state.wishes)
        decided = reconcile.reconcile(self.state, now, idle)
        self.state = decided.state
        proxy_wake = self._keep_proxy(now)
        gates = [self._start(action.key) for action in decided.actions if action.kind == "start"]
        self.save()
        for gate in gates:
            if gate is not None:
                gate.go()
        self.publish()
        for action in decided.actions:
            self._stop(action)
        for version in before - set(self.state.wishes):
            aside = versions.put_aside(self.folder, version)
            await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
        self._keep_probes()
        if gates:
            self.changed.set()
        return min((wake for wake in (decided.wake_at, proxy_wake) if wake is not None), default=None)

    # Processes

    def _start(self, key: str) -> Gated | None:
        """Start a replica up to its gate. What fails becomes the replica's message."""
        replica = self.state.replicas[key]
        wish = self.state.wishes[replica.version]
        folder = self.folder.working_directory(replica.version)
        try:
            port = self._port_for(replica)
            env = self.environment_of(replica, port)
            log = self.folder.log(replica.version, replica.number)
            gate = start_gated(wish.config.command, env=env, cwd=folder, log=log)
        except OSError as error:
            reason = f"replica {replica.number} cannot be started: {error}"
            self.state = reconcile.on_start_failed(self.state, key, reason, self.clock())
            return None
        self._children[gate.process.pid] = gate.process
        self.state = reconcile.on_started(self.state, key, gate.identity, port, self.clock())
        self._watch(key, gate.identity)
        return gate

    def _port_for(self, replica: Replica) -> int:
        """Return the replica's own port, or another one if a stranger has taken it meanwhile."""
        if replica.port and port_is_free(replica.port):
            return replica.port
        taken = {other.port for other in self.state.replicas.values()} | {self.state.proxy.port}
        return choose_port(taken)

    def environment_of(self, replica: Replica, port: int) -> dict[str, str]:
        """Return the whole environment of a replica's command."""
        wish = self.state.wishes[replica.version]
        told = {
            "PORT": str(port),
            "FORGE_VERSION": replica.version,
            "FORGE_REPLICA": str(replica.number),
            "FORGE_ENVIRONMENT": self.state.environment,
        }
        return {**clean_environment(), **wish.config.env, **told}

    def _watch(self, key: str, process: ProcessIdentity) -> bool:
        """Have `_on_exit` called when a process ends; return whether it still runs. The proxy's key is empty."""
        descriptor = watch(process)
        if descriptor is None:
            if process.pid in self._children:
                # It ended before it could be watched; its exit is reported like any other.
                asyncio.get_running_loop().call_soon(self._on_exit, key, process)
            return False
        self._watched[key] = (process, descriptor)
        asyncio.get_running_loop().add_reader(descriptor, self._on_exit, key, process)
        return True

    def _on_exit(self, key: str, process: ProcessIdentity) -> None:
        if self._watched.get(key, (None, 0))[0] == process:
            _, descriptor = self._watched.pop(key)
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        child = self._children.pop(process.pid, None)
        how = describe_exit(child.wait() if child else None)
        if not key:
            last = logs.last_lines(self.folder.envoy_log, 1)
            self.update(proxy_process.on_exit(self.state, " ".join([how, *last]), self.clock()))
            return
        replica = self.state.replicas.get(key)
        if replica is None or replica.process != process:
            return
        kill_leftovers(process, _mark(replica))
        tail = " | ".join(logs.last_lines(self.folder.log(replica.version, replica.number), 5))[-1000:]
        self._idle.pop(key, None)
        self.update(reconcile.on_exit(self.state, key, how, tail, self.clock()))

    def _stop(self, action: reconcile.Action) -> None:
        replica = self.state.replicas.get(action.key)
        if action.kind == "start" or replica is None or replica.process is None:
            return
        signal_group(replica.process, signal.SIGTERM if action.kind == "terminate" else signal.SIGKILL)

    # Readiness and liveness

    def _keep_probes(self) -> None:
        """Have exactly one probe of each kind that is asked for, for each running replica."""
        running: dict[tuple[str, ProbeKind], ProcessIdentity] = {}
        for key, replica in self.state.replicas.items():
            if replica.phase == "running" and replica.process is not None:
                running[key, "ready"] = replica.process
                if self.state.wishes[replica.version].config.live is not None:
                    running[key, "live"] = replica.process
        for name, (process, task) in list(self._probes.items()):
            if running.get(name) != process:
                task.cancel()
                del self._probes[name]
        for (key, kind), process in running.items():
            if (key, kind) not in self._probes:
                self._probes[key, kind] = (process, asyncio.create_task(self._probe(key, kind, process)))

    async def _probe(self, key: str, kind: ProbeKind, process: ProcessIdentity) -> None:
        while True:
            replica = self.state.replicas.get(key)
            if replica is None or replica.process != process or replica.phase != "running":
                return
            wanted = self.state.wishes[replica.version].config
            config = wanted.live if kind == "live" else wanted.ready
            if config is None:
                return
            folder = self.folder.working_directory(replica.version)
            env = self.environment_of(replica, replica.port)
            reason = await readiness.probe(config, replica.port, env=env, cwd=folder)
            current = self.state.replicas.get(key)
            if current is None or current.process != process:
                return
            answered = reconcile.on_live if kind == "live" else reconcile.on_probe
            after = answered(self.state, key, reason, self.clock())
            if after != self.state:
                self.update(after)
                if current.condemned_at is None and after.replicas[key].condemned_at is not None:
                    self.publish()  # it leaves the proxy before it is told to stop
                    signal_group(process, signal.SIGTERM)
            await asyncio.sleep(max(0.01, config.interval))

    # Proxy

    def publish(self) -> None:
        """Write endpoints and clusters as they are now."""
        config = self.state.proxy.config
        for version in self.state.wishes:
            self.files.write_endpoints(version, *reconcile.endpoints(self.state, version))
        self.files.write_clusters(list(self.state.wishes), config)
        listed = scraped.targets(self.state)
        if listed != self._scraped:
            with contextlib.suppress(OSError):  # who only watches is no reason to disturb the traffic
                replace_file(self.folder.root / scraped.FILE, listed)
                self._scraped = listed

    def _keep_proxy(self, now: float) -> float | None:
        """Start Envoy if it should run and does not; return when to try again."""
        proxy = self.state.proxy
        known = bool(self.state.environment)
        if proxy.process is not None or not known or not self.proxy_wanted or self.state.stopping:
            return None
        if now < proxy.retry_at:
            return proxy.retry_at
        try:
            self.publish()
            self.state, gate = proxy_process.start(self.state, self.files, now)
        except OSError as error:
            self.state = proxy_process.on_start_failed(self.state, str(error), now)
            return self.state.proxy.retry_at
        self._children[gate.process.pid] = gate.process
        self._watch("", gate.identity)
        self.save()
        gate.go()
        return None

    def stop_proxy(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Tell Envoy to end."""
        process = self.state.proxy.process
        if process is not None:
            signal_group(process, number)

    async def _drain_watch(self) -> None:
        """Notice when nothing is in flight to replicas that drain."""
        while True:
            await asyncio.sleep(_DRAIN_POLL)
            draining = {k: r for k, r in self.state.replicas.items() if r.phase == "draining" and r.process}
            if not draining:
                self._idle.clear()
                continue
            quiet = await self._quiet(draining)
            for key in draining:
                # Twice in a row: Envoy's threads learn a moment after each other that a replica drains.
                self._idle[key] = self._idle.get(key, 0) + 1 if key in quiet else 0
            if any(polls >= self._idle_since_polls for polls in self._idle.values()):
                self.changed.set()

    async def _quiet(self, draining: dict[str, Replica]) -> set[str]:
        process = self.state.proxy.process
        if process is None or not is_alive(process):
            return set(draining)
        try:
            hosts = await self.files.hosts()
        except DependencyFailed:
            return set()
        quiet = set()
        for key, replica in draining.items():
            host = hosts.get(cluster_name(replica.version), {}).get(replica.port)
            if host is not None and host.health == "DRAINING" and host.active == 0:
                quiet.add(key)
        return quiet

    async def abandon(self) -> None:
        """Stop everything, at once and without a record: the environment's folder was removed."""
        leaders = [(replica.process, _mark(replica)) for replica in self.state.replicas.values() if replica.process]
        self.stop_proxy()
        for process, _ in leaders:
            signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + _ABANDON_GRACE
        while time.monotonic() < deadline and any(is_alive(process) for process, _ in leaders):
            await asyncio.sleep(0.02)
        self.stop_proxy(signal.SIGKILL)
        for process, mark in leaders:
            signal_group(process, signal.SIGKILL)
            kill_leftovers(process, mark)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            if not self.holds():
                self.changed.set()
                return
            try:
                await asyncio.to_thread(logs.rotate_all, self.folder)
                await asyncio.to_thread(logs.prune, self.folder, set(self.state.wishes))
                self.files.forget(set(self.state.wishes))
                self._keep_sockets()
            except OSError as error:
                sys.stderr.write(f"housekeeping: {error}\n")

    def _keep_sockets(self) -> None:
        """Keep cleaners of /tmp, which go by age, from the sockets."""
        for path in (self.runtime, *self.runtime.iterdir()):
            os.utime(path)
        proxy = self.state.proxy
        old = self.clock() - proxy.started_at > _ADMIN_PATIENCE
        if proxy.process is not None and old and not self.files.admin.path.exists():
            self.stop_proxy()  # it cannot be asked any more; it comes back with a new socket

    def processes(self) -> dict[str, dict[str, int]]:
        """Return the pids of running replicas, by version and replica number."""
        found: dict[str, dict[str, int]] = {version: {} for version in self.state.wishes}
        for replica in self.state.replicas.values():
            if replica.process is not None:
                found.setdefault(replica.version, {})[str(replica.number)] = replica.process.pid
        return found

    def view(self) -> dict[str, Any]:
        """Return everything for people, as JSON data."""
        return state_view(self.state, os.getpid())


def _mark(replica: Replica) -> str:
    return f"FORGE_VERSION={replica.version}"
