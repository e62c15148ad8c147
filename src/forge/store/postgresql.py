"""PostgreSQL: a few threads with a connection each, and one connection that listens.

Time is the server's. A transaction that met a deadlock, or whose connection broke before the commit was sent, is
run again; a connection that breaks during the commit is an error, as nobody can say what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import psycopg
from psycopg import errors as server
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import select

from forge.model.errors import DependencyFailed, UsageError
from forge.store import migrations
from forge.store import tables as t
from forge.store.clocks import steady
from forge.store.lanes import Job, Lanes, forget_cancelled
from forge.store.statements import Row, Statement, Transaction, postgresql_dialect
from forge.store.wakeups import Bell

CONNECTIONS = 4
RECONNECT_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8)
CONFLICTS = 20
CLOCK_SECONDS = 5.0
"""How long a measured difference between the server's clock and ours is relied on."""

# A worker that is stopped in the middle of a transaction must not keep its locks for ever.
_SETTINGS = "-c idle_in_transaction_session_timeout=5s -c lock_timeout=30s -c client_min_messages=warning"
# A server that is gone without a word, as after a failover: who only listens would never notice.
_ALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
_MIGRATION_LOCK = 0x466F726765
_NOW = Statement(select(t.now()))


class PostgresqlTransaction:
    """The transaction that a session has open."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._cursor = connection.cursor(binary=True)
        self.wakes = False
        self.logs = False

    def run(self, statement: Statement, **values: Any) -> list[Row]:
        """Execute; return all rows."""
        self._execute(statement, values)
        return self._cursor.fetchall() if self._cursor.description is not None else []

    def change(self, statement: Statement, **values: Any) -> int:
        """Execute; return how many rows were changed."""
        self._execute(statement, values)
        return self._cursor.rowcount

    def many(self, statement: Statement, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute once for each row of values."""
        values = [{**statement.constants, **row} for row in rows]
        if len(values) == 1:
            self._cursor.execute(cast("Any", statement.postgresql), values[0])
        elif values:
            self._cursor.executemany(cast("Any", statement.postgresql), values)

    def _execute(self, statement: Statement, values: dict[str, Any]) -> None:
        self._cursor.execute(cast("Any", statement.postgresql), {**statement.constants, **values})

    def wake(self) -> None:
        """After the commit, wake whoever waits."""
        self.wakes = True

    def logged(self) -> None:
        """After the commit, wake whoever follows the log."""
        self.logs = True

    def notify(self, sender: str) -> None:
        """Send what was asked for; the server delivers it with the commit."""
        for wanted, channel in ((self.wakes, "forge_due"), (self.logs, "forge_log")):
            if wanted:
                self._cursor.execute("SELECT pg_notify(%s, %s)", (channel, sender))


class Session:
    """A connection that is made again when it breaks."""

    def __init__(self, url: str, sender: str, told: Callable[[bool, bool], None], *, reads: bool) -> None:
        self._url = url
        self._sender = sender
        self._told = told
        self._reads = reads
        self._connection: psycopg.Connection[Row] | None = None

    def serve(self, first: Job, more: queue.SimpleQueue[Job | None]) -> bool:
        """Run the job."""
        del more
        if forget_cancelled(first):
            return True
        try:
            result = self._run(first)
        except BaseException as error:
            first.fail(explain(error))
            return True
        first.resolve(result)
        return True

    def _run(self, job: Job) -> Any:
        """Run the job, again after a conflict or a broken connection."""
        broken = conflicts = 0
        while True:
            committing = False
            try:
                connection = self._connected()
                transaction = PostgresqlTransaction(connection)
                if self._reads:
                    return _look(connection, transaction, job)
                result = job.work(transaction)
                transaction.notify(self._sender)
                committing = True
                connection.commit()
            except (server.DeadlockDetected, server.SerializationFailure):
                self._roll_back()
                conflicts += 1
                if conflicts > CONFLICTS:
                    raise
            except psycopg.Error:
                lost = self._connection is None or self._connection.closed
                self._roll_back()
                if committing or not lost or broken >= len(RECONNECT_SECONDS):
                    raise
                time.sleep(RECONNECT_SECONDS[broken])
                broken += 1
            except BaseException:
                self._roll_back()
                raise
            else:
                if transaction.wakes or transaction.logs:
                    self._told(transaction.wakes, transaction.logs)
                return result

    def _connected(self) -> psycopg.Connection[Row]:
        if self._connection is None or self._connection.closed:
            connection = connect(self._url)
            if self._reads:
                connection.autocommit = True
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
            self._connection = connection
        return self._connection

    def _roll_back(self) -> None:
        if self._connection is None:
            return
        with contextlib.suppress(psycopg.Error):
            self._connection.rollback()
        if self._connection.broken or self._connection.closed:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _look(connection: psycopg.Connection[Row], transaction: PostgresqlTransaction, job: Job) -> Any:
    """Run a job that only reads: the statements by themselves, or all on one state of the database."""
    if not job.whole:
        return job.work(transaction)
    with connection.transaction():
        return job.work(transaction)


