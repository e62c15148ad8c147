"""The tables, and the steps that bring an older database up to them.

Times are seconds since the epoch by the database's clock. Lease times may be by another clock that never jumps
(see `sqlite.py`), so they are compared with `lease_now()` only.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.functions import GenericFunction

metadata = MetaData()
"""The tables of the first version. A table that came later is in `later`, and has a step of its own below."""
later = MetaData()

# SQLite gives automatic numbers to INTEGER keys only.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

schema = Table("forge_schema", metadata, Column("version", Integer, primary_key=True), Column("applied_at", Double))

sequences = Table(
    "sequences", metadata, Column("name", Text, primary_key=True), Column("value", BigInteger, nullable=False)
)

machines = Table(
    "machines",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("wake_at", Double),
    Column("schema_version", Integer, nullable=False, server_default="1"),
    Column("worker", Text, nullable=False, server_default=""),
    Column("token", BigInteger, nullable=False, server_default="0"),
    # 0: told something, look now. While leased: 0 or NULL. While free: 0, or `wake_at`.
    Column("due_at", Double),
    Index("machines_due", "worker", "due_at"),
    Index("machines_by_kind", "kind", "seq"),
    Index(
        "machines_key",
        "kind",
        "key",
        unique=True,
        sqlite_where=text("key <> ''"),
        postgresql_where=text("key <> ''"),
    ),
    sqlite_autoincrement=True,
)

parts = Table(
    "machine_parts",
    metadata,
    Column("machine", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    # Alive while lease_from <= lease_now() < lease_until: a clock that starts again from 0 ends a lease too.
    Column("lease_from", Double, nullable=False),
    Column("lease_until", Double, nullable=False),
)

intents = Table(
    "intents",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("machine", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("rerun", Integer, nullable=False),
    Column("state", Text, nullable=False),  # pending, started, finished, settled
    Column("cancel", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("outcome", LargeBinary),
    UniqueConstraint("machine", "key"),
    Index(
        "intents_unsettled",
        "machine",
        "seq",
        sqlite_where=text("state <> 'settled'"),
        postgresql_where=text("state <> 'settled'"),
    ),
)

commands = Table(
    "commands",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("machine", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("key", Text, nullable=False),
    Column("consumed", Integer, nullable=False),
    Index(
        "commands_key",
        "machine",
        "key",
        unique=True,
        sqlite_where=text("key <> ''"),
        postgresql_where=text("key <> ''"),
    ),
    Index(
        "commands_waiting",
        "machine",
        "id",
        sqlite_where=text("consumed = 0"),
        postgresql_where=text("consumed = 0"),
    ),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("machine", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("event", LargeBinary, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("events_by_machine", "machine", "seq"),
)

log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

EVENTS_HEAD, DECISIONS_HEAD = 1, 2
"""The rows of `log_head` that the two chains end in."""

decisions = Table(
    "decisions",
    later,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("machine", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("decisions_by_machine", "machine", "seq"),
)

documents = Table(
    "documents",
    metadata,
    Column("collection", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

groups = Table(
    "slot_groups",
    metadata,
    Column("name", Text, primary_key=True),
    Column("arrivals", BigInteger, nullable=False),
)

slots = Table(
    "slots",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, primary_key=True),
    Column("arrival", BigInteger, nullable=False),
    Column("held", Integer, nullable=False),
)


class now(GenericFunction[float]):  # noqa: N801 - reads as the SQL function that it is
    """The database's time: seconds since the epoch."""

    type = Double()
    inherit_cache = True
    name = "forge_now"


class lease_now(GenericFunction[float]):  # noqa: N801
    """The clock of leases: seconds since some moment that all workers of this database share."""

    type = Double()
    inherit_cache = True
    name = "forge_lease_now"


@compiles(now, "postgresql")
@compiles(lease_now, "postgresql")
def _server_time(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM statement_timestamp()) AS DOUBLE PRECISION)"


def _create_everything(dialect: Dialect) -> list[str]:
    """Return the statements of the first version."""
    statements: list[str] = []
    for table in metadata.sorted_tables:
        if table is schema:
            continue
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        statements.extend(
            str(CreateIndex(index).compile(dialect=dialect))
            for index in sorted(table.indexes, key=lambda i: str(i.name))
        )
    statements.append("INSERT INTO log_head (id, seq, hash) VALUES (1, 0, '')")
    return statements


def _add_decisions(dialect: Dialect) -> list[str]:
    """Return the statements that add the record of decisions."""
    return [
        str(CreateTable(decisions).compile(dialect=dialect)),
        *(str(CreateIndex(index).compile(dialect=dialect)) for index in decisions.indexes),
        f"INSERT INTO log_head (id, seq, hash) VALUES ({DECISIONS_HEAD}, 0, '')",  # noqa: S608 - a constant
    ]


MIGRATIONS = (_create_everything, _add_decisions)
"""Step n brings a database of version n to version n + 1. Never change one that was released; add another."""
