"""The chain notices whatever is done to it."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest

from forge.model.decision import Event
from forge.store.database import open_store

EVENTS = 12


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


@pytest.fixture
async def filled(store):
    for number in range(EVENTS // 2):
        events = (Event("a", f"{number}", {"n": number}), Event("b", "ünïcode", {"nested": {"x": [1, 2.5, None]}}))
        await store.machines.create("run", "", "queued", b"", {}, events=events, id_prefix="run")
    assert await store.log.verify() is None
    return store


@pytest.mark.parametrize(
    ("statement", "first_wrong"),
    [
        ("UPDATE events SET machine = 'run-9' WHERE seq = 5", 5),
        ("UPDATE events SET at = at + 1 WHERE seq = 3", 3),
        ("UPDATE events SET hash = previous WHERE seq = 4", 4),
        ("UPDATE events SET previous = hash WHERE seq = 4", 4),
        ("DELETE FROM events WHERE seq = 7", 7),
        ("DELETE FROM events WHERE seq = 1", 1),
        ("DELETE FROM events WHERE seq > 9", 10),
        ("DELETE FROM events", 1),
        ("UPDATE events SET seq = 100 WHERE seq = 12", 12),
        ("UPDATE events SET event = (SELECT event FROM events WHERE seq = 1) WHERE seq = 2", 2),
        ("UPDATE log_head SET seq = 13", 13),
        ("UPDATE log_head SET hash = ''", 13),
    ],
)
async def test_every_change_is_noticed_where_it_was_made(filled, change, statement, first_wrong):
    change(statement)
    assert await filled.log.verify() == first_wrong


async def test_a_record_that_was_put_in_is_noticed(filled, change):
    change("INSERT INTO events SELECT 13, machine, at, event, hash, hash FROM events WHERE seq = 12")
    assert await filled.log.verify() == 13


async def test_a_long_log_is_checked_in_pages(store, change):
    for _ in range(3):
        events = tuple(Event("e", f"{number}") for number in range(1500))
        await store.machines.create("run", "", "queued", b"", {}, events=events, id_prefix="run")
    assert await store.log.verify() is None
    change("UPDATE events SET machine = 'x' WHERE seq = 4321")
    assert await store.log.verify() == 4321


async def test_a_log_that_grows_while_it_is_checked_is_whole(store, store_url):
    import asyncio

    stop = asyncio.Event()

    async def grow() -> None:
        async with await open_store(store_url) as other:
            while not stop.is_set():
                events = tuple(Event("e", f"{number}") for number in range(50))
                await other.machines.create("run", "", "queued", b"", {}, events=events, id_prefix="run")

    growing = asyncio.create_task(grow())
    for _ in range(20):
        assert await store.log.verify() is None
    stop.set()
    await growing
