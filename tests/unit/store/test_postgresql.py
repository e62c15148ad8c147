"""What only a server can do: go away, refuse, disagree about the time, or detect a deadlock."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

import psycopg
import pytest

from forge.model.decision import Event
from forge.model.errors import DependencyFailed, UsageError
from forge.store import postgresql
from forge.store.contract import Write
from forge.store.database import open_store
from forge.store.migrations import LATEST
from forge.store.postgresql import CONNECTIONS, explain, settings


@pytest.fixture
async def server_store(postgres_url):
    opened = await open_store(postgres_url)
    yield opened
    await opened.close()


def sessions_of_forge(url: str) -> list[tuple[int, str]]:
    with psycopg.connect(url) as connection:
        query = "SELECT pid, query FROM pg_stat_activity WHERE application_name = 'forge' ORDER BY pid"
        return connection.execute(query).fetchall()


class TestConnections:
    async def test_their_number_is_bounded(self, server_store, postgres_url):
        before = {pid for pid, _ in sessions_of_forge(postgres_url)}
        work = [server_store.documents.put("c", f"{n}", b"1") for n in range(50)]
        look = [server_store.documents.get("c", f"{n}") for n in range(50)]
        await asyncio.gather(*work, *look, server_store.wait(0.3))
        after = {pid for pid, _ in sessions_of_forge(postgres_url)}
        assert 0 < len(after | before) <= CONNECTIONS + 1

    async def test_none_is_left_after_closing(self, postgres_url):
        async with await open_store(postgres_url) as store:
            await store.documents.put("c", "k", b"1")
            await store.wait(0.1)
            mine = {pid for pid, _ in sessions_of_forge(postgres_url)}
            assert mine
        end = time.monotonic() + 5
        while mine & {pid for pid, _ in sessions_of_forge(postgres_url)}:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)

    async def test_connections_that_the_server_ends_are_made_again(self, server_store, postgres_url):
        for n in range(3):
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'forge'"
                connection.execute(query)
            assert await server_store.documents.put("c", f"{n}", b"1")
            assert await server_store.documents.get("c", f"{n}") == b"1"

    async def test_a_connection_lost_in_the_middle_runs_the_transaction_again(self, server_store, postgres_url):
        attempts = []

        def work(transaction):
            (pid,) = transaction._cursor.execute("SELECT pg_backend_pid()").fetchone()
            attempts.append(pid)
            if len(attempts) == 1:
                with psycopg.connect(postgres_url, autocommit=True) as connection:
                    connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
            transaction._cursor.execute("SELECT 1")
            return "done"

        assert await server_store._database.write(work) == "done"
        assert len(set(attempts)) == 2

    async def test_a_deadlock_is_resolved_by_running_again(self, server_store):
        machines = [
            await server_store.machines.create("run", "", "queued", b"{}", {}, id_prefix="run") for _ in range(2)
        ]
        both_have_one = threading.Barrier(2, timeout=10)
        waits = {0: True, 1: True}

        def cross(first: int):
            def work(transaction):
                for place in (first, 1 - first):
                    query = "UPDATE machines SET status = 'x' WHERE id = %s"
                    transaction._cursor.execute(query, (machines[place],))
                    if waits[first]:
                        waits[first] = False
                        both_have_one.wait()
                return first

            return work

        results = await asyncio.gather(*(server_store._database.write(cross(n)) for n in range(2)))
        assert results == [0, 1]

    async def test_a_server_that_is_not_there(self, tmp_path):
        begin = time.monotonic()
        with pytest.raises(DependencyFailed, match="cannot be reached") as caught:
            await open_store(f"postgresql://forge@/x?host={tmp_path}")
        assert caught.value.hint
        assert time.monotonic() - begin < 10

    async def test_a_database_that_is_not_there(self, postgres_server):
        with pytest.raises(DependencyFailed, match="nowhere"):
            await open_store(postgres_server.url("nowhere"))

    async def test_a_url_that_cannot_be_read(self):
        with pytest.raises(UsageError, match="URL"):
            await open_store("postgresql://h/?nonsense=1")

    async def test_a_password_is_never_told(self, tmp_path):
        with pytest.raises(DependencyFailed) as caught:
            await open_store(f"postgresql://forge:hunter2@/x?host={tmp_path}")
        assert "hunter2" not in f"{caught.value.message}{caught.value.hint}{caught.value.__cause__}"

    def test_the_urls_options_come_on_top_of_ours(self):
        options = settings("postgresql://h/d?options=-csearch_path%3Dx&connect_timeout=1")
        assert options["options"].startswith(postgresql._SETTINGS)
        assert options["options"].endswith("-csearch_path=x")
        assert options["connect_timeout"] == "1"

    async def test_a_restart_between_two_writes_is_not_noticed(self, own_postgres_server):
        async with await open_store(own_postgres_server.url()) as store:
            machine = await store.machines.create("run", "", "queued", b"{}", {}, id_prefix="run")
            (claim,) = await store.machines.claim("w", ("run",), 1, 60)
            own_postgres_server.stop(signal.SIGINT)
            with pytest.raises(DependencyFailed, match="cannot be reached"):
                await store.machines.write(claim, Write(status="running", head=b"{}"))
            own_postgres_server.start()
            await store.machines.write(claim, Write(status="running", head=b"{}", events=(Event("e", ""),)))
            assert (await store.machines.load(machine)).status == "running"
            assert await store.log.verify() is None
            # The listener comes back too.
            await asyncio.sleep(1)
            async with await open_store(own_postgres_server.url()) as other:
                await store.wait(0.3)
                waiting = asyncio.create_task(store.wait(20))
                await asyncio.sleep(0.6)
                await other.inbox.send(machine, "x", "me", {})
                begin = time.monotonic()
                await waiting
                assert time.monotonic() - begin < 5


class TestStoppedSessions:
    async def test_a_process_that_was_stopped_in_a_transaction_runs_it_again(self, postgres_url, monkeypatch):
        monkeypatch.setattr(postgresql, "_SETTINGS", "-c idle_in_transaction_session_timeout=100ms")
        attempts = []

        def work(transaction):
            transaction._cursor.execute("SELECT * FROM log_head FOR UPDATE")
            attempts.append(1)
            time.sleep(0.3 if len(attempts) == 1 else 0)
            return transaction._cursor.execute("SELECT 'done'").fetchone()[0]

        async with await open_store(postgres_url) as store:
            assert await store._database.write(work) == "done"
        assert len(attempts) == 2

    async def test_locks_of_a_process_stopped_in_a_transaction_are_released(
        self, server_store, postgres_url, monkeypatch
    ):
        quick = postgresql._SETTINGS.replace(
            "idle_in_transaction_session_timeout=5s", "idle_in_transaction_session_timeout=200ms"
        )
        assert quick != postgresql._SETTINGS
        await server_store.machines.create("run", "", "queued", b"{}", {}, id_prefix="run")
        with psycopg.connect(
            **{**settings(postgres_url), "options": f"{quick} -csearch_path={self._schema(postgres_url)}"}
        ) as stopped:
            stopped.execute("SELECT * FROM log_head FOR UPDATE")
            begin = time.monotonic()
            await server_store.machines.create("run", "", "q", b"{}", {}, events=(Event("e", ""),), id_prefix="run")
            assert time.monotonic() - begin < 5
            with pytest.raises(psycopg.Error, match="idle-in-transaction"):
                stopped.execute("SELECT 1")

    @staticmethod
    def _schema(url: str) -> str:
        return url.rpartition("%3D")[2]


class TestTime:
    async def test_the_servers_time_counts_not_ours(self, server_store, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: 1000.0)
            assert await server_store.now() > 1e9

    async def test_it_is_asked_for_now_and_then_only(self, server_store, monkeypatch):
        await server_store.now()
        asked = []
        read = server_store._database.read

        async def counting(work):
            asked.append(work)
            return await read(work)

        monkeypatch.setattr(server_store._database, "read", counting)
        times = [await server_store.now() for _ in range(100)]
        assert times == sorted(times)
        assert asked == []
        monkeypatch.setattr(postgresql, "CLOCK_SECONDS", 0.0)
        await server_store.now()
        assert len(asked) == 1


class TestVersions:
    async def test_a_database_of_a_newer_forge_is_refused(self, postgres_url):
        async with await open_store(postgres_url):
            pass
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("INSERT INTO forge_schema VALUES (%s, 0)", (LATEST + 1,))
        with pytest.raises(DependencyFailed, match="newer Forge"):
            await open_store(postgres_url)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (psycopg.errors.DiskFull("no space left"), "disk is full: no space left"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT"), "read-only"),
        (psycopg.errors.InsufficientPrivilege("permission denied"), "may not do this"),
        (psycopg.errors.LockNotAvailable("lock timeout"), "locked"),
        (psycopg.errors.DataCorrupted("bad page"), "damaged"),
        (psycopg.errors.SyntaxError("oops\nLINE 1"), "failed: oops"),
    ],
)
def test_every_error_has_words(error, words):
    told = explain(error)
    assert isinstance(told, DependencyFailed)
    assert words in told.message
    assert "\n" not in told.message
    assert explain(ValueError("mine")).args == ("mine",)
