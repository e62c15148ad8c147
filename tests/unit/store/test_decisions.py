"""The chain of decisions: what is kept, and that one flipped byte anywhere is found."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import psycopg
import pytest

from forge.model.decision import Event
from forge.store.contract import Write
from forge.store.database import open_store

COLUMNS = ("seq", "machine", "at", "body", "previous", "hash")
RECORDS = 6


async def fill(store, machines: int = 2) -> None:
    """Write a row of ticks of some machines, each with an event and a decision."""
    for number in range(machines):
        await store.machines.create("environment", f"e{number}", "empty", b"", {}, id_prefix="env")
    for number in range(RECORDS):
        for claim in await store.machines.claim("w", ("environment",), 10, 60.0):
            body = f"decision {number} of {claim.machine}".encode() * 5
            events = (Event("e", f"{number}"),)
            await store.machines.write(claim, Write("s", b"", events=events, decision=body, wake_at=0.0))
            await store.machines.let_go(claim)


@pytest.fixture
async def filled(store):
    await fill(store)
    assert await store.decisions.verify() is None
    return store


@pytest.fixture
def change(store_url):
    """Run a statement behind Forge's back."""

    def run(statement: str) -> None:
        if store_url.startswith("sqlite"):
            connection = sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)
            connection.execute(statement)
            connection.close()
        else:
            with psycopg.connect(store_url, autocommit=True) as connection:
                connection.execute(statement)

    return run


async def test_records_are_read_in_order_and_by_machine(filled):
    everything = await filled.decisions.read()
    assert [record.seq for record in everything] == list(range(1, 2 * RECORDS + 1))
    assert await filled.decisions.count() == 2 * RECORDS
    one = await filled.decisions.read("env-2", after=2, limit=3)
    assert [record.machine for record in one] == ["env-2"] * 3
    assert all(record.body.startswith(b"decision ") for record in one)
    assert [record.previous for record in everything[1:]] == [record.hash for record in everything[:-1]]


async def test_a_write_without_a_decision_adds_nothing(filled):
    (claim, *_) = await filled.machines.claim("w", ("environment",), 1, 60.0)
    await filled.machines.write(claim, Write("s", b"", events=(Event("e", "only an event"),)))
    assert await filled.decisions.count() == 2 * RECORDS


async def test_a_stale_worker_puts_nothing_on_record(filled):
    from forge.model.errors import StaleLease

    (claim, *_) = await filled.machines.claim("w", ("environment",), 1, 60.0)
    await filled.machines.let_go(claim)
    with pytest.raises(StaleLease):
        await filled.machines.write(claim, Write("s", b"", decision=b"no"))
    assert await filled.decisions.count() == 2 * RECORDS


@pytest.mark.parametrize(
    ("statement", "first_wrong"),
    [
        ("UPDATE decisions SET machine = 'env-9' WHERE seq = 5", 5),
        ("UPDATE decisions SET at = at + 1 WHERE seq = 3", 3),
        ("UPDATE decisions SET hash = previous WHERE seq = 4", 4),
        ("UPDATE decisions SET previous = hash WHERE seq = 4", 4),
        ("UPDATE decisions SET body = (SELECT body FROM decisions WHERE seq = 1) WHERE seq = 2", 2),
        ("UPDATE decisions SET seq = 100 WHERE seq = 12", 12),
        ("DELETE FROM decisions WHERE seq = 7", 7),
        ("DELETE FROM decisions WHERE seq > 9", 10),
        ("DELETE FROM decisions", 1),
        ("INSERT INTO decisions SELECT 13, machine, at, body, hash, hash FROM decisions WHERE seq = 12", 13),
        ("UPDATE log_head SET seq = 13 WHERE id = 2", 13),
        ("DELETE FROM log_head WHERE id = 2", 13),
    ],
)
async def test_every_change_is_noticed_where_it_was_made(filled, change, statement, first_wrong):
    change(statement)
    assert await filled.decisions.verify() == first_wrong
    if "log_head" not in statement:
        assert await filled.log.verify() is None, "the chain of events is another one"


def flip(path: Path, table: str, column: str, seq: int, number: int) -> None:
    """Flip one bit of byte `number` of a value as it is stored, and keep the value's type."""
    connection = sqlite3.connect(path, isolation_level=None)
    find = f"SELECT typeof({column}), CAST({column} AS BLOB), {column} FROM {table} WHERE seq = {seq}"
    connection.text_factory = bytes
    ((kind, raw, value),) = connection.execute(find).fetchall()
    if kind in {b"integer", b"real"}:
        flipped = value ^ (16 << number % 16) if kind == b"integer" else value + 2.0 ** (number % 8 - 4)
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE seq = {seq}", (flipped,))
    else:
        at = number % len(raw)
        changed = raw[:at] + bytes([raw[at] ^ (1 << number % 8)]) + raw[at + 1 :]
        expression = "CAST(? AS TEXT)" if kind == b"text" else "?"
        connection.execute(f"UPDATE {table} SET {column} = {expression} WHERE seq = {seq}", (changed,))
    connection.close()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("table", ["events", "decisions"])
async def test_one_flipped_byte_in_any_column_is_found(tmp_path, table, column):
    async with await open_store(f"sqlite:///{tmp_path / 'whole.db'}") as store:
        await fill(store)
    column = "event" if (table, column) == ("events", "body") else column
    choose = random.Random(f"{table} {column}")
    for case in range(8):
        path = tmp_path / f"{case}.db"
        shutil.copy(tmp_path / "whole.db", path)
        seq = choose.randint(2, 2 * RECORDS)
        flip(path, table, column, seq, choose.randrange(10_000))
        async with await open_store(f"sqlite:///{path}") as store:
            chain = store.log if table == "events" else store.decisions
            found = await chain.verify()
            assert found == seq, case


async def test_a_byte_flipped_in_the_file_is_found_or_changes_nothing(tmp_path):
    async with await open_store(f"sqlite:///{tmp_path / 'whole.db'}") as store:
        await fill(store)
        before = (await store.log.read(), await store.decisions.read())
    whole = (tmp_path / "whole.db").read_bytes()
    marks = [whole.find(b"decision 3 of"), whole.rfind(b"decision 3 of"), whole.find(before[0][4].hash.encode())]
    assert min(marks) > 0
    choose = random.Random(7)
    found = 0
    for case in range(45):
        at = marks[case % 3] + choose.randint(-40, 120)
        path = tmp_path / "flipped.db"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << choose.randrange(8))]) + whole[at + 1 :])
        async with await open_store(f"sqlite:///{path}") as store:
            wrong = [await store.log.verify(), await store.decisions.verify()]
            if wrong == [None, None]:
                assert (await store.log.read(), await store.decisions.read()) == before, at
            found += wrong != [None, None]
    assert found > 20


async def test_an_older_database_gets_the_table(tmp_path, monkeypatch):
    from forge.store import migrations, tables

    with monkeypatch.context() as patch:
        patch.setattr(tables, "MIGRATIONS", tables.MIGRATIONS[:1])
        patch.setattr(migrations, "LATEST", 1)
        async with await open_store(f"sqlite:///{tmp_path / 'old.db'}") as store:
            await store.machines.create("run", "", "s", b"", {}, events=(Event("a", "b"),), id_prefix="run")
    async with await open_store(f"sqlite:///{tmp_path / 'old.db'}") as store:
        assert await store.log.verify() is None
        assert await store.decisions.verify() is None
        await fill(store)
        assert await store.decisions.count() == 2 * RECORDS
        assert await store.decisions.verify() is None
