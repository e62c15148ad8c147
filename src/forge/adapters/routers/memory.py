"""A router without a proxy, for the engine's tests and simulations: tables take effect on its own clock."""

from __future__ import annotations

from collections.abc import Callable

from forge.adapters.routers.base import Capability
from forge.adapters.routers.envoy import check_table
from forge.adapters.targets.memory import Fence, MemoryTarget
from forge.model.errors import DependencyFailed
from forge.model.traffic import TrafficTable


class MemoryRouter:
    """Takes tables over `delay` seconds of `clock` after they were applied.

    Faults for tests: `unreachable` makes every call fail; `frozen` accepts tables that never take effect.
    """

    capabilities: frozenset[Capability] = frozenset(
        {"weights", "header_routes", "cookie_routes", "sticky", "mirror"},
    )

    def __init__(
        self, clock: Callable[[], float], target: MemoryTarget | None = None, *, delay: float = 0.0
    ) -> None:  # fmt: skip
        """With a `target`, a version without ready replicas is refused as by a real router."""
        self.clock = clock
        self.target = target
        self.delay = delay
        self.fence = target.fence if target else Fence()
        self.unreachable = False
        self.frozen = False
        self.applied: list[TrafficTable] = []
        """Every table that was accepted, in order."""
        self._coming: list[tuple[float, TrafficTable]] = []
        self._current: TrafficTable | None = None

    async def apply(self, table: TrafficTable, token: int) -> None:
        """Take a table. See Router."""
        self._reach()
        check_table(table)
        self.fence.check(token)
        needed = {v for v, weight in table.weights.items() if weight > 0} | {r.version for r in table.routes}
        for version in sorted(needed):
            if self.target is not None and not self.target.is_ready(version):
                msg = f"version {version} has no ready replica to send traffic to"
                raise DependencyFailed(msg)
        self.applied.append(table)
        if not self.frozen:
            self._coming.append((self.clock() + self.delay, table))

    async def observed(self) -> TrafficTable | None:
        """Return the table in effect. See Router."""
        self._reach()
        while self._coming and self._coming[0][0] <= self.clock():
            self._current = self._coming.pop(0)[1]
        return self._current

    async def address(self) -> str:
        """Return an address that nothing listens on. See Router."""
        self._reach()
        return "http://127.0.0.1:9"

    def _reach(self) -> None:
        if self.unreachable:
            raise DependencyFailed("the router cannot be reached")
