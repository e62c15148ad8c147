"""A router whose split is one object of the cluster: read it, make the new one by a pure function, write it back."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import Conflict
from forge.adapters.kubernetes.fencing import Fence, marked
from forge.adapters.kubernetes.kinds import Kind
from forge.adapters.kubernetes.naming import ORIGINAL, TRAFFIC, annotation
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import (
    BEFORE,
    Backends,
    check_able,
    check_endpoints,
    find_backends,
    owners,
    table_of,
    with_notes,
    with_table,
    without_marks,
)
from forge.adapters.routers.base import Capability
from forge.adapters.routers.envoy import check_table
from forge.adapters.routers.recreation import manifest_of
from forge.model.configs import ROUTER_CAPABILITIES
from forge.model.errors import DependencyFailed, UsageError
from forge.model.traffic import TrafficTable

ATTEMPTS = 4
"""How often a write is tried against others who write the same object."""
PATIENCE = 15.0
"""Seconds in which a controller has to confirm what is handed back."""
LOOK_AGAIN = 0.1


class RoutedObject(ABC):
    """Implements Router on one object. What it routes is a pure function of the object and the table."""

    name: str
    split_at: tuple[str, ...]
    """Path of the field that has the split: whoever else owns it changed it."""
    propagation = 0.0
    """Seconds until a controller that confirms nothing has a change."""

    def __init__(
        self, cluster: Cluster, environment: str, kind: Kind, route: str, namespace: str, address: str
    ) -> None:
        self._cluster = cluster
        self._environment = environment
        self._kind = kind
        self._route = route
        self._namespace = namespace
        self._address = address
        self._fence = Fence(cluster, environment)
        self.remark = ""
        """What people should know of the last look: who changed the split besides Forge. See Remarks."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do. See Router."""
        return ROUTER_CAPABILITIES[self.name]  # type: ignore[return-value]

    async def apply(self, table: TrafficTable, token: int) -> None:
        """Write the split into the object. See Router. Writes nothing when it stands there already."""
        check_table(table)
        check_able(table, self.name)
        backends, item = await self._allowed(table, token)
        await self._write(lambda item: self._with_split(item, table, backends, token), backends, item)

    async def observed(self) -> TrafficTable | None:
        """Return the table in effect: as the object has it, once its controller has confirmed it. See Router.

        Until then the one before is in effect. Where somebody else changed the split, it is theirs that is told, so
        that it is asked for again.
        """
        item, self.remark = await self._found(), ""
        if item is None:
            return await self._deleted()
        table = table_of(item)
        if table is None:
            return None
        backends = await find_backends(self._cluster, self._environment)
        if gone := backends.gone(table):
            self.remark = told_gone(gone)
            return TrafficTable(self.weights(item, backends), -1)
        if not self.stands(item, table, backends):
            who = next(iter(owners(item, *self.split_at)), "somebody")
            self.remark = f"{self._kind.name} {self._route} was changed by {who}: Forge's split is written again"
            return TrafficTable(self.weights(item, backends), -1)
        return table if self.confirmed(item) else table_of(item, BEFORE)

    async def address(self) -> str:
        """Return where clients reach the environment. See Router."""
        return self._address or await self._found_address(await self._read())

    async def hand_back(self, token: int) -> None:
        """Make the object what it was before Forge routed it. See Restorable. Raises StaleLease for an old token.

        Returns when that is in effect: the versions' own Services are taken away next.
        """
        item = await self._found()
        if item is None:
            return
        if annotation(item, ORIGINAL) or annotation(item, TRAFFIC):
            backends = await find_backends(self._cluster, self._environment)
            await self._write(lambda item: without_marks(self.restored(marked(item, token), backends)), backends, item)
            await asyncio.sleep(self.propagation)
        deadline = time.monotonic() + PATIENCE
        while not self.confirmed(await self._read()):
            if time.monotonic() > deadline:
                raise DependencyFailed(
                    f"{self._kind.name} {self._route} is given back, but its controller has not confirmed that yet",
                    hint="its status tells why; then hand back again",
                )
            await asyncio.sleep(LOOK_AGAIN)

    @abstractmethod
    def routed(self, item: Object, table: TrafficTable, backends: Backends) -> Object:
        """Return the object with the table's split; everything that is not about the environment stays. Pure."""

    @abstractmethod
    def restored(self, item: Object, backends: Backends) -> Object:
        """Return the object as it would be had Forge never routed it. Pure."""

    @abstractmethod
    def stands(self, item: Object, table: TrafficTable, backends: Backends) -> bool:
        """Whether the object has the table's split, as Forge would write it. Pure."""

    @abstractmethod
    def splits(self, item: Object, backends: Backends) -> list[dict[str, int]]:
        """Return the splits that stand in the object, one a rule, in basis points by version. Pure."""

    @abstractmethod
    def confirmed(self, item: Object) -> bool:
        """Whether its controller has this very object in effect."""

    def begun(self, item: Object) -> Object:
        """Return an object whose split was changed just now, with what its confirmation needs."""
        return item

    def weights(self, item: Object, backends: Backends) -> dict[str, int]:
        """Return the split that stands in the object: of its rules, the first that is not as it was asked for. Pure."""
        table, found = table_of(item), self.splits(item, backends)
        asked = {version: weight for version, weight in table.weights.items() if weight} if table else {}
        return next((split for split in found if split != asked), asked if found else {})

    async def _found_address(self, item: Object) -> str:
        del item
        return ""

    def _with_split(
        self, item: Object, table: TrafficTable, backends: Backends, token: int, *, moved: bool = False
    ) -> Object | None:
        """Return the object to write; None when it stands there. `moved`: something beside the object changes too."""
        fresh = self.routed(item, table, backends)
        moved = moved or fresh["spec"] != item["spec"]
        if not moved and fresh == item and table_of(item) == table:
            return None
        if moved:
            in_effect = annotation(item, TRAFFIC if self.confirmed(item) else BEFORE)
            fresh = self.begun(with_notes(fresh, **({BEFORE: in_effect} if in_effect else {})))
        return with_table(fresh, table, token)

    async def _allowed(self, table: TrafficTable, token: int) -> tuple[Backends, Object]:
        """Return the environment's Services and the object as it is. Raises for what must not be written now: an old
        token, versions without endpoints. Everything is asked at once where it can be: a verdict waits for it."""
        backends, _ = await asyncio.gather(
            find_backends(self._cluster, self._environment), self._fence.pass_with(token)
        )
        _, item = await asyncio.gather(check_endpoints(self._cluster, backends, table), self._made(backends))
        return backends, item

    async def _found(self) -> Object | None:
        item = await self._cluster.get(self._kind, self._route, self._namespace)
        return None if item is None else {"apiVersion": self._kind.api_version, "kind": self._kind.name, **item}

    async def _read(self) -> Object:
        item = await self._found()
        if item is None:
            raise DependencyFailed(
                f"{self._cluster.name} has no {self._kind.name} {self._route}",
                hint="somebody deleted it, or it was never applied: put it into the manifests",
            )
        return item

    async def _deleted(self) -> TrafficTable:
        """Return the split without the object: none, to be asked for again. Raises when it is not Forge's to make."""
        backends = await find_backends(self._cluster, self._environment)
        if await self._manifest(backends) is None:
            await self._read()
        self.remark = f"{self._kind.name} {self._route} was deleted by somebody: Forge makes it again"
        return TrafficTable({}, -1)

    async def _made(self, backends: Backends) -> Object:
        """Return the object, made again where it is Forge's to make."""
        item = await self._found()
        if item is None and (manifest := await self._manifest(backends)) is not None:
            await self._cluster.apply(manifest, force=False)
        return item or await self._read()

    async def _manifest(self, backends: Backends) -> Object | None:
        return await manifest_of(
            self._cluster, self._environment, backends.services, self._kind, self._route, self._namespace
        )

    async def _write(
        self, change: Callable[[Object], Object | None], backends: Backends, item: Object | None = None
    ) -> None:
        """Write a changed object, `item` if nobody did in between, else theirs."""
        for attempt in range(1, ATTEMPTS + 1):
            wanted = change(item or await self._made(backends))
            item = None
            if wanted is None:
                return
            try:
                await self._cluster.replace(wanted, strict=True)
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                return


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


def told_gone(versions: list[str]) -> str:
    """Return in words that versions lost their Services."""
    return f"the Service of {', '.join(versions)} was deleted by somebody: no traffic reaches what it had"


def needs_front(found: Any, kind: str, route: str, front: str) -> None:
    """Raise UsageError when nothing of a route points at the environment's Service."""
    if not found:
        raise UsageError(
            f"no rule of {kind} {route} points at the Service {front}",
            hint="the router replaces what points there by the versions' own Services",
        )
