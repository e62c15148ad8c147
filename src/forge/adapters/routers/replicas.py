"""`replicas`: no router at all. The Service spreads requests over all ready pods, so the split is that of the replicas.

The table is only remembered, on the environment's record. What really happens is told by `actual`: with four replicas
of stable and one of the new version, a weight of 5 % is a share of 20 %.
"""

from __future__ import annotations

from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import Conflict
from forge.adapters.kubernetes.fencing import Fence
from forge.adapters.kubernetes.kinds import CONFIG_MAP, SERVICE
from forge.adapters.routers.backends import find_backends, ready_endpoints, table_of, with_table
from forge.adapters.routers.base import Capability
from forge.adapters.routers.envoy import check_table
from forge.adapters.routers.routed import ATTEMPTS, shares
from forge.model.configs import ROUTER_CAPABILITIES, ReplicasRouterConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.traffic import TrafficTable


class ReplicasRouter:
    """The split of one environment whose Service selects the pods of all versions. See Router."""

    capabilities: frozenset[Capability] = ROUTER_CAPABILITIES["replicas"]  # type: ignore[assignment]

    def __init__(self, cluster: Cluster, environment: str, config: ReplicasRouterConfig) -> None:
        self._cluster = cluster
        self._environment = environment
        self._config = config
        self._fence = Fence(cluster, environment)

    async def apply(self, table: TrafficTable, token: int) -> None:
        """Remember the table, when every version in it has a ready pod. See Router."""
        check_table(table)
        if table.routes:
            raise UsageError("without a router nothing can be sent by header, cookie or as a copy",
                             hint="use gateway_api, istio or ingress_nginx")  # fmt: skip
        empty = [version for version in _weighted(table) if not (await self._ready()).get(version)]
        if empty:
            raise DependencyFailed(f"no ready endpoint of {', '.join(empty)} yet: no traffic is sent there")
        await self._fence.pass_with(token)
        for attempt in range(1, ATTEMPTS + 1):
            record = await self._cluster.get(CONFIG_MAP, self._fence.name)
            if record is None:
                raise DependencyFailed(f"ConfigMap {self._fence.name} was deleted by somebody", hint="it is made again")
            try:
                await self._cluster.replace(
                    with_table({"apiVersion": "v1", "kind": "ConfigMap", **record}, table, token)
                )
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def observed(self) -> TrafficTable | None:
        """Return the table that is as near to the replicas as replicas can come: every version in it has some. See Router."""
        record = await self._cluster.get(CONFIG_MAP, self._fence.name)
        table = table_of(record) if record is not None else None
        if table is None:
            return None
        ready = await self._ready()
        return table if all(ready.get(version) for version in _weighted(table)) else None

    async def actual(self) -> dict[str, int]:
        """Return the split that the ready pods make now, in basis points by version."""
        return shares(await self._ready())

    async def address(self) -> str:
        """Return the Service's address in the cluster, or that of its load balancer. See Router."""
        if self._config.address:
            return self._config.address
        backends = await find_backends(self._cluster, self._environment)
        service = await self._cluster.get(SERVICE, backends.front)
        if service is None:
            return ""
        ports: list[dict[str, Any]] = service["spec"].get("ports") or [{"port": 80}]
        port = int(ports[0]["port"])
        told = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        namespace = service["metadata"].get("namespace", "default")
        host = next((each.get("hostname") or each.get("ip") for each in told), f"{backends.front}.{namespace}.svc")
        return f"http://{host}" if port == 80 else f"http://{host}:{port}"

    async def hand_back(self, token: int) -> None:
        """Nothing was changed, so nothing is given back."""
        del token

    async def _ready(self) -> dict[str, int]:
        backends = await find_backends(self._cluster, self._environment)
        counts = await ready_endpoints(self._cluster, sorted(backends.names))
        return {version: counts[name] for version, name in backends.services.items()}


def _weighted(table: TrafficTable) -> list[str]:
    return [version for version, weight in table.weights.items() if weight]
