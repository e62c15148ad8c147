"""Bringing a database to the version that this Forge knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateTable

from forge.model.errors import DependencyFailed
from forge.store import tables
from forge.store.statements import Row

LATEST = len(tables.MIGRATIONS)

_EXISTS = {
    "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'forge_schema'",
    "postgresql": "SELECT count(*) FROM pg_tables WHERE tablename = 'forge_schema' AND schemaname = current_schema()",
}


def version(query: Callable[[str], list[Row]], dialect: str = "sqlite") -> int:
    """Return the version of the database, 0 for an empty one. Raises DependencyFailed if a newer Forge made it."""
    if not query(_EXISTS[dialect])[0][0]:
        return 0
    found = int(query("SELECT coalesce(max(version), 0) FROM forge_schema")[0][0])
    if found > LATEST:
        raise DependencyFailed(
            f"the database was written by a newer Forge (version {found}; this one knows {LATEST})",
            hint="upgrade this Forge, or point FORGE_DATABASE at another database",
        )
    return found


def migrate(query: Callable[[str], list[Row]], dialect: Dialect, execute: Callable[[str], Any]) -> None:
    """Run what is missing. Call it in a transaction under a lock: two may open the same new database at once."""
    name = dialect.name
    present = version(query, name)
    if present == 0 and not query(_EXISTS[name])[0][0]:
        execute(str(CreateTable(tables.schema).compile(dialect=dialect)))
    for number, steps in enumerate(tables.MIGRATIONS[present:], present + 1):
        for statement in steps(dialect):
            execute(statement)
        clock = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"
        now = clock if name == "postgresql" else "forge_now()"
        execute(f"INSERT INTO forge_schema (version, applied_at) VALUES ({number}, {now})")  # noqa: S608
