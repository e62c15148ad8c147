"""The worker of a server's process: heartbeats, projects that come and go, and errors that it outlives."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import select

from forge.engine.project import Project
from forge.model.errors import UsageError
from forge.server import workers
from forge.server.settings import read_settings
from forge.server.site import check, open_site
from forge.server.workers import FORGET_SECONDS, LATE_SECONDS, heartbeats
from serving.running import make_project


@pytest.fixture
async def site(tmp_path):
    async with open_site(read_settings(None, make_project(tmp_path / "shop"), environ={})) as opened:
        yield opened


async def over(service, run: str) -> str:
    deadline = time.monotonic() + 30
    while (state := (await service.runs.get(run)).state) not in {"waiting", "succeeded", "failed", "error"}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return state


async def test_it_is_seen_from_its_start_and_forgotten_at_its_end(site):
    assert await site.workers.alive() == []
    await site.workers.start()
    (seen,) = await site.workers.alive()
    assert seen.id == site.workers.id
    assert site.workers.working
    await site.workers.stop()
    assert await site.workers.alive() == []
    assert not site.workers.working


async def test_one_that_died_is_late_and_then_forgotten(site):
    now = time.time()
    async with site.database.begin() as connection:
        for name, seen_at in (("late", now - LATE_SECONDS - 1), ("gone", now - FORGET_SECONDS - 1)):
            await connection.execute(heartbeats.insert().values(id=name, host="h", started_at=0, seen_at=seen_at))
    assert {one.id for one in await site.workers.seen()} == {"late", "gone"}
    await site.workers.start()
    assert {one.id for one in await site.workers.seen()} == {"late", site.workers.id}
    assert [one.id for one in await site.workers.alive()] == [site.workers.id]


async def test_its_heart_beats(site, monkeypatch):
    monkeypatch.setattr(workers, "HEARTBEAT_SECONDS", 0.05)
    await site.workers.start()
    first = (await site.workers.seen())[0].seen_at
    deadline = time.monotonic() + 5
    while (await site.workers.seen())[0].seen_at == first:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_starting_twice_is_starting_once(site):
    await site.workers.start()
    await site.workers.start()
    async with site.database.read() as connection:
        assert len((await connection.execute(select(heartbeats.c.id))).all()) == 1


async def test_a_project_that_is_added_later_is_worked_on_and_one_that_is_removed_is_left(site, tmp_path):
    await site.workers.start()
    till = await site.add("till", Project(make_project(tmp_path / "till")))
    assert list(site.projects) == ["shop", "till"]
    run = await till.runs.start({}, actor="ann")
    assert await over(till, run) == "waiting"
    with pytest.raises(UsageError, match="already"):
        await site.add("till", Project(tmp_path / "till"))
    await site.remove("till")
    assert list(site.projects) == ["shop"]
    for ask in (site.project, site.engine, site.live):
        with pytest.raises(UsageError, match="there is no project `till`"):
            ask("till")


async def test_an_error_that_nobody_expected_ends_one_try_only(site, monkeypatch):
    monkeypatch.setattr(workers, "RESTART_SECONDS", 0.05)
    engine, failures = site.engine("shop"), []
    work = engine.work

    async def fragile(**more):
        if len(failures) < 2:
            failures.append(1)
            raise ZeroDivisionError
        await work(**more)

    engine.work = fragile
    await site.workers.start()
    service = site.project("shop")
    run = await service.runs.start({}, actor="ann")
    assert await over(service, run) == "waiting"
    assert site.workers.restarts == 2


async def test_chores_are_done_where_somebody_works_and_begin_anew_after_an_error(site, monkeypatch):
    monkeypatch.setattr(workers, "RESTART_SECONDS", 0.02)
    begun, ended = [], []

    async def chore() -> None:
        begun.append(1)
        if len(begun) == 1:
            raise ZeroDivisionError
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    site.workers.also("schedules", chore)
    await asyncio.sleep(0.1)
    assert begun == []  # this process does not work
    await site.workers.start()
    site.workers.also("late", chore)
    deadline = time.monotonic() + 5
    while len(begun) < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert site.workers.restarts == 1
    await site.workers.stop()
    assert len(ended) == 2


async def test_a_site_that_ends_leaves_its_machines_to_others(tmp_path):
    settings = read_settings(None, make_project(tmp_path / "shop"), environ={})
    async with open_site(settings) as site:
        await site.workers.start()
        run = await site.project("shop").runs.start({}, actor="ann")
        await over(site.project("shop"), run)
        claims = await site.engine("shop").store.machines.claim("other", ("run",), 10, 10)
        assert claims == []
    async with open_site(settings) as site:
        await site.engine("shop").store.machines.remind(run)
        assert len(await site.engine("shop").store.machines.claim("other", ("run",), 10, 10)) == 1


def test_projects_must_not_share_a_database(tmp_path, monkeypatch):
    for name in ("shop", "till"):
        make_project(tmp_path / name)
    (tmp_path / "forge-server.yaml").write_text("projects: {shop: shop, till: till}\n")
    monkeypatch.setenv("FORGE_DATABASE", f"sqlite:///{tmp_path}/one.db")
    with pytest.raises(UsageError, match="shop and till at once"):
        check(read_settings(None, tmp_path, environ={}))
    check(read_settings(None, tmp_path, environ={"FORGE_SERVER_DATABASE": "postgresql://h/f"}))
    monkeypatch.delenv("FORGE_DATABASE")
    check(read_settings(None, tmp_path, environ={}))
