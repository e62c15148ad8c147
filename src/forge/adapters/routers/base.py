"""Routers: how an environment's traffic is split between versions."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from forge.model.traffic import TrafficTable

Capability = Literal["weights", "header_routes", "cookie_routes", "sticky", "mirror"]


@runtime_checkable
class Restorable(Protocol):
    """A router that splits traffic by something that was there before, and can make it what it was."""

    async def hand_back(self, token: int) -> None:
        """Undo every change of Forge's. DependencyFailed: it could not be written. Again is fine."""


@runtime_checkable
class Remarking(Protocol):
    """A router that has something to say on its last look that no table tells."""

    @property
    def remark(self) -> str:
        """Who changed the split besides Forge, or how far what happens is from what was asked; empty for nothing."""


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
