"""`replicas`: no router at all. The Service spreads connections over all ready pods, so the split is that of the replicas.

The table is only remembered, on the environment's record, and counts as in effect when the replicas come as near to it
as whole replicas can: every version in it has a ready one, and no other version has. What really happens is told by
`actual` and by the remark: with four replicas of stable and one of the new version, a weight of 5 % is a share of 20 %.
"""

from __future__ import annotations

from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import Conflict
from forge.adapters.kubernetes.fencing import Fence
from forge.adapters.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, POD, SERVICE
from forge.adapters.kubernetes.naming import FRONT, TRAFFIC, annotation, environment_label, labels_of, selector
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import (
    check_able,
    find_backends,
    ready_endpoints,
    table_of,
    with_table,
    without_notes,
)
from forge.adapters.routers.base import Capability
from forge.adapters.routers.envoy import check_table
from forge.adapters.routers.routed import ATTEMPTS, shares
from forge.adapters.targets.kubernetes.counting import is_ready, seen_versions
from forge.model.configs import ROUTER_CAPABILITIES, ReplicasRouterConfig
from forge.model.errors import DependencyFailed
from forge.model.traffic import TrafficTable
from forge.model.units import WHOLE


class ReplicasRouter:
    """The split of one environment whose Service selects the pods of all versions. See Router."""

    capabilities: frozenset[Capability] = ROUTER_CAPABILITIES["replicas"]  # type: ignore[assignment]

    def __init__(self, cluster: Cluster, environment: str, config: ReplicasRouterConfig) -> None:
        self._cluster = cluster
        self._environment = environment
        self._config = config
        self._fence = Fence(cluster, environment)
        self.remark = ""
        """How the ready pods really split requests, where that is not what was asked. See Remarking."""

    async def apply(self, table: TrafficTable, token: int) -> None:
        """Remember the table, when every version in it has a ready pod. See Router."""
        check_table(table)
        check_able(table, "replicas")
        ready = await self._ready()
        asked = [version for version, weight in table.weights.items() if weight]
        if empty := sorted(version for version in asked if not ready.get(version)):
            raise DependencyFailed(f"no ready endpoint of {', '.join(empty)} yet: no traffic is sent there")
        await self._fence.pass_with(token)
        for attempt in range(1, ATTEMPTS + 1):
            record = await self._record()
            if record is None:
                raise DependencyFailed(f"ConfigMap {self._fence.name} was deleted by somebody", hint="it is made again")
            if table_of(record) == table:
                return
            try:
                await self._cluster.replace(with_table(record, table, token), strict=True)
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def observed(self) -> TrafficTable | None:
        """Return the table, when the replicas come as near to it as they can: every version in it has some, and no
        other; else what they do. See Router."""
        record, self.remark = await self._record(), ""
        table = table_of(record) if record is not None else None
        if table is None:
            return None
        ready = await self._ready()
        self.remark = told_shares(table, ready)
        asked = [version for version, weight in table.weights.items() if weight]
        if not all(ready.get(version) for version in asked):
            return TrafficTable(shares(ready), -1)
        if {version for version, count in ready.items() if count} - {*asked}:
            return TrafficTable(shares(ready), table.generation)  # taken in, and some have to go yet
        return table

    async def actual(self) -> dict[str, int]:
        """Return the split that the ready pods make now, in basis points by version."""
        return shares(await self._ready())

    async def address(self) -> str:
        """Return the Service's address in the cluster, or that of its load balancer. See Router."""
        if self._config.address or not await self._has_services():
            return self._config.address
        backends = await find_backends(self._cluster, self._environment)
        service = await self._cluster.get(SERVICE, backends.front)
        return "" if service is None else service_address(service)

    async def hand_back(self, token: int) -> None:
        """Forget the table: nothing else was changed. See Restorable."""
        await self._fence.pass_with(token)
        record = await self._record()
        if record is not None and table_of(record) is not None:
            await self._cluster.replace(without_notes(record, TRAFFIC), strict=True)

    async def _record(self) -> Object | None:
        found = await self._cluster.get(CONFIG_MAP, self._fence.name)
        return None if found is None else {"apiVersion": "v1", "kind": "ConfigMap", **found}

    async def _ready(self) -> dict[str, int]:
        """Return how many replicas of each version work: endpoints of its Service; of what nobody asks, such as the
        workers of a queue, its ready pods."""
        if not await self._has_services():
            return await self._ready_pods()
        backends = await find_backends(self._cluster, self._environment)
        counts = await ready_endpoints(self._cluster, sorted(backends.names))
        return {version: counts[name] for version, name in backends.services.items()}

    async def _has_services(self) -> bool:
        found, _ = await self._cluster.objects(SERVICE, labels=selector(labels_of(self._environment)))
        return any(annotation(item, FRONT) for item in found)

    async def _ready_pods(self) -> dict[str, int]:
        labels = selector(labels_of(self._environment))
        workloads, _ = await self._cluster.objects(DEPLOYMENT, labels=labels)
        pods, _ = await self._cluster.objects(POD)
        versions = seen_versions(workloads, pods, environment_label(self._environment))
        return {version: sum(is_ready(pod) for pod in seen.alive) for version, seen in versions.items()}


def told_shares(table: TrafficTable, ready: dict[str, int]) -> str:
    """Return in words how ready replicas split requests, where whole replicas cannot do what the table asks; else
    nothing. Pure."""
    actual = shares(ready)
    asked = {version: weight for version, weight in table.weights.items() if weight}
    if actual == asked or not actual:
        return ""
    parts = [
        f"{version} {_percent(actual.get(version, 0))} instead of {_percent(asked.get(version, 0))} ({ready.get(version, 0)} ready)"
        for version in sorted({*actual, *asked})
        if actual.get(version, 0) != asked.get(version, 0)
    ]
    return f"without a router the ready replicas are the split: {', '.join(parts)}"


def service_address(service: Object) -> str:
    """Return where a Service is reached: its load balancer, else its name in the cluster."""
    ports: list[dict[str, Any]] = service["spec"].get("ports") or [{"port": 80}]
    port = int(ports[0]["port"])
    told = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    metadata = service["metadata"]
    inside = f"{metadata['name']}.{metadata.get('namespace', 'default')}.svc"
    host = next((each.get("hostname") or each.get("ip") for each in told), inside)
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"


def _percent(weight: int) -> str:
    return f"{weight * 100 / WHOLE:g} %"
