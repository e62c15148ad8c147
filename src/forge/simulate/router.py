"""The simulated router: splits come into effect late, never, or not at all."""

from __future__ import annotations

from collections.abc import Callable

from forge.adapters.routers.envoy import check_table
from forge.model.errors import DependencyFailed
from forge.model.traffic import TrafficTable
from forge.simulate.faults import Weather
from forge.simulate.replicas import Replicas


class SplitRouter:
    """Splits traffic. `delay` seconds pass between a wish and its effect, more while it lags."""

    def __init__(
        self, clock: Callable[[], float], weather: Weather, replicas: Replicas, *, delay: float = 0.5
    ) -> None:  # fmt: skip
        self.delay = delay
        self.newest = 0
        """The largest generation that was asked for."""
        self._clock, self._weather, self._replicas = clock, weather, replicas
        self._coming: list[tuple[float, TrafficTable]] = []
        self._current: TrafficTable | None = None

    def apply(self, table: TrafficTable) -> None:
        """Take a table. Raises DependencyFailed while away, and for a version that cannot answer."""
        self._reach()
        check_table(table)
        if self._weather.on("actions_refused"):
            raise DependencyFailed("the router refuses the split")
        if self._weather.on("actions_lost"):
            return
        for version in sorted(table.weights):
            if not self._replicas.ready(version):
                raise DependencyFailed(f"version {version} has no ready replica to send traffic to")
        if table.generation < self.newest:
            return
        self.newest = table.generation
        if self._weather.on("router_frozen"):
            return
        late = self._weather.on("router_lags")
        at = self._clock() + self.delay + (late.amount if late else 0.0)
        # A newer table replaces all that have not come into effect yet, but none overtakes another.
        at = max([at, *(due for due, _ in self._coming)])
        self._coming.append((at, table))

    def observed(self) -> TrafficTable | None:
        """Return the table in effect. Raises DependencyFailed while away."""
        self._reach()
        self._come_into_effect()
        return self._current

    @property
    def split(self) -> dict[str, int]:
        """The split in effect, whether or not anybody can see it."""
        self._come_into_effect()
        return self._current.weights if self._current else {}

    def _come_into_effect(self) -> None:
        while self._coming and self._coming[0][0] <= self._clock():
            self._current = self._coming.pop(0)[1]

    def _reach(self) -> None:
        if self._weather.on("router_away"):
            raise DependencyFailed("the router does not answer")
