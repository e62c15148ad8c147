"""A router whose split is one object of the cluster: read it, make the new one by a pure function, write it back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import Conflict
from forge.adapters.kubernetes.kinds import Kind
from forge.adapters.kubernetes.naming import ORIGINAL, TRAFFIC
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import (
    Backends,
    check_endpoints,
    editors,
    find_backends,
    table_of,
    with_table,
    without_notes,
)
from forge.adapters.routers.base import Capability
from forge.adapters.routers.envoy import check_table
from forge.model.configs import ROUTER_CAPABILITIES
from forge.model.errors import DependencyFailed, UsageError
from forge.model.traffic import TrafficTable

ATTEMPTS = 4
"""How often a write is tried against others who write the same object."""


class RoutedObject(ABC):
    """Implements Router on one object. What it routes is a pure function of the object and the table."""

    name: str

    def __init__(
        self, cluster: Cluster, environment: str, kind: Kind, route: str, namespace: str, address: str
    ) -> None:
        self._cluster = cluster
        self._environment = environment
        self._kind = kind
        self._route = route
        self._namespace = namespace
        self._address = address

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do. See Router."""
        return ROUTER_CAPABILITIES[self.name]  # type: ignore[return-value]

    async def apply(self, table: TrafficTable, token: int) -> None:
        """Write the split into the object. See Router."""
        check_table(table)
        self._check(table)
        backends = await find_backends(self._cluster, self._environment)
        await check_endpoints(self._cluster, backends, table)
        await self._write(lambda item: with_table(self.routed(item, table, backends), table, token))

    async def observed(self) -> TrafficTable | None:
        """Return the table in effect: as the object has it, once its controller has confirmed it. See Router.

        Where somebody else changed the split, it is theirs that is told, so that it is asked for again.
        """
        item = await self._read()
        table = table_of(item)
        if table is None:
            return None
        backends = await find_backends(self._cluster, self._environment)
        actual = self.weights(item, backends)
        if actual != {version: weight for version, weight in table.weights.items() if weight}:
            return TrafficTable(actual, -1)
        return table if self.confirmed(item) else None

    async def address(self) -> str:
        """Return where clients reach the environment. See Router."""
        return self._address or await self._found_address(await self._read())

    async def changed_by(self) -> str:
        """Return who changed the object besides Forge and its controllers last; empty for nobody."""
        return next(iter(editors(await self._read())), "")

    async def hand_back(self, token: int) -> None:
        """Make the object what it was before Forge routed it."""
        del token
        await self._write(lambda item: without_notes(self.restored(item), ORIGINAL, TRAFFIC))

    @abstractmethod
    def routed(self, item: Object, table: TrafficTable, backends: Backends) -> Object:
        """Return the object with the table's split; everything that is not about the environment stays. Pure."""

    @abstractmethod
    def restored(self, item: Object) -> Object:
        """Return the object as it was before the first `routed`. Pure."""

    @abstractmethod
    def weights(self, item: Object, backends: Backends) -> dict[str, int]:
        """Return the split that stands in the object, in basis points by version. Pure."""

    @abstractmethod
    def confirmed(self, item: Object) -> bool:
        """Whether its controller has this very object in effect."""

    def _check(self, table: TrafficTable) -> None:
        """Raise UsageError for a table that this router cannot do; most can do every one."""
        del table

    async def _found_address(self, item: Object) -> str:
        del item
        return ""

    async def _read(self) -> Object:
        item = await self._cluster.get(self._kind, self._route, self._namespace)
        if item is None:
            raise DependencyFailed(
                f"{self._cluster.name} has no {self._kind.name} {self._route}",
                hint="somebody deleted it, or it was never applied: put it into the manifests",
            )
        return {"apiVersion": self._kind.api_version, "kind": self._kind.name, **item}

    async def _write(self, change: Callable[[Object], Object]) -> Object:
        """Write a changed object; when somebody wrote in between, change theirs."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._cluster.replace(change(await self._read()))
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")


def shares(weighted: dict[str, int]) -> dict[str, int]:
    """Return relative weights as basis points that sum to 10,000: rounded down, the rest to the largest remainders."""
    total = sum(weighted.values())
    if total <= 0:
        return {}
    exact = {name: weight * 10_000 / total for name, weight in weighted.items() if weight > 0}
    whole = {name: int(value) for name, value in exact.items()}
    missing = 10_000 - sum(whole.values())
    for name in sorted(exact, key=lambda name: (whole[name] - exact[name], name))[:missing]:
        whole[name] += 1
    return whole


def needs_front(found: Any, kind: str, route: str, front: str) -> None:
    """Raise UsageError when nothing of a route points at the environment's Service."""
    if not found:
        raise UsageError(
            f"no rule of {kind} {route} points at the Service {front}",
            hint="the router replaces what points there by the versions' own Services",
        )