class PostgresqlDatabase:
    """A database on a server, shared by workers on any number of machines."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.due = Bell()
        self.log = Bell()
        self._loop = asyncio.get_running_loop()
        self._sender = uuid.uuid4().hex
        self._listener: asyncio.Task[None] | None = None
        self._offset = 0.0
        self._measured = float("-inf")
        reading, writing = CONNECTIONS // 2, CONNECTIONS - CONNECTIONS // 2
        self._writers = Lanes("write", lambda: Session(url, self._sender, self._told, reads=False), writing)
        self._readers = Lanes("read", lambda: Session(url, self._sender, self._told, reads=True), reading)

    async def open(self) -> None:
        """Connect, and create or migrate the tables. Raises DependencyFailed."""
        try:
            await asyncio.to_thread(self._prepare)
        except BaseException as error:
            await self.close()
            raise explain(error) from error

    def _prepare(self) -> None:
        with connect(self._url) as connection:

            def query(text: str) -> list[Row]:
                return connection.execute(cast("Any", text)).fetchall()

            if migrations.version(query, "postgresql") != migrations.LATEST:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
                migrations.migrate(query, postgresql_dialect(), lambda text: connection.execute(cast("Any", text)))

    def _told(self, wakes: bool, logs: bool) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ring, wakes, logs)

    def _ring(self, wakes: bool, logs: bool) -> None:
        if wakes:
            self.due.ring()
        if logs:
            self.log.ring()

    async def write(self, work: Callable[[Transaction], Any]) -> Any:
        """Run in a transaction that is committed when this returns."""
        return await self._writers.run(work)

    async def read(self, work: Callable[[Transaction], Any], *, whole: bool = False) -> Any:
        """Run what only reads. `whole`: all its statements see the same state of the database."""
        return await self._readers.run(work, whole=whole)

    async def now(self) -> float:
        """Return the server's time, carried on by a steady clock between measurements."""
        if (elapsed := steady()) - self._measured > CLOCK_SECONDS:
            seconds: float = (await self.read(lambda transaction: transaction.run(_NOW)))[0][0]
            self._measured = steady()
            self._offset = seconds - (elapsed + self._measured) / 2
        return self._offset + steady()

    async def wait(self, bell: Bell, timeout: float, since: int | None = None) -> None:
        """Wait for a bell, rung by this process or by a notification of another."""
        since = bell.count if since is None else since
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name="forge-listen")
        await bell.wait(timeout, since)

    async def _listen(self) -> None:
        """Ring for notifications of other processes, for as long as the store is open."""
        while True:
            with contextlib.suppress(psycopg.Error, OSError):
                connection = await psycopg.AsyncConnection.connect(autocommit=True, **settings(self._url))
                async with connection:
                    await connection.execute("LISTEN forge_due")
                    await connection.execute("LISTEN forge_log")
                    self._ring(wakes=True, logs=True)  # what came before we listened, or while we were cut off
                    async for notice in connection.notifies():
                        if notice.payload != self._sender:
                            self._ring(wakes=notice.channel == "forge_due", logs=notice.channel == "forge_log")
            await asyncio.sleep(0.5)

    async def close(self) -> None:
        """Close all connections."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
            self._listener = None
        await self._writers.close()
        await self._readers.close()


def settings(url: str) -> dict[str, Any]:
    """Return a connection's settings: Forge's, and above them what the URL says (such as a `search_path`)."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        words = "the database's URL cannot be read"  # the error itself may repeat the password
        raise UsageError(words, hint="it looks like postgresql://user@host:port/name") from error
    options = f"{_SETTINGS} {given.get('options', '')}".strip()
    return {"connect_timeout": 5, "application_name": "forge", **_ALIVE, **given, "options": options}


def connect(url: str) -> psycopg.Connection[Row]:
    """Return a connection with Forge's settings."""
    return psycopg.connect(**settings(url))


_ADVICE: tuple[tuple[type[psycopg.Error], str, str], ...] = (
    (server.DiskFull, "the database server's disk is full", "free some space there; nothing was half-written"),
    (server.ReadOnlySqlTransaction, "the database is read-only", "connect to the primary server"),
    (server.InvalidPassword, "the database refused the password", "check FORGE_DATABASE"),
    (server.InvalidCatalogName, "there is no such database", "create it, or correct FORGE_DATABASE"),
    (server.InsufficientPrivilege, "the database user may not do this", "grant it the right to create tables"),
    (server.LockNotAvailable, "the database is locked by another session", "find it in pg_stat_activity"),
    (server.DataCorrupted, "the database is damaged", "restore it from a backup"),
)


def explain(error: BaseException) -> BaseException:
    """Return what Forge says for an error of PostgreSQL; other errors as they are."""
    if not isinstance(error, psycopg.Error):
        return error
    detail = str(error).strip().partition("\n")[0]
    for kind, message, hint in _ADVICE:
        if isinstance(error, kind):
            return DependencyFailed(f"{message}: {detail}", hint=hint)
    if isinstance(error, psycopg.OperationalError):
        return DependencyFailed(f"the database cannot be reached: {detail}", hint="is the server up?")
    return DependencyFailed(f"the database failed: {detail}")
