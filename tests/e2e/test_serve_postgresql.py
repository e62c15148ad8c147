"""Two servers and a worker on one PostgreSQL: one is killed and the database restarted; nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx2
import psycopg
import pytest

from forge.engine.engine import Engine
from forge.server.database import open_database
from forge.server.settings import read_settings
from forge.server.site import create_schema
from forge.service.local import LocalService
from serving.running import Server, make_project

RUNS = 12
PIPELINE = """\
name: busy
jobs:
  one: {steps: [{id: a, run: "echo one; sleep 0.5"}, {id: b, run: "echo two; sleep 0.5"}]}
  two: {depends_on: one, steps: [{id: c, run: "echo three; sleep 0.5"}]}
"""


async def project_engine(folder: Path, url: str):
    settings = read_settings(None, folder, environ={"FORGE_SERVER_DATABASE": url})
    (name,) = settings.projects
    async with open_database(settings.site_database) as database:
        await create_schema(database, settings, name)
    return Engine.open(settings.project(name))


@pytest.mark.long
async def test_one_is_killed_and_the_database_restarted(tmp_path, own_postgres_server):
    url = own_postgres_server.url()
    folder = make_project(tmp_path / "busy", PIPELINE)
    (folder / "forge-server.yaml").write_text("lease_seconds: 3\n")
    environ = {"FORGE_SERVER_DATABASE": url}
    running = [Server(folder, environ=environ), Server(folder, environ=environ)]
    running.append(Server(folder, "worker", environ=environ))
    try:
        async with await project_engine(folder, url) as engine:
            service = LocalService(engine)
            started = [await service.runs.start({}, actor="ann", key=f"k{number}") for number in range(RUNS)]
            await asyncio.sleep(1.0)
            running[0].kill()
            await asyncio.sleep(0.5)
            own_postgres_server.stop()
            await asyncio.sleep(1.0)
            away = await asyncio.to_thread(readiness, running[1].url)
            own_postgres_server.start()

            deadline = time.monotonic() + 90
            states: dict[str, str] = {}
            while len(states) < RUNS:
                assert time.monotonic() < deadline, (states, running[1].errors.read_text()[-2000:])
                await asyncio.sleep(0.5)
                for run in started:
                    view = await service.runs.get(run)
                    if view.final:
                        states[run] = view.state
            again = [await service.runs.start({}, actor="ann", key=f"k{number}") for number in range(RUNS)]
            chains = await service.records.verify()
            events = [one async for one in all_events(service)]
        back = await asyncio.to_thread(readiness, running[1].url)
        exits = [server.stop() for server in running[1:]]
    finally:
        for server in running:
            server.kill()

    assert set(states.values()) == {"succeeded"}
    assert again == started
    assert len(set(started)) == RUNS
    assert {one["first_wrong"] for one in chains.values()} == {None}
    told = Counter((one.machine, one.event.kind, str(one.event.data.get("job", ""))) for one in events)
    for run in started:
        assert told[run, "run_finished", ""] == 1
        assert told[run, "job_finished", "one"] == told[run, "job_finished", "two"] == 1
    assert away == 503
    assert back == 200
    assert exits == [0, 0]
    with psycopg.connect(url) as connection:
        schemas = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'forge%'").fetchall()
    assert {name for (name,) in schemas} == {"forge_server", "forge_audit", "forge_busy"}


async def all_events(service: LocalService):
    after = 0
    while batch := await service.records.events(after=after):
        for one in batch:
            yield one
        after = batch[-1].seq


def readiness(url: str) -> int:
    with httpx2.Client(trust_env=False, timeout=30) as client:
        return client.get(f"{url}/readyz").status_code
