"""One container as a process of this machine: its environment, its files, its output, its end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import datetime as dt
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from cluster.api import Object

Fetch = Callable[[str, str], Awaitable[Object | None]]
"""Returns the ConfigMap or Secret (`configmaps`, `secrets`) of that name in the pod's namespace."""
_LINE = 256 * 1024
_PDEATHSIG = 1


ENTRYPOINT = [sys.executable, "-S", "-E", str(Path(__file__).with_name("entrypoint.py"))]
"""What an image would run: there are none, so a container without a `command` gets a small web server."""


class NotConfigured(Exception):
    """What the container needs is not there (CreateContainerConfigError)."""


class Container:
    """A process that is started once; a restart is another one that writes to the same log."""

    def __init__(self, spec: Object, env: dict[str, str], mounts: list[tuple[Path, str]], log: Path) -> None:
        self.spec, self.env, self.mounts, self.log = spec, env, mounts, log
        self.process: asyncio.subprocess.Process | None = None
        self.out_of_memory = False
        self.ended = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @property
    def cwd(self) -> str:
        """Where it works: a folder of its own unless it says."""
        return str(self.spec.get("workingDir") or self.log.parent)

    @property
    def _marker(self) -> Path:
        """There while the container runs, for whoever follows its log."""
        return self.log.with_suffix(".running")

    async def start(self) -> None:
        words = [expanded(word, self.env) for word in [*self.spec.get("command", ()), *self.spec.get("args", ())]]
        if not self.spec.get("command"):
            words = [*ENTRYPOINT, json.dumps(self.spec.get("ports", [])), *words]
        self.process = await asyncio.create_subprocess_exec(
            *mounted(words, self.mounts, self.cwd), env=self.env,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            start_new_session=True, limit=_LINE, preexec_fn=_die_with_the_agent,
        )  # fmt: skip
        self._marker.touch()
        self._reading = asyncio.create_task(self._keep_output())

    async def wait(self) -> int:
        """Return the exit code as a kubelet tells it: 137 for SIGKILL."""
        assert self.process
        assert self._reading
        limit = quantity(self.spec.get("resources", {}).get("limits", {}).get("memory", ""))
        watching = asyncio.create_task(self._watch_memory(limit)) if limit else None
        try:
            code = await self.process.wait()
            self.ended.set()
        finally:
            if watching:
                watching.cancel()
        await asyncio.wait({self._reading}, timeout=1)
        self._marker.unlink(missing_ok=True)
        return code if code >= 0 else 128 - code

    async def stop(self, grace: float) -> None:
        """TERM to the container's first process alone, as there, and KILL to all of them after the grace."""
        if self.process is None:
            return
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), grace)
        self.kill(signal.SIGKILL)

    def kill(self, how: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, how)

    async def _keep_output(self) -> None:
        assert self.process
        assert self.process.stdout
        with self.log.open("ab", buffering=0) as file:
            while True:
                try:
                    line = await self.process.stdout.readline()
                except ValueError:  # longer than anybody reads
                    continue
                if not line:
                    return
                now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
                file.write(f"{now}000Z ".encode() + line.rstrip(b"\n") + b"\n")

    async def _watch_memory(self, limit: float) -> None:
        assert self.process
        while True:
            await asyncio.sleep(0.1)
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(self.process.pid)
                used = sum(each.memory_info().rss for each in [root, *root.children(recursive=True)])
                if used > limit:
                    self.out_of_memory = True
                    self.kill(signal.SIGKILL)


async def environment(container: Object, pod: Object, pod_ip: str, fetch: Fetch) -> dict[str, str]:
    """Return the variables of a container. Raises NotConfigured for a reference that leads nowhere."""
    found = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/root", "HOSTNAME": pod["metadata"]["name"]}
    found["FORGE_TEST_POD_IP"] = pod_ip
    for each in container.get("envFrom", ()):
        for plural, reference in (("configmaps", each.get("configMapRef")), ("secrets", each.get("secretRef"))):
            if reference:
                data = await _data(fetch, plural, reference)
                found |= {each.get("prefix", "") + key: value for key, value in data.items()}
    for each in container.get("env", ()):
        source = each.get("valueFrom")
        value = (
            expanded(each.get("value", ""), found)
            if not source
            else await _value(source, pod, pod_ip, container, fetch)
        )
        if value is not None:
            found[each["name"]] = value
    return found


