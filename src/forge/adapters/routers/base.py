"""Routers: how an environment's traffic is split between versions."""

from __future__ import annotations

from typing import Literal, Protocol

from forge.model.traffic import TrafficTable

Capability = Literal["weights", "header_routes", "cookie_routes", "sticky", "mirror"]


class Router(Protocol):
    """Splits real traffic between any number of versions.

    Called by `engine/releases.py` only, by one worker at a time, with the environment's fencing token
    (StaleLease for an old one). `apply` is idempotent and returns when the change was handed over;
    `observed` alone says what carries traffic. DependencyFailed: the router cannot be reached.
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do; a plan that needs more is refused before anything starts."""

    async def apply(self, table: TrafficTable, token: int) -> None:
        """Make `table` the split. A version in it without endpoints is an error (DependencyFailed)."""

    async def observed(self) -> TrafficTable | None:
        """Return the table in effect as the proxy itself reports it, or None before the first."""

    async def address(self) -> str:
        """Return where clients reach the environment, for example `http://127.0.0.1:8080`."""
