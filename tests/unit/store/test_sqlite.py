"""What only a file can do: be full, read-only, damaged, locked, of a newer Forge, or shared between processes."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from forge.engine.worker import Worker
from forge.model.decision import Action, Decision, Event, Outcome
from forge.model.errors import DependencyFailed, ExitCode, UsageError
from forge.store import sqlite
from forge.store.contract import Write
from forge.store.database import open_store
from forge.store.migrations import LATEST


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "forge.db"


@pytest.fixture
async def file_store(path):
    opened = await open_store(f"sqlite:///{path}")
    yield opened
    await opened.close()


async def pragma(store, text: str) -> None:
    """Set something on the connection that writes."""
    await store._database.write(lambda transaction: transaction._connection.execute(f"PRAGMA {text}").fetchall())


async def pages(store) -> int:
    return await store._database.write(
        lambda transaction: transaction._connection.execute("PRAGMA page_count").fetchone()[0]
    )


class TestSettings:
    async def test_commits_are_synced_to_a_write_ahead_log(self, file_store):
        def settings(transaction):
            names = ("journal_mode", "synchronous", "busy_timeout")
            return [transaction._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        assert await file_store._database.write(settings) == ["wal", 2, 30_000]

    async def test_the_folder_is_made(self, tmp_path):
        async with await open_store(f"sqlite:///{tmp_path / 'new' / 'folder' / 'forge.db'}"):
            assert (tmp_path / "new" / "folder" / "forge.db").exists()

    async def test_claiming_looks_things_up_by_index(self, file_store):
        from forge.store import inbox, intents, leases

        def plan(transaction, statement):
            values = dict.fromkeys(("kind0", "machine", "of_worker", "most"), "1") | statement.constants
            rows = transaction._connection.execute(f"EXPLAIN QUERY PLAN {statement.sqlite}", values).fetchall()
            return " ".join(row[3] for row in rows)

        wanted = {
            leases._due(1, 0, lock=True): "machines_due",
            leases._TOLD: "machines_due",
            leases._HELD_BY: "machines_due",
            inbox._WAITING: "commands_waiting",
            intents._OF: "intents_unsettled",
        }
        for statement, index in wanted.items():
            assert index in await file_store._database.read(lambda t, s=statement: plan(t, s)), statement.sqlite


class TestFailures:
    async def test_a_full_disk_is_said_and_leaves_nothing_half_written(self, file_store):
        machine = await file_store.machines.create("run", "", "queued", b"{}", {"a": b"1"}, id_prefix="run")
        (claim,) = await file_store.machines.claim("w", ("run",), 1, 30)
        await pragma(file_store, f"max_page_count = {await pages(file_store) + 2}")
        big = Write(
            status="running",
            head=b"{}",
            parts={"a": b"2", "b": b"x" * 100_000},
            actions=(Action("k", "x"),),
            events=(Event("e", ""),),
        )
        with pytest.raises(DependencyFailed, match="disk is full") as caught:
            await file_store.machines.write(claim, big)
        assert caught.value.exit_code == ExitCode.FORGE_FAILED
        assert "free some space" in caught.value.hint
        assert str(file_store._database.path) in caught.value.message
        record = await file_store.machines.load(machine)
        assert (record.status, record.parts) == ("queued", {"a": b"1"})
        assert await file_store.intents.of(machine) == []
        assert await file_store.log.read() == []
        await pragma(file_store, "max_page_count = 1000000")
        await file_store.machines.write(claim, big)
        assert (await file_store.machines.load(machine)).status == "running"
        assert await file_store.log.verify() is None

    async def test_those_that_share_the_commit_fail_together_or_succeed_alone(self, file_store):
        await pragma(file_store, f"max_page_count = {await pages(file_store) + 4}")
        puts = [file_store.documents.put("c", f"{n}", b"x" * (100_000 if n == 5 else 10)) for n in range(10)]
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert isinstance(results[5], DependencyFailed)
        kept = await file_store.documents.all("c")
        assert {f"{n}" for n, result in enumerate(results) if result is True} == set(kept)

    async def test_work_goes_on_when_the_disk_has_room_again(self, file_store, monkeypatch):
        monkeypatch.setattr("forge.engine.tending.DATABASE_PAUSE_SECONDS", 0.05)
        monkeypatch.setattr("forge.engine.worker.RETRY_SECONDS", 0.05)
        performed = []

        class Growing:
            kind = "run"

            def load(self, record):
                return msgspec.json.decode(record.head)

            def dump(self, state):
                return (
                    "done" if state["n"] == 5 else "running",
                    msgspec.json.encode(state),
                    {"a": b"x" * 8000 * state["n"]},
                )

            async def observe(self, state, now):
                return None

            def decide(self, state, observation, commands, outcomes, now):
                n = state["n"] + len(outcomes)
                actions = (Action(f"k{n}", "x"),) if n < 5 else ()
                return Decision({"n": n}, actions=actions)

            async def perform(self, action, state, claim):
                performed.append(action.key)
                return Outcome(action.key, "succeeded", 1.0)

        machine = await file_store.machines.create("run", "", "queued", b'{"n":0}', {}, id_prefix="run")
        await pragma(file_store, f"max_page_count = {await pages(file_store) + 6}")
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(file_store, [Growing()]).run(stop))
        await asyncio.sleep(0.5)
        assert (await file_store.machines.load(machine)).status != "done"
        await pragma(file_store, "max_page_count = 1000000")
        end = time.monotonic() + 10
        while (await file_store.machines.load(machine)).status != "done":
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        stop.set()
        await working
        assert performed == [f"k{n}" for n in range(5)]

    async def test_read_only(self, file_store):
        await pragma(file_store, "query_only = ON")
        with pytest.raises(DependencyFailed, match="read-only") as caught:
            await file_store.documents.put("c", "k", b"1")
        assert "permissions" in caught.value.hint
        assert await file_store.documents.get("c", "k") is None

    async def test_locked_by_another_program(self, file_store, path, monkeypatch):
        await pragma(file_store, "busy_timeout = 100")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DependencyFailed, match="locked") as caught:
            await file_store.documents.put("c", "k", b"1")
        assert "another program" in caught.value.message
        assert await file_store.documents.all("c") == {}  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        assert await file_store.documents.put("c", "k", b"1")

    async def test_not_a_database(self, path):
        path.write_bytes(b"this is a letter, not a database\n" * 100)
        with pytest.raises(DependencyFailed, match="not a database"):
            await open_store(f"sqlite:///{path}")
        assert path.read_bytes().startswith(b"this is a letter"), "what is not ours stays as it is"

    async def test_damaged(self, path):
        async with await open_store(f"sqlite:///{path}") as store:
            for n in range(200):
                await store.documents.put("c", f"{n}", b"x" * 500)
        content = bytearray(path.read_bytes())
        content[8192:] = b"\xff" * (len(content) - 8192)
        path.write_bytes(content)
        with pytest.raises(DependencyFailed, match=r"damaged|not a database") as caught:  # noqa: PT012 - at whichever step
            async with await open_store(f"sqlite:///{path}") as store:
                await store.documents.all("c")
                await store.machines.newest("run")
        assert caught.value.hint

    async def test_a_folder_that_cannot_be(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(DependencyFailed, match="cannot be kept"):
            await open_store(f"sqlite:///{tmp_path / 'file' / 'forge.db'}")
        with pytest.raises(DependencyFailed, match="cannot be opened"):
            await open_store(f"sqlite:///{tmp_path}")

    async def test_a_bug_in_one_transaction_does_not_touch_those_it_shares_a_commit_with(self, file_store):
        def broken(transaction):
            raise ZeroDivisionError

        results = await asyncio.gather(
            file_store.documents.put("c", "before", b"1"),
            file_store._database.write(broken),
            file_store.documents.put("c", "after", b"1"),
            file_store.inbox.send("run-1", "x", "me", {}),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [bool, ZeroDivisionError, bool, UsageError]
        assert set(await file_store.documents.all("c")) == {"before", "after"}


class TestVersions:
    async def test_a_database_of_a_newer_forge_is_refused_untouched(self, path):
        async with await open_store(f"sqlite:///{path}"):
            pass
        with sqlite3.connect(path) as connection:
            connection.execute("INSERT INTO forge_schema VALUES (?, 0)", (LATEST + 1,))
        connection.close()
        with pytest.raises(DependencyFailed, match="newer Forge") as caught:
            await open_store(f"sqlite:///{path}")
        assert "upgrade" in caught.value.hint

    async def test_opening_again_changes_nothing(self, path):
        for _ in range(2):
            async with await open_store(f"sqlite:///{path}"):
                pass
        with sqlite3.connect(path) as connection:
            rows = connection.execute("SELECT version FROM forge_schema ORDER BY version").fetchall()
        connection.close()
        assert rows == [(version,) for version in range(1, LATEST + 1)]

    async def test_missing_steps_are_made_up_in_order_and_all_or_nothing(self, path, monkeypatch):
        from forge.store import migrations, tables

        async with await open_store(f"sqlite:///{path}") as store:
            await store.documents.put("c", "k", b"1")

        def second(dialect):
            return ["CREATE TABLE extra (n INTEGER)"]

        def broken(dialect):
            return ["INSERT INTO extra VALUES (1)", "THIS IS NOT SQL"]

        monkeypatch.setattr(tables, "MIGRATIONS", (*tables.MIGRATIONS, second, broken))
        monkeypatch.setattr(migrations, "LATEST", LATEST + 2)
        with pytest.raises(DependencyFailed):
            await open_store(f"sqlite:///{path}")
        monkeypatch.setattr(tables, "MIGRATIONS", tables.MIGRATIONS[:-1])
        monkeypatch.setattr(migrations, "LATEST", LATEST + 1)
        async with await open_store(f"sqlite:///{path}") as store:
            assert await store.documents.get("c", "k") == b"1"
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT count(*) FROM extra").fetchone() == (0,)
        connection.close()


class TestClocks:
    async def test_time_does_not_jump_with_the_wall_clock(self, file_store, monkeypatch):
        before = await file_store.now()
        real = time.time()
        monkeypatch.setattr(time, "time", lambda: real + 86_400)
        assert abs(await file_store.now() - before) < 60

    async def test_a_lease_from_before_the_machine_started_again_is_over(self, file_store):
        machine = await file_store.machines.create("run", "", "queued", b"{}", {}, id_prefix="run")
        await file_store.machines.claim("before", ("run",), 1, 30)

        def reboot(transaction):
            # The monotonic clock begins again: what was written lies in its future.
            transaction._connection.execute(
                "UPDATE workers SET lease_from = lease_from + 1e6, lease_until = lease_until + 1e6"
            )

        await file_store._database.write(reboot)
        (claim,) = await file_store.machines.claim("after", ("run",), 1, 30)
        assert claim.machine == machine


class TestIdling:
    async def test_waiting_costs_next_to_nothing(self, file_store):
        class Nothing:
            kind = "run"

        stop = asyncio.Event()
        working = asyncio.create_task(Worker(file_store, [Nothing()]).run(stop))
        await asyncio.sleep(0.3)
        before = time.process_time()
        await asyncio.sleep(2)
        used = time.process_time() - before
        stop.set()
        await working
        assert used / 2 < 0.02, f"{used / 2:.2%} of a core"  # 0.3 % measured; other tests share this machine

    async def test_own_commits_do_not_wake_those_who_wait(self, file_store):
        await file_store.wait(0.2)
        mark = file_store.mark()
        waiting = asyncio.create_task(file_store.wait(0.6))
        for n in range(10):
            await file_store.documents.put("c", f"{n}", b"1")
            await asyncio.sleep(0.02)
        await waiting
        assert file_store.mark() == mark

    async def test_another_process_wakes_those_who_wait(self, file_store, path):
        machine = await file_store.machines.create("run", "", "queued", b"{}", {}, id_prefix="run")
        program = (
            "import asyncio, sys, time\n"
            "from forge.store.database import open_store\n"
            "async def main():\n"
            "    async with await open_store(sys.argv[1]) as store:\n"
            "        sys.stdin.readline()\n"
            "        await store.inbox.send(sys.argv[2], 'approve', 'ada', {})\n"
            "        print(time.monotonic(), flush=True)\n"
            "        sys.stdin.readline()\n"
            "asyncio.run(main())\n"
        )
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, f"sqlite:///{path}", machine, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        await asyncio.sleep(1.0)
        await file_store.wait(0.2)
        waiting = asyncio.create_task(file_store.wait(20))
        other.stdin.write(b"go\n")
        sent = float(await other.stdout.readline())
        await waiting
        assert time.monotonic() - sent < 0.5  # 60 ms between looks, and a busy machine
        await other.communicate(b"\n")

    async def test_looking_stops_when_nobody_waits(self, file_store):
        await file_store.wait(0.05)
        await asyncio.sleep(3 * sqlite.CHECK_SECONDS)
        assert file_store._database._next_look is None