async def _value(source: Object, pod: Object, pod_ip: str, container: Object, fetch: Fetch) -> str | None:
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"], pod_ip)
    if "resourceFieldRef" in source:
        group, _, name = source["resourceFieldRef"]["resource"].partition(".")
        return str(container.get("resources", {}).get(group, {}).get(name, ""))
    for plural, key in (("configmaps", "configMapKeyRef"), ("secrets", "secretKeyRef")):
        if key in source:
            data = await _data(fetch, plural, source[key])
            if source[key]["key"] not in data and not source[key].get("optional"):
                raise NotConfigured(f"couldn't find key {source[key]['key']} in {plural} {source[key]['name']}")
            return data.get(source[key]["key"])
    return None


async def _data(fetch: Fetch, plural: str, reference: Object) -> dict[str, str]:
    item = await fetch(plural, reference["name"])
    if item is None:
        if reference.get("optional"):
            return {}
        raise NotConfigured(f'{plural.removesuffix("s")} "{reference["name"]}" not found')
    return {key: value.decode("utf-8", "surrogateescape") for key, value in contents(item).items()}


def contents(item: Object) -> dict[str, bytes]:
    """Return what a ConfigMap or Secret holds, as bytes."""
    if item["kind"] == "Secret":
        return {key: base64.b64decode(value) for key, value in (item.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}
    return {key: value.encode() for key, value in (item.get("data") or {}).items()} | binary


def field(pod: Object, path: str, pod_ip: str) -> str:
    """Return a field of the downward API."""
    inner = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if inner:
        return str((pod["metadata"].get(inner[1]) or {}).get(inner[2], ""))
    if path in {"status.podIP", "status.podIPs"}:
        return pod_ip
    here: Any = {**pod, "status": {"hostIP": "127.0.0.1"}}
    for part in path.split("."):
        here = (here or {}).get(part, "")
    return str(here)


def expanded(text: str, env: dict[str, str]) -> str:
    """Return a text with `$(NAME)` filled in; an unknown name stays as it is, `$$(NAME)` is the words themselves."""

    def fill(found: re.Match[str]) -> str:
        return found[0][1:] if found[0].startswith("$$") else env.get(found[1], found[0])

    return re.sub(r"\$?\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)", fill, text)


def mounted(words: list[str], mounts: list[tuple[Path, str]], cwd: str) -> list[str]:
    """Return the words that run a command in `cwd`, where each folder is at its place, in a mount namespace of its own.

    Places that this machine lacks are made, empty: there is no image to have them. A machine that gives nobody such
    namespaces has the places written as the folders in all words: what a program itself says of them stays wrong.
    """
    if not mounts:
        return ["sh", "-c", 'cd "$0" && exec "$@"', cwd, *words]
    if not has_mount_namespaces():
        words, cwd = [relocated(word, mounts) for word in words], relocated(cwd, mounts)
        return ["sh", "-c", 'mkdir -p "$0" && cd "$0" && exec "$@"', cwd, *words]
    parts = ["set -e"]
    for folder, place in mounts:
        target = shlex.quote(place)
        parts.append(f"if [ -d {shlex.quote(str(folder))} ]; then mkdir -p {target}; else mkdir -p $(dirname {target}); "
                     f"[ -e {target} ] || touch {target}; fi; mount --bind {shlex.quote(str(folder))} {target}")  # fmt: skip
    script = "; ".join(parts) + '; mkdir -p "$0"; cd "$0"; exec "$@"'
    return [*_unshare(), "--mount", "--propagation", "private", "sh", "-c", script, cwd, *words]


def _unshare() -> list[str]:
    return ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


@functools.cache
def has_mount_namespaces() -> bool:
    """Return whether this machine lets us have mounts that nobody else sees."""
    if shutil.which("unshare") is None:
        return False
    words = [*_unshare(), "--mount", "--propagation", "private", "mount", "--bind", "/tmp", "/tmp"]
    return subprocess.run(words, capture_output=True, timeout=10, check=False).returncode == 0


def relocated(word: str, mounts: list[tuple[Path, str]]) -> str:
    """Return a word in which each place is written as its folder; a longer place wins over what it lies in."""
    folders = {place.rstrip("/"): str(folder) for folder, place in mounts if place.rstrip("/")}
    if not folders:
        return word
    places = "|".join(re.escape(place) for place in sorted(folders, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])({places})(?![\w.-])", lambda found: folders[found[1]], word)


def quantity(text: str) -> float:
    """Return a quantity of memory in bytes; 0 for none."""
    found = re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|k|M|G)?", str(text))
    units = {None: 1, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return float(found[1]) * units[found[2]] if found else 0.0


_libc = ctypes.CDLL(None)


def _die_with_the_agent() -> None:
    _libc.prctl(_PDEATHSIG, signal.SIGKILL)
