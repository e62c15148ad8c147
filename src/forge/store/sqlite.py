"""SQLite: one thread that writes, one that reads, in WAL mode with every commit synced.

Writes that are waiting when one is under way share its commit (each in a savepoint of its own), so the cost of a
sync is paid once for all of them.

Leases run on the machine's monotonic clock, which all processes on it share and which no correction of the wall
clock moves. The wall clock itself is read once and then carried on by that same steady clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import text

from forge.model.errors import DependencyFailed
from forge.store import migrations
from forge.store.clocks import leases, wall
from forge.store.lanes import Job, Lanes, forget_cancelled
from forge.store.statements import Row, Statement, Transaction, sqlite_dialect
from forge.store.wakeups import Bell

BUSY_SECONDS = 30.0
CHECK_SECONDS = 0.06
"""How often somebody who waits looks whether another process wrote: a few microseconds each."""
SHARE_AT_MOST = 64
"""Writes in one commit."""


class SqliteTransaction:
    """The transaction that a session has open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.wakes = False
        self.logs = False

    def run(self, statement: Statement, **values: Any) -> list[Row]:
        """Execute; return all rows."""
        return self._connection.execute(statement.sqlite, {**statement.constants, **values}).fetchall()

    def change(self, statement: Statement, **values: Any) -> int:
        """Execute; return how many rows were changed."""
        return self._connection.execute(statement.sqlite, {**statement.constants, **values}).rowcount

    def many(self, statement: Statement, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute once for each row of values."""
        self._connection.executemany(statement.sqlite, [{**statement.constants, **row} for row in rows])

    def wake(self) -> None:
        """After the commit, wake whoever waits."""
        self.wakes = True

    def logged(self) -> None:
        """After the commit, wake whoever follows the log."""
        self.logs = True


class WriteSession:
    """The connection that writes."""

    def __init__(self, connection: sqlite3.Connection, path: Path, told: Callable[[bool, bool], None]) -> None:
        self.connection = connection
        self._path = path
        self._told = told

    def serve(self, first: Job, more: queue.SimpleQueue[Job | None]) -> bool:
        """Run the job and those that wait behind it in one transaction."""
        finished: list[tuple[Job, Any]] = []
        transaction = SqliteTransaction(self.connection)
        job: Job | None = first
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            while job is not None:
                self._attempt(job, transaction, finished)
                job = _next(more) if len(finished) < SHARE_AT_MOST else None
                if job is _END:
                    break
            self.connection.execute("COMMIT")
        except BaseException as error:
            _roll_back(self.connection)
            for other in (first, *(other for other, _ in finished)):
                other.fail(explain(error, self._path))
            return job is not _END
        self._told(transaction.wakes, transaction.logs)
        for other, result in finished:
            other.resolve(result)
        return job is not _END

    def _attempt(self, job: Job, transaction: SqliteTransaction, finished: list[tuple[Job, Any]]) -> None:
        """Run one job in a savepoint; its failure is its own unless it took the whole transaction down."""
        if forget_cancelled(job):
            return
        self.connection.execute("SAVEPOINT job")
        try:
            result = job.work(transaction)
        except BaseException as error:
            if not self.connection.in_transaction:
                job.fail(explain(error, self._path))
                raise
            self.connection.execute("ROLLBACK TO job")
            self.connection.execute("RELEASE job")
            job.fail(explain(error, self._path))
            return
        self.connection.execute("RELEASE job")
        finished.append((job, result))

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class ReadSession:
    """The connection that reads."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def serve(self, first: Job, more: queue.SimpleQueue[Job | None]) -> bool:
        """Run the job on one state of the database."""
        del more
        if forget_cancelled(first):
            return True
        try:
            if first.whole:
                self._connection.execute("BEGIN")
            result = first.work(SqliteTransaction(self._connection))
            if first.whole:
                self._connection.execute("COMMIT")
        except BaseException as error:
            _roll_back(self._connection)
            first.fail(explain(error, self._path))
            return True
        first.resolve(result)
        return True

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


_END: Any = object()
_DATA_VERSION = Statement(text("PRAGMA data_version"))


def _next(more: queue.SimpleQueue[Job | None]) -> Any:
    """Return the next job, None when none waits, or `_END` for the end mark."""
    try:
        job = more.get_nowait()
    except queue.Empty:
        return None
    return _END if job is None else job


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


class SqliteDatabase:
    """A database in a file, shared by all processes of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.due = Bell()
        self.log = Bell()
        self._loop = asyncio.get_running_loop()
        self._clock = wall()
        self._watch: sqlite3.Connection | None = None
        self._seen = 0
        self._written_by_others = 0
        self._waiters = 0
        self._next_look: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._writer = Lanes("write", lambda: WriteSession(self._connect(), path, self._told))
        self._reader = Lanes("read", lambda: ReadSession(self._connect(), path))

    async def open(self) -> None:
        """Create or migrate the tables. Raises DependencyFailed."""
        try:
            await asyncio.to_thread(self._prepare)
            self._watch = self._connect()
            self._seen = self._version()
            self._written_by_others = await self._foreign_version()
        except BaseException as error:
            await self.close()
            raise explain(error, self.path) from error

    def _prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect()
        try:
            if migrations.version(_schema_of(connection)) == migrations.LATEST:
                return
            connection.execute("BEGIN IMMEDIATE")
            migrations.migrate(_schema_of(connection), sqlite_dialect(), connection.execute)
            connection.execute("COMMIT")
        finally:
            _roll_back(connection)
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            connection.create_function("forge_now", 0, self._clock)
            connection.create_function("forge_lease_now", 0, leases)
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            return connection
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _told(self, wakes: bool, logs: bool) -> None:
        """Ring the bells, from the writing thread."""
        if not (wakes or logs):
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ring, wakes, logs)

    def _ring(self, wakes: bool, logs: bool) -> None:
        if wakes:
            self.due.ring()
        if logs:
            self.log.ring()

    async def write(self, work: Callable[[Transaction], Any]) -> Any:
        """Run in a transaction that is committed when this returns."""
        return await self._writer.run(work)

    async def read(self, work: Callable[[Transaction], Any], *, whole: bool = False) -> Any:
        """Run what only reads. `whole`: all its statements see the same state of the database."""
        return await self._reader.run(work, whole=whole)

    async def now(self) -> float:
        """Return the steady time."""
        return self._clock()

    async def wait(self, bell: Bell, timeout: float, since: int | None = None) -> None:
        """Wait for a bell; meanwhile look now and then whether another process wrote."""
        since = bell.count if since is None else since
        self._waiters += 1
        try:
            if self._waiters == 1:
                self._look()
            await bell.wait(timeout, since)
        finally:
            self._waiters -= 1

    def _look(self) -> None:
        """Look whether anybody committed since the last look, and again soon if somebody still waits.

        The watching connection also sees this process's own commits; only when it saw something is the writing
        connection asked, which does not count its own."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if not self._waiters or self._watch is None:
            return
        with contextlib.suppress(DependencyFailed):
            if (seen := self._version()) != self._seen and (self._asking is None or self._asking.done()):
                self._seen = seen
                self._asking = self._loop.create_task(self._ask_whose())
        self._next_look = self._loop.call_later(CHECK_SECONDS, self._look)

    async def _ask_whose(self) -> None:
        """Ring if it was another process that wrote."""
        with contextlib.suppress(DependencyFailed):
            version = await self._foreign_version()
            if version != self._written_by_others:
                self._written_by_others = version
                self._ring(wakes=True, logs=True)

    def _version(self) -> int:
        if self._watch is None:
            raise DependencyFailed("the database was closed already")
        try:
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    async def _foreign_version(self) -> int:
        return int(await self._writer.run(lambda transaction: transaction.run(_DATA_VERSION)[0][0]))

    async def close(self) -> None:
        """Close all connections."""
        if self._next_look is not None:
            self._next_look.cancel()
        if self._asking is not None:
            await self._asking
        await self._writer.close()
        await self._reader.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. While another process does the same, SQLite refuses at once instead of waiting."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _schema_of(connection: sqlite3.Connection) -> Callable[[str], list[Row]]:
    return lambda query: connection.execute(query).fetchall()


_ADVICE = {
    "SQLITE_FULL": ("the disk is full", "free some space; nothing was half-written"),
    "SQLITE_READONLY": ("the database is read-only", "check the permissions of the file and its folder"),
    "SQLITE_CORRUPT": ("the database file is damaged", "restore it from a copy; `forge doctor` tells more"),
    "SQLITE_NOTADB": ("the file is not a database", "it was damaged or is something else: move it away"),
    "SQLITE_BUSY": ("another program keeps the database locked", "end the program that holds it, then try again"),
    "SQLITE_CANTOPEN": ("the database file cannot be opened", "check that its folder exists and is writable"),
    "SQLITE_IOERR": ("reading or writing the database failed", "check the disk"),
}


def explain(error: BaseException, path: Path | None = None) -> BaseException:
    """Return what Forge says for an error of SQLite; other errors as they are."""
    where = f" ({path})" if path is not None else ""
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", "") or ""
        for known, (message, hint) in _ADVICE.items():
            if name.startswith(known):
                return DependencyFailed(f"{message}{where}: {error}", hint=hint)
        return DependencyFailed(f"the database failed{where}: {error}")
    if isinstance(error, OSError):
        return DependencyFailed(f"the database cannot be kept{where}: {error}", hint="check the folder's permissions")
    return error
