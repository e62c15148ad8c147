"""The site's database, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import stat

import pytest
from sqlalchemy import Column, Integer, Table, Text, select
from sqlalchemy.exc import IntegrityError

from forge.model.errors import DependencyFailed, UsageError
from forge.server.database import metadata, open_database

notes = Table("test_notes", metadata, Column("id", Integer, primary_key=True), Column("words", Text, nullable=False))


@pytest.fixture
async def database(site_url):
    async with open_database(site_url) as opened:
        yield opened


async def count(database) -> int:
    async with database.read() as connection:
        return len((await connection.execute(select(notes.c.id))).all())


async def test_what_is_written_is_there(database):
    async with database.begin() as connection:
        await connection.execute(notes.insert().values(id=1, words="hello"))
    assert await count(database) == 1
    await database.check()


async def test_an_error_leaves_nothing_behind(database):
    async def begin_and_fail() -> None:
        async with database.begin() as connection:
            await connection.execute(notes.insert().values(id=1, words="hello"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await begin_and_fail()
    assert await count(database) == 0


async def test_a_constraint_is_an_error_of_its_own(database):
    with pytest.raises(IntegrityError):
        async with database.begin() as connection:
            await connection.execute(notes.insert(), [{"id": 1, "words": "a"}, {"id": 1, "words": "b"}])


async def test_many_writers_wait_for_each_other(database):
    async def add(number: int) -> None:
        async with database.begin() as connection:
            there = (await connection.execute(select(notes.c.id))).all()
            await asyncio.sleep(0)
            await connection.execute(notes.insert().values(id=number, words=str(len(there))))

    await asyncio.gather(*(add(number) for number in range(12)))
    assert await count(database) == 12


async def test_opening_it_again_keeps_what_is_there(site_url):
    for expected in (0, 1):
        async with open_database(site_url) as database:
            assert await count(database) == expected
            async with database.begin() as connection:
                await connection.execute(notes.insert().values(id=expected, words=""))


async def test_several_that_open_it_at_once_make_the_tables_once(site_url):
    async def look() -> int:
        async with open_database(site_url) as database:
            return await count(database)

    assert await asyncio.gather(*(look() for _ in range(4))) == [0, 0, 0, 0]


async def test_a_database_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "server.db").write_bytes(b"this is no database, and long enough to be seen as none" * 20)
    with pytest.raises(DependencyFailed, match="site's database"):
        async with open_database(f"sqlite:///{tmp_path}/server.db"):
            pass


async def test_a_server_that_is_away_is_told():
    with pytest.raises(DependencyFailed, match="site's database"):
        async with open_database("postgresql://forge@127.0.0.1:1/forge"):
            pass


async def test_another_kind_of_database_is_refused():
    with pytest.raises(UsageError):
        async with open_database("mysql://x/y"):
            pass


async def test_the_folder_is_its_owners_only(tmp_path):
    async with open_database(f"sqlite:///{tmp_path}/state/server.db"):
        pass
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
