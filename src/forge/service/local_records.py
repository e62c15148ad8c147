"""What happened in a project whose database is at hand. See `forge.service.base.Records`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from forge.model.decision import Command
from forge.model.errors import UsageError
from forge.service.base import Accepted
from forge.service.locating import find_machine, known_environments
from forge.service.refusals import refusal_of
from forge.store.contract import StoredDecision, StoredEvent

if TYPE_CHECKING:
    from forge.engine.engine import Engine

MOST = 1000


class LocalRecords:
    """See `forge.service.base.Records`. Raises UsageError, with a suggestion, for an unknown machine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def events(self, machine: str = "", *, after: int = 0, limit: int = MOST) -> list[StoredEvent]:
        """Return events in order."""
        try:
            which = await self._machine(machine)
        except UsageError:
            if machine in await known_environments(self._engine):  # which nothing was released to: all is empty
                return []
            raise
        return await self._engine.store.log.read(which, after=after, limit=max(1, min(limit, MOST)))

    async def follow(self, machine: str = "", *, after: int = 0) -> AsyncIterator[StoredEvent]:
        """Yield events for ever, as they come."""
        async for stored in self._engine.follow(await self._machine(machine), after):
            yield stored

    async def last(self) -> int:
        """Return the number of the newest event."""
        return await self._engine.store.log.count()

    async def decisions(self, machine: str = "", *, after: int = 0, limit: int = 200) -> list[StoredDecision]:
        """Return records of decisions in order."""
        which = await self._machine(machine)
        return await self._engine.store.decisions.read(which, after=after, limit=max(1, min(limit, MOST)))

    async def verify(self) -> dict[str, dict[str, int | None]]:
        """Check both chains."""
        store = self._engine.store
        found: dict[str, dict[str, int | None]] = {}
        for name, kept in (("events", store.log), ("decisions", store.decisions)):
            found[name] = {"records": await kept.count(), "first_wrong": await kept.verify()}
        return found

    async def waiting(self, machine: str) -> list[Command]:
        """Return the commands that are not taken in yet, oldest first."""
        return await self._engine.store.inbox.of(await find_machine(self._engine, machine))

    async def refusal(self, accepted: Accepted) -> str | None:
        """Return why a command had no effect. See Records."""
        return await refusal_of(self, accepted)

    async def _machine(self, name: str) -> str | None:
        return await find_machine(self._engine, name) if name else None
