"""Real worker processes, killed, stopped and continued, on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from forge.store.database import DatabaseStore, open_store

PROGRAM = Path(__file__).with_name("worker_program.py")
DUE_ROWS = min(10_000, int(os.environ.get("FORGE_TEST_DUE_ROWS", "2000")))
TOGETHER = 6
"""How many crash scenarios run at a time: most of each is waiting for a lease to run out."""


class Forks:
    """The program that forks workers, and what it said about them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._forked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ended: dict[int, Future[int]] = defaultdict(Future)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            said = json.loads(line)
            if "forked" in said:
                self._ended[said["forked"]] = Future()  # the system may give a pid out again
                self._forked.put(said["forked"])
            else:
                self._ended[said["ended"]].set_result(said["status"])

    async def start(self, **order: Any) -> int:
        """Start a worker process; return its pid."""
        self._process.stdin.write(json.dumps(order, default=str).encode() + b"\n")
        self._process.stdin.flush()
        return self._forked.get(timeout=30)  # nothing else may come between: orders are answered in turn

    async def end_of(self, pid: int) -> int:
        """Return the exit status of a worker process."""
        return await asyncio.wait_for(asyncio.wrap_future(self._ended[pid]), 90)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._reader.join(10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def forks():
    program = Forks()
    yield program
    program.close()


async def create(store: DatabaseStore, *stages: tuple[str, ...], group: str = "") -> str:
    head = msgspec.json.encode({"stages": stages, "group": group})
    return await store.machines.create("run", "", "queued", head, {}, id_prefix="run")


async def state_of(store: DatabaseStore, machine: str) -> dict[str, Any]:
    record = await store.machines.load(machine)
    assert record is not None
    return {"status": record.status, **msgspec.json.decode(record.head)}


def told(world: Path) -> list[list[str]]:
    """Return the lines of the world: what, machine, key, token, pid."""
    log = world / "log"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


async def until(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


async def recorded(store: DatabaseStore, machine: str) -> set[str]:
    """Return the keys of actions whose outcome is on disk."""
    finished = {intent.action.key for intent in await store.intents.of(machine) if intent.outcome is not None}
    return finished | (await state_of(store, machine)).get("results", {}).keys()


STAGES = (("a", "b"), ("once",))


class Scenario:
    """One machine in one database, one worker that kills itself, one that carries on."""

    def __init__(self, url: str, world: Path, forks: Forks) -> None:
        self.url, self.world, self.forks = url, world, forks
        world.mkdir()

    async def run(self, number: int, phase: str) -> bool:
        """Crash at that write; return False when there are not so many."""
        async with await open_store(self.url) as store:
            machine = await create(store, *STAGES, group="g")
            await store.inbox.send(machine, "hello", "ada", {})
            order = {"url": self.url, "world": self.world, "until_done": True, "lease": 0.5}
            status = await self.forks.end_of(await self.forks.start(**order, kill=[number, phase]))
            if status == 0:
                assert (await state_of(store, machine))["status"] == "done"
                return False
            assert status == -signal.SIGKILL
            before, on_disk = told(self.world), await recorded(store, machine)
            assert await self.forks.end_of(await self.forks.start(**order)) == 0
            await self._check(store, machine, before, on_disk)
        return True

    async def _check(self, store: DatabaseStore, machine: str, before: list[list[str]], on_disk: set[str]) -> None:
        state = await state_of(store, machine)
        again = {line[2] for line in told(self.world)[len(before) :] if line[0] == "begin"}
        begun = {line[2] for line in before if line[0] == "begin"}
        assert again.isdisjoint(on_disk), "an action whose outcome was on disk was performed again"
        assert "once" not in begun & again, "an action that may not be repeated was repeated"
        assert state["results"].keys() == {"a", "b", "once", "free"}
        assert {state["results"][key] for key in ("a", "b", "free")} == {"succeeded"}
        assert state["results"]["once"] in {"succeeded", "lost"}
        assert state["greetings"] == ["ada"], "a command was lost or taken twice"
        assert await store.slots.holders("g") == []
        assert await store.intents.of(machine) == []
        assert await store.log.verify() is None
        outcomes = Counter(event.event.message for event in await store.log.read(machine))
        assert all(count == 1 for count in outcomes.values()), "an outcome was taken into account twice"


class TestKillAtEveryWrite:
    @pytest.mark.parametrize("phase", ["before", "middle", "after"])
    async def test_sqlite(self, tmp_path, forks, phase):
        def url(number: int) -> str:
            return f"sqlite:///{tmp_path / f'{number}.db'}"

        await self._enumerate(url, tmp_path, forks, phase)

    @pytest.mark.parametrize("phase", ["middle", "after"])
    async def test_postgresql(self, tmp_path, forks, phase, postgres_url):
        def url(number: int) -> str:
            schema = f"crash_{phase}_{number}"
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                connection.execute(f"CREATE SCHEMA {schema}")
            return f"{postgres_url.partition('&')[0]}&options=-csearch_path%3D{schema}"

        await self._enumerate(url, tmp_path, forks, phase)

    async def _enumerate(self, url: Any, folder: Path, forks: Forks, phase: str) -> None:
        crashed = 0
        while True:
            numbers = range(crashed + 1, crashed + TOGETHER + 1)
            scenarios = [Scenario(url(number), folder / f"{number}", forks).run(number, phase) for number in numbers]
            happened = await asyncio.gather(*scenarios)
            crashed += sum(happened)
            if not all(happened):
                break
        assert crashed >= 6, "the workflow has more writes than that"


class TestTwoWorkers:
    async def test_a_killed_workers_action_is_performed_by_the_other_within_the_lease(
        self, store, store_url, forks, tmp_path
    ):
        machine = await create(store, ("actuate",))
        order = {"url": store_url, "world": tmp_path, "lease": 0.7, "seconds": 0.4, "until_done": True}
        first = await forks.start(**{**order, "seconds": 60})
        await until(lambda: any(line[0] == "moved" for line in told(tmp_path)))
        second = await forks.start(**order)
        await asyncio.sleep(0.2)
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
        await until(lambda: any(line[0] == "moved" and line[4] == str(second) for line in told(tmp_path)))
        assert time.monotonic() - killed < 0.7 + 1.0  # the lease, and a busy machine
        assert await forks.end_of(second) == 0
        assert (await state_of(store, machine))["results"] == {"actuate": "succeeded", "free": "succeeded"}

    async def test_a_stopped_worker_that_goes_on_later_changes_nothing(self, store, store_url, forks, tmp_path):
        machine = await create(store, ("actuate",), ("after",))
        order = {"url": store_url, "world": tmp_path, "lease": 0.7, "seconds": 0.4, "until_done": True}
        first = await forks.start(**{**order, "seconds": 60, "until_done": False})
        await until(lambda: any(line[0] == "moved" for line in told(tmp_path)))
        os.kill(first, signal.SIGSTOP)
        second = await forks.start(**order)
        await until(lambda: any(line[0] == "moved" and line[4] == str(second) for line in told(tmp_path)))
        os.kill(first, signal.SIGCONT)
        assert await forks.end_of(second) == 0
        before = await state_of(store, machine)
        await asyncio.sleep(0.3)
        os.kill(first, signal.SIGTERM)
        assert await forks.end_of(first) == 0
        lines = told(tmp_path)
        took_over = next(n for n, line in enumerate(lines) if line[0] == "moved" and line[4] == str(second))
        stale = [line for line in lines[took_over:] if line[4] == str(first)]
        assert [line for line in stale if line[0] != "refused"] == [], "the stale worker moved something"
        assert await state_of(store, machine) == before
        assert before["results"] == dict.fromkeys(("actuate", "after", "free"), "succeeded")
        outcomes = [event.event.message for event in await store.log.read(machine)]
        assert outcomes == ["actuate", "after", "free"]

    async def test_a_worker_asked_to_end_hands_over_at_once(self, store, store_url, forks, tmp_path):
        machine = await create(store, ("a",))
        order = {"url": store_url, "world": tmp_path, "lease": 60, "until_done": True}
        first = await forks.start(**{**order, "seconds": 60})
        await until(lambda: bool(told(tmp_path)))
        os.kill(first, signal.SIGTERM)
        assert await forks.end_of(first) == 0
        begin = time.monotonic()
        assert await forks.end_of(await forks.start(**order)) == 0
        assert time.monotonic() - begin < 10
        assert (await state_of(store, machine))["results"]["a"] == "succeeded"


class TestContention:
    async def test_three_workers_never_overlap_in_a_group_of_one(self, store, store_url, forks, tmp_path):
        jobs, groups = 500, 5
        await asyncio.gather(*(create(store, ("exclusive",), group=f"g{n % groups}") for n in range(jobs)))
        order = {"url": store_url, "world": tmp_path, "lease": 10, "seconds": 0.001, "until_done": True}
        # None may take so many at once that nothing is left for the others.
        pids = [await forks.start(**order, machines=20) for _ in range(3)]
        for pid in pids:
            assert await forks.end_of(pid) == 0
        lines = told(tmp_path)
        assert [line for line in lines if line[0] == "overlap"] == []
        performed = Counter(line[1] for line in lines if line[0] == "begin")
        assert len(performed) == jobs
        assert set(performed.values()) == {1}
        assert len({line[4] for line in lines}) > 1, "only one worker did everything"
        for group in range(groups):
            assert await store.slots.holders(f"g{group}") == []
        assert await store.log.verify() is None

    async def test_a_restart_in_the_middle_of_many_due_rows_loses_none(self, store, store_url, forks, tmp_path):
        await asyncio.gather(*(create(store, ("a",)) for _ in range(DUE_ROWS)))
        order = {"url": store_url, "world": tmp_path, "lease": 1.0, "seconds": 0.0, "until_done": True}
        first = await forks.start(**order)
        await until(lambda: len(told(tmp_path)) > DUE_ROWS * 2 // 3, 60)
        os.kill(first, signal.SIGKILL)
        assert await forks.end_of(first) == -signal.SIGKILL
        assert await forks.end_of(await forks.start(**order)) == 0
        assert len(await store.machines.newest("run", statuses=("done",), limit=DUE_ROWS + 1)) == DUE_ROWS
        performed = Counter(line[1] for line in told(tmp_path) if line[0] == "begin")
        assert len(performed) == DUE_ROWS
        assert max(performed.values()) <= 2
        assert sum(count == 2 for count in performed.values()) <= 200, "more than was under way was repeated"


@contextlib.contextmanager
def restarted(server: Any) -> Iterator[None]:
    server.stop(signal.SIGQUIT)
    yield
    server.start()


class TestDatabaseRestart:
    async def test_work_goes_on_after_the_server_was_away(self, own_postgres_server, forks, tmp_path):
        url = own_postgres_server.url()
        async with await open_store(url) as store:
            machines = [await create(store, ("a", "b"), ("once",), ("c",)) for _ in range(30)]
            order = {"url": url, "world": tmp_path, "lease": 10, "seconds": 0.15, "until_done": False}
            pids = [await forks.start(**order) for _ in range(2)]

            async def more() -> None:
                while len({line[4] for line in told(tmp_path)}) < 2:
                    machines.append(await create(store, ("a", "b"), ("once",), ("c",)))
                    await asyncio.sleep(0.1)

            await asyncio.wait_for(more(), 30)  # until both are at work
            await asyncio.to_thread(self._restart, own_postgres_server)

            async def all_done() -> bool:
                done = await store.machines.newest("run", statuses=("done",), limit=1000)
                return len(done) == len(machines)

            end = time.monotonic() + 40
            while not await all_done():
                assert time.monotonic() < end
                await asyncio.sleep(0.1)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
                assert await forks.end_of(pid) == 0
            for machine in machines:
                results = (await state_of(store, machine))["results"]
                assert results == dict.fromkeys(("a", "b", "once", "c", "free"), "succeeded")
            assert await store.log.verify() is None
        performed = Counter((line[1], line[2]) for line in told(tmp_path) if line[0] == "begin")
        assert set(performed.values()) == {1}, "the server was back within the lease: nothing is repeated"

    @staticmethod
    def _restart(server: Any) -> None:
        with restarted(server):
            time.sleep(1.0)
