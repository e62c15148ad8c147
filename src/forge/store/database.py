"""Opening a store by URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from forge.model.errors import UsageError
from forge.store.contract import Store
from forge.store.decisions import DatabaseDecisions
from forge.store.documents import DatabaseDocuments
from forge.store.inbox import DatabaseInbox
from forge.store.intents import DatabaseIntents
from forge.store.log import DatabaseLog
from forge.store.machines import DatabaseMachines
from forge.store.slots import DatabaseSlots
from forge.store.statements import Database
from forge.store.wakeups import Bell


class Engine(Database, Protocol):
    """What a database brings besides transactions."""

    due: Bell
    log: Bell

    async def open(self) -> None:
        """Connect, and create or migrate the tables."""

    async def now(self) -> float:
        """Return the database's time."""

    async def wait(self, bell: Bell, timeout: float, since: int | None = None) -> None:
        """Wait for one of its bells."""

    async def close(self) -> None:
        """Close all connections."""


class DatabaseStore:
    """`forge.store.contract.Store` on SQLite or PostgreSQL."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self.machines = DatabaseMachines(database)
        self.intents = DatabaseIntents(database)
        self.inbox = DatabaseInbox(database)
        self.log = DatabaseLog(database)
        self.decisions = DatabaseDecisions(database)
        self.documents = DatabaseDocuments(database)
        self.slots = DatabaseSlots(database)

    async def now(self) -> float:
        """Return the database's time."""
        return await self._database.now()

    def mark(self) -> int:
        """Return the present point in the count of wake-ups, for `wait(since=…)`."""
        return self._database.due.count

    async def wait(self, timeout: float, *, since: int | None = None) -> None:
        """Return when something became due, or after `timeout` seconds."""
        await self._database.wait(self._database.due, timeout, since)

    def mark_events(self) -> int:
        """Return the present point in the growth of the log, for `wait_for_events(since=…)`."""
        return self._database.log.count

    async def wait_for_events(self, timeout: float, *, since: int | None = None) -> None:
        """Return when the log may have grown, or after `timeout` seconds."""
        await self._database.wait(self._database.log, timeout, since)

    async def close(self) -> None:
        """Close all connections."""
        await self._database.close()

    async def __aenter__(self) -> DatabaseStore:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()


async def open_store(url: str) -> DatabaseStore:
    """Open the database at `sqlite:///path` (`sqlite:////absolute/path`) or `postgresql://…`, creating the tables.

    Raises UsageError for any other URL, DependencyFailed when the database cannot be used."""
    scheme, separator, rest = url.partition("://")
    database: Engine
    if separator and scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from forge.store.sqlite import SqliteDatabase

        database = SqliteDatabase(Path(rest[1:]))
    elif separator and scheme in {"postgresql", "postgres"}:
        from forge.store.postgresql import PostgresqlDatabase

        database = PostgresqlDatabase(f"postgresql://{rest}")
    else:
        raise UsageError(
            f"no database of the kind {scheme!r}" if separator else "a database is given by a URL",
            hint="use sqlite:///path/to/forge.db or postgresql://user@host/name",
        )
    await database.open()
    return DatabaseStore(database)


__all__ = ["DatabaseStore", "Store", "open_store"]
