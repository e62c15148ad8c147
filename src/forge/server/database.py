"""The site's own database: users, tokens, hooks, schedules, secrets, keys of requests, heartbeats.

Projects have databases of their own (see `site.py`). Each part of the server declares its tables on `metadata`;
missing ones are created when the site opens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, event, text
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from forge.model.errors import DependencyFailed, UsageError
from forge.server.settings import in_schema

metadata = MetaData()
"""The tables of the whole server."""
SCHEMA = "forge_server"
_CREATION_LOCK = 0x466F72676553
_BUSY_SECONDS = 10.0


class SiteDatabase:
    """Connections to the site's database. Made by `open_database`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction that is committed at the end. Raises DependencyFailed when the database
        is away; errors of constraints pass through."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (OperationalError, InterfaceError) as error:
            raise _away(error) from error
        except IntegrityError:
            raise
        except DBAPIError as error:
            if error.connection_invalidated or type(error) is DatabaseError:
                raise _away(error) from error
            raise

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection that only reads, so that it never waits for a writer. Raises DependencyFailed."""
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(forge_reads=True)
                yield connection
        except (OperationalError, InterfaceError) as error:
            raise _away(error) from error

    async def check(self) -> None:
        """Ask the database for anything. Raises DependencyFailed when it is away."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def create_schema(self, name: str) -> None:
        """Create a schema of PostgreSQL, where it is missing. `name` must be one that needs no escaping in quotes."""
        async with self.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
            await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{name}"'))

    async def create_tables(self) -> None:
        """Create the tables of `metadata` that are missing; safe when several servers start at once."""
        async with self.begin() as connection:
            if self.dialect == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"'))
            await connection.run_sync(metadata.create_all)

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[SiteDatabase]:
    """Open the database at `sqlite:///path` or `postgresql://…` and create what is missing.

    Raises UsageError for any other URL, DependencyFailed when it cannot be used.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        engine = _sqlite(Path(rest[1:]))
    elif scheme in {"postgresql", "postgres"}:
        engine = create_async_engine(
            in_schema(f"postgresql+psycopg://{rest}", SCHEMA),
            pool_size=4,
            max_overflow=4,
            pool_pre_ping=True,
            pool_timeout=_BUSY_SECONDS,
            connect_args={"connect_timeout": 5, "application_name": "forge-server"},
        )
    else:
        raise UsageError(
            "the site's database is given by a URL", hint="sqlite:///path/to/server.db or postgresql://user@host/name"
        )
    database = SiteDatabase(engine)
    try:
        await database.create_tables()
        yield database
    finally:
        await database.close()


def _sqlite(path: Path) -> AsyncEngine:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, never by the driver's guess
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        reads = connection.get_execution_options().get("forge_reads")
        # A transaction that reads first and writes then could never be let in by SQLite.
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _away(error: Exception) -> DependencyFailed:
    detail = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return DependencyFailed(f"the site's database cannot be used: {detail}", hint="is it up, and its disk not full?")
