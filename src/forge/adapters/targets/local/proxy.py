"""The environment's Envoy: its files, its process's command, and what it says of itself.

Files are named by what is in them: a file's `version_info` is a digest, so that Envoy's own `version_text`
tells whether it has taken exactly that file, whoever wrote it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from forge.adapters.routers import envoy_config
from forge.adapters.routers.envoy_admin import EnvoyAdmin, Host
from forge.adapters.targets.local.folders import EnvironmentFolder, admin_socket, replace_json
from forge.model.configs import EnvoyRouterConfig
from forge.model.errors import DependencyFailed
from forge.model.traffic import TrafficTable

_RDS = f"http.{envoy_config.STAT_PREFIX}.rds.{envoy_config.ROUTES}"
_FORGET_AFTER = 300.0
_ALL_DESCRIPTORS = ("/bin/sh", "-c", 'ulimit -S -n "$(ulimit -H -n)"; exec "$@"', "sh")
"""A request needs two: the usual soft limit of 1024 would not carry the connections that are configured."""


class ProxyFiles:
    """Writes what Envoy reads, each file only when it changes."""

    def __init__(self, folder: EnvironmentFolder, runtime: Path) -> None:
        self.folder = folder
        self.admin = EnvoyAdmin(admin_socket(runtime))
        self.root = folder.envoy.resolve()

    @property
    def routes_path(self) -> Path:
        """The RDS file."""
        return self.root / "rds" / "routes.json"

    def command(self, binary: str) -> list[str]:
        """Return the argv of Envoy."""
        # With hot restart on, Envoy would die together with the thread that started it.
        flags = ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]
        return [*_ALL_DESCRIPTORS, binary, "-c", str(self.root / "bootstrap.json"), *flags]

    def write_bootstrap(self, port: int, config: EnvoyRouterConfig, environment: str) -> None:
        """Write what Envoy starts with."""
        self.admin.path.unlink(missing_ok=True)
        content = envoy_config.bootstrap(self.root, self.admin.path, port, config, environment)
        replace_json(self.root / "bootstrap.json", content)

    def write_endpoints(self, version: str, ready: list[int], leaving: list[int]) -> str:
        """Write a version's replicas; return the file's version."""
        path = envoy_config.endpoints_file(self.root, version)
        return _write(path, envoy_config.endpoints(version, ready, leaving, ""))

    def write_clusters(self, versions: list[str], config: EnvoyRouterConfig) -> str:
        """Write which versions there are; return the file's version."""
        path = self.root / "cds" / "clusters.json"
        return _write(path, envoy_config.clusters(self.root, versions, "", config))

    def routes_version(self, table: TrafficTable | None, config: EnvoyRouterConfig) -> str:
        """Return the version that `write_routes` would give to this table."""
        content = envoy_config.routes(table, "", config)
        generation = table.generation if table else 0
        return f"{generation}-{_digest(content)}"

    def write_routes(self, table: TrafficTable | None, config: EnvoyRouterConfig) -> str:
        """Write how traffic is split; return the file's version."""
        version = self.routes_version(table, config)
        return _write(self.routes_path, envoy_config.routes(table, "", config), version)

    def forget(self, versions: set[str]) -> None:
        """Remove the endpoints of versions that are gone for a while: Envoy may still watch their folders."""
        keep = {envoy_config.cluster_name(version) for version in versions}
        folder = self.root / "eds"
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in keep and time.time() - path.stat().st_mtime > _FORGET_AFTER:
                shutil.rmtree(path, ignore_errors=True)

    async def acknowledged(self) -> str | None:
        """Return the version of the routes that Envoy has in effect, or None before the first."""
        stats = await self.admin.stats(_exactly(f"{_RDS}.version_text"))
        return stats.get(f"{_RDS}.version_text") or None

    async def rejections(self) -> int:
        """Return how many route files Envoy has refused since it started."""
        stats = await self.admin.stats(_exactly(f"{_RDS}.update_rejected"))
        return int(stats.get(f"{_RDS}.update_rejected", 0))

    async def hosts(self) -> dict[str, dict[int, Host]]:
        """Return Envoy's endpoints, by cluster and port."""
        return await self.admin.hosts()

    async def wait_live(self, timeout: float) -> bool:
        """Wait until Envoy serves; return whether it does."""
        return await _until(self.admin.is_live, timeout)

    async def wait_members(self, versions: list[str], timeout: float) -> list[str]:
        """Wait until Envoy has a healthy endpoint for each version; return the ones that still lack."""
        lacking = list(versions)

        async def complete() -> bool:
            nonlocal lacking
            stats = await self.admin.stats(r"^cluster\.v-.*\.membership_healthy$")
            lacking = [v for v in versions if stats.get(_membership(v), "0") == "0"]
            return not lacking

        await _until(complete, timeout)
        return lacking

    def last_rejection(self) -> str:
        """Return why Envoy refused the last file, from its log."""
        try:
            text = self.folder.envoy_log.read_bytes()[-64 * 1024 :].decode(errors="replace")
        except OSError:
            return ""
        _, found, after = text.rpartition("update rejected:")
        reasons = [line.removeprefix(": ") for line in after.splitlines() if line.startswith(": ")]
        return reasons[0] if found and reasons else after.strip().splitlines()[0] if found else ""


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}$"


def _membership(version: str) -> str:
    return f"cluster.{envoy_config.cluster_name(version)}.membership_healthy"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _write(path: Path, content: dict[str, Any], version: str | None = None) -> str:
    version = version or _digest(content)
    try:
        if json.loads(path.read_bytes()).get("version_info") == version:
            return version
    except (OSError, ValueError):
        pass
    replace_json(path, {**content, "version_info": version})
    return version


async def _until(condition: Callable[[], Awaitable[bool]], timeout: float, interval: float = 0.005) -> bool:
    deadline = time.monotonic() + timeout
    while True:
        try:
            if await condition():
                return True
        except DependencyFailed:
            pass
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(interval)
        interval = min(0.1, interval * 1.5)
