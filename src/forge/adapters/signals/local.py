"""`envoy` signals of the one-machine target: what the proxy counted and what the processes use, together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from forge.adapters.routers.envoy_admin import EnvoyAdmin
from forge.adapters.routers.envoy_config import version_of
from forge.adapters.signals.envoy import EnvoyCounters
from forge.adapters.signals.process import ProcessUsage, Usage
from forge.adapters.signals.saturation import Saturation
from forge.adapters.targets.local.client import AgentClient
from forge.adapters.targets.local.folders import admin_socket
from forge.adapters.targets.local.processes import all_stats
from forge.model.errors import DependencyFailed
from forge.model.traffic import Gauge, Sample


class LocalSignals:
    """Reads one environment. A version that the target does not know is missing from the answer."""

    def __init__(self, client: AgentClient, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock
        self._counters = EnvoyCounters()
        self._usage = ProcessUsage()
        self._saturation = Saturation()

    async def read(self, version_ids: list[str]) -> dict[str, Sample]:
        """Return one sample a version. See Signals."""
        running = await self._client.ask("processes")
        known = [version for version in version_ids if version in running["versions"]]
        admin = EnvoyAdmin(admin_socket(self._client.folder.runtime()), timeout=1.5)
        counters = await self._counters.read(admin, running["proxy"], known)
        groups = await _groups(admin)
        usage, gauges = await asyncio.to_thread(self._look, running["versions"], known)
        restarts = running.get("restarts", {})
        now = self._clock()
        return {
            version: Sample(
                at=now,
                requests=counters[version].requests,
                errors=counters[version].errors,
                latency=counters[version].latency,
                cpu_seconds=usage[version].cpu_seconds,
                memory=usage[version].memory,
                groups=groups.get(version, ()),
                gauges=gauges[version],
                values=(("restarts", float(restarts[version])),) if version in restarts else (),
            )
            for version in known
        }

    def _look(
        self, processes: dict[str, dict[str, int]], known: list[str]
    ) -> tuple[dict[str, Usage], dict[str, tuple[Gauge, ...]]]:
        stats = all_stats()
        usage = self._usage.take(processes, stats, known)
        return usage, self._saturation.take(processes, stats, known, time.monotonic())

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Signals."""
        return {"envoy": self._counters.state(), "process": self._usage.state()}

    def restore(self, state: dict[str, object]) -> None:
        """Go on from `state`. See Signals."""
        saved = cast("dict[str, Any]", state)
        self._counters.restore(saved.get("envoy", {}))
        self._usage.restore(saved.get("process", {}))


async def _groups(admin: EnvoyAdmin) -> dict[str, tuple[tuple[str, int, int], ...]]:
    """Return (port, requests, errors) of each replica, by version: only the judge's calibration needs them."""
    try:
        hosts = await admin.hosts()
    except DependencyFailed:
        return {}
    return {
        version_of(cluster): tuple((str(port), host.requests, host.errors) for port, host in sorted(replicas.items()))
        for cluster, replicas in hosts.items()
    }
