"""Statements written once with SQLAlchemy Core and compiled once for each database.

The drivers are called directly with the compiled text: going through SQLAlchemy's connection for each of the few
statements of a tick would cost more than the tick itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from typing import Any, Protocol

from sqlalchemy import BindParameter, Table, Text, bindparam, insert
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

Row = tuple[Any, ...]


@cache
def sqlite_dialect() -> Dialect:
    """Return how SQLite's SQL is written."""
    from sqlalchemy.dialects import sqlite

    return sqlite.dialect(paramstyle="named")


@cache
def postgresql_dialect() -> Dialect:
    """Return how PostgreSQL's SQL is written; loaded only where one is used, for it takes its time."""
    from sqlalchemy.dialects import postgresql

    dialect: Dialect = postgresql.psycopg.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
    return dialect


class Statement:
    """One statement, as text for each database, compiled when first used. All values are named parameters."""

    def __init__(self, element: ClauseElement | Callable[[Any], ClauseElement]) -> None:
        """Take an element, or a function of the dialect's `insert` for what standard SQL has no words for."""
        self._element = element

    @cached_property
    def sqlite(self) -> str:
        """The text for SQLite."""
        return str(self._for_sqlite)

    @cached_property
    def postgresql(self) -> str:
        """The text for PostgreSQL."""
        from sqlalchemy.dialects import postgresql

        element = self._element if isinstance(self._element, ClauseElement) else self._element(postgresql.insert)
        return str(element.compile(dialect=postgresql_dialect()))

    @cached_property
    def constants(self) -> dict[str, Any]:
        """The values that stand in the statement itself."""
        return {name: bind.value for name, bind in self._for_sqlite.binds.items() if not bind.required}

    @cached_property
    def _for_sqlite(self) -> Any:
        from sqlalchemy.dialects import sqlite

        element = self._element if isinstance(self._element, ClauseElement) else self._element(sqlite.insert)
        return element.compile(dialect=sqlite_dialect())


class Transaction(Protocol):
    """A transaction in its own thread; everything in it happens or nothing does."""

    def run(self, statement: Statement, **values: Any) -> list[Row]:
        """Execute; return all rows (none for a statement that returns none)."""

    def change(self, statement: Statement, **values: Any) -> int:
        """Execute; return how many rows were changed."""

    def many(self, statement: Statement, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute once for each row of values."""

    def wake(self) -> None:
        """After the commit, wake whoever waits for something to become due."""

    def logged(self) -> None:
        """After the commit, wake whoever follows the log."""


class Database(Protocol):
    """Runs transactions, each a plain function in a thread that owns a connection."""

    async def write(self, work: Callable[[Transaction], Any]) -> Any:
        """Run in a transaction that is committed when this returns. May run `work` again after a conflict."""

    async def read(self, work: Callable[[Transaction], Any], *, whole: bool = False) -> Any:
        """Run what only reads. `whole`: all its statements see the same state of the database."""


def names(count: int, prefix: str) -> list[BindParameter[str]]:
    """Return parameters `prefix0`, `prefix1`, … for an IN of that many strings."""
    return [bindparam(f"{prefix}{number}", type_=Text()) for number in range(count)]


def named(values: Iterable[str], prefix: str) -> dict[str, str]:
    """Return the values for `names`."""
    return {f"{prefix}{number}": value for number, value in enumerate(values)}


def _parameters(table: Table) -> dict[str, Any]:
    """Return a parameter for each column but an automatic number."""
    return {
        column.name: bindparam(column.name, type_=column.type)
        for column in table.columns
        if not (column.primary_key and column.autoincrement is True)
    }


def add(table: Table, **values: Any) -> Statement:
    """Return an insert of a row, with some columns given as expressions."""
    return Statement(insert(table).inline().values({**_parameters(table), **values}))


def add_new(table: Table, *, returning: Any = None, **values: Any) -> Statement:
    """Return an insert that leaves a row that is there already as it is."""

    def build(dialect_insert: Any) -> ClauseElement:
        statement = dialect_insert(table).inline().values({**_parameters(table), **values}).on_conflict_do_nothing()
        element: ClauseElement = statement if returning is None else statement.returning(returning)
        return element

    return Statement(build)


def upsert(table: Table, keys: tuple[str, ...], replace: tuple[str, ...], **values: Any) -> Statement:
    """Return an insert that replaces the named columns of a row that is there already."""

    def build(dialect_insert: Any) -> ClauseElement:
        statement = dialect_insert(table).inline().values({**_parameters(table), **values})
        element: ClauseElement = statement.on_conflict_do_update(
            index_elements=list(keys), set_={name: statement.excluded[name] for name in replace}
        )
        return element

    return Statement(build)
