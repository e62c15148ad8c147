"""What happened in a project whose database is at hand. See `forge.service.base.Records`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from forge.service.base import Accepted
from forge.store.contract import StoredDecision, StoredEvent

if TYPE_CHECKING:
    from forge.engine.engine import Engine

MOST = 1000
REFUSALS = {"command_without_effect": "command", "command_refused": "command"}
"""Kinds of events by which a machine says that a command changed nothing -> the field that names the command."""


class LocalRecords:
    """See `forge.service.base.Records`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def events(self, machine: str = "", *, after: int = 0, limit: int = MOST) -> list[StoredEvent]:
        """Return events in order."""
        return await self._engine.store.log.read(machine or None, after=after, limit=max(1, min(limit, MOST)))

    def follow(self, machine: str = "", *, after: int = 0) -> AsyncIterator[StoredEvent]:
        """Yield events for ever, as they come."""
        return self._engine.follow(machine or None, after)

    async def decisions(self, machine: str = "", *, after: int = 0, limit: int = 200) -> list[StoredDecision]:
        """Return records of decisions in order."""
        return await self._engine.store.decisions.read(machine or None, after=after, limit=max(1, min(limit, MOST)))

    async def verify(self) -> dict[str, dict[str, int | None]]:
        """Check both chains."""
        store = self._engine.store
        found: dict[str, dict[str, int | None]] = {}
        for name, kept in (("events", store.log), ("decisions", store.decisions)):
            found[name] = {"records": await kept.count(), "first_wrong": await kept.verify()}
        return found

    async def refusal(self, accepted: Accepted) -> str | None:
        """Return why a command had no effect. See Records."""
        if any(command.id == accepted.id for command in await self._engine.store.inbox.of(accepted.machine)):
            return None
        for stored in await self._engine.store.log.read(accepted.machine, after=accepted.after):
            event = stored.event
            if event.kind in REFUSALS and event.data.get("id", accepted.id) == accepted.id:
                return str(event.data.get("reason") or event.message)
        return ""
