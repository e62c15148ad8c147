"""The world as target, router and signals of the real engine. Time passes in it as it does on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from forge.adapters.routers.base import Capability
from forge.adapters.targets.memory import Fence
from forge.model.traffic import ReplicaCount, Sample, TrafficTable, Version
from forge.simulate.world import World


class LiveWorld:
    """A world that follows the running loop's time; `start` is its moment 0."""

    def __init__(self, world: World, start: float) -> None:
        self.world, self._start = world, start
        self.fence = Fence()
        self.target = WorldTarget(self)
        self.router = WorldRouter(self)
        self.signals = WorldSignals(self)

    def now(self) -> World:
        """Return the world as it is at the loop's time."""
        self.world.advance(self._start + asyncio.get_running_loop().time())
        return self.world


class WorldTarget:
    """See Target."""

    def __init__(self, live: LiveWorld) -> None:
        self._live = live

    async def ensure(self, version: Version, replicas: int, artifact: str | None, token: int) -> None:
        """See Target."""
        del artifact
        self._live.fence.check(token)
        self._live.now().replicas.ensure(version, replicas)

    async def remove(self, version_id: str, token: int) -> None:
        """See Target."""
        self._live.fence.check(token)
        self._live.now().replicas.remove(version_id)

    async def observe(self) -> dict[str, ReplicaCount]:
        """See Target."""
        return self._live.now().replicas.observe()

    async def logs(self, version_id: str | None, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """Yield nothing: simulated versions say nothing."""
        del version_id, follow, tail
        nothing: tuple[str, ...] = ()
        for line in nothing:
            yield line


class WorldRouter:
    """See Router."""

    capabilities: frozenset[Capability] = frozenset({"weights", "header_routes", "cookie_routes", "sticky", "mirror"})

    def __init__(self, live: LiveWorld) -> None:
        self._live = live

    async def apply(self, table: TrafficTable, token: int) -> None:
        """See Router."""
        self._live.fence.check(token)
        self._live.now().router.apply(table)

    async def observed(self) -> TrafficTable | None:
        """See Router."""
        return self._live.now().router.observed()

    async def address(self) -> str:
        """Return an address that nothing listens on."""
        return "http://127.0.0.1:9"


class WorldSignals:
    """See Signals."""

    def __init__(self, live: LiveWorld) -> None:
        self._live = live

    async def read(self, version_ids: list[str]) -> dict[str, Sample]:
        """See Signals."""
        return self._live.now().meters.read(version_ids)

    def state(self) -> dict[str, object]:
        """See Signals."""
        return self._live.world.meters.state()

    def restore(self, state: dict[str, Any]) -> None:
        """See Signals."""
        self._live.world.meters.restore(state)
