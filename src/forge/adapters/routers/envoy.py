"""`envoy`: traffic split by an Envoy of the environment's own, through files that it watches."""

from __future__ import annotations

import msgspec

from forge.adapters.routers.base import Capability
from forge.adapters.targets.local.client import AgentClient
from forge.model.errors import UsageError
from forge.model.traffic import TrafficTable
from forge.model.units import WHOLE


class EnvoyRouter:
    """The split of one environment. The agent owns Envoy's files, so that endpoints, clusters and routes
    change in the one order that loses no request."""

    capabilities: frozenset[Capability] = frozenset(
        {"weights", "header_routes", "cookie_routes", "sticky", "mirror"},
    )

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    async def apply(self, table: TrafficTable, token: int) -> None:
        """Make `table` the split; returns when Envoy has it, or has not answered for two seconds. See Router.

        Raises UsageError if the weights do not sum to all of the traffic, DependencyFailed with Envoy's
        reason if it refuses the table (the one before then stays in effect).
        """
        check_table(table)
        await self._client.ask("apply", table=table, token=token)

    async def observed(self) -> TrafficTable | None:
        """Return the table that Envoy says is in effect. See Router."""
        return msgspec.convert(await self._client.ask("observed"), TrafficTable | None)

    async def address(self) -> str:
        """Return the proxy's address; starts it if it does not run. See Router."""
        address: str = await self._client.ask("address")
        return address


def check_table(table: TrafficTable) -> None:
    """Raise UsageError for a table that no router can take."""
    if any(weight < 0 for weight in table.weights.values()):
        raise UsageError("a version's weight is negative")
    if sum(table.weights.values()) != WHOLE:
        msg = f"the weights sum to {sum(table.weights.values())} basis points instead of {WHOLE}"
        raise UsageError(msg)
    for route in table.routes:
        if not 0 <= route.mirror <= WHOLE:
            msg = f"{route.mirror} basis points cannot be mirrored to {route.version}"
            raise UsageError(msg)
        if not (route.header or route.cookie or route.mirror):
            msg = f"the route to {route.version} matches nothing: it needs a header, a cookie or a mirror"
            raise UsageError(msg)
