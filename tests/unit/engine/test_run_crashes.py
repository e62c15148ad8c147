"""Forge dies at every write of a run, just before and just after it: the next worker ends with the same result,
and nothing that had finished is done again. Real database, worker, workspaces and artifacts; steps in this process."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest

from forge.adapters.artifacts.open import open_artifacts
from forge.adapters.steps import registry
from forge.adapters.steps.base import StepResult
from forge.core.pipeline.state import RUN_FINAL
from forge.engine.engine import Engine
from forge.engine.plans import Plans
from forge.engine.project import Project
from forge.engine.runs import RunMachine
from forge.engine.step_performing import StepPerformer
from forge.engine.worker import Worker
from forge.model.errors import DependencyFailed
from forge.model.plan import Approval, Concurrency, JobPlan, Plan, Retry, Source, StepPlan
from forge.store.database import open_store

numbers = count(1)


class NoProcesses:
    """A runner for steps that start no processes; remembers what it was asked to end."""

    def __init__(self):
        self.killed = []

    async def kill(self, key, grace=0.0):
        self.killed.append(key)
        return 0

    def close(self):
        pass


class CountingStep:
    """Writes down each execution; does what the script says: `fail first`, or leave a file for later steps."""

    kind = "run"

    def __init__(self, record: Path):
        self.record = record

    async def run(self, context):
        with self.record.open("a") as file:
            file.write(f"{context.job.name}/{context.step.id}#{context.attempt}\n")
        await asyncio.sleep(0)
        script = context.step.config["script"]
        if script == "fail first" and context.attempt == 1:
            return StepResult("failed", "not yet", 1)
        if script == "wait":
            await asyncio.sleep(60)
        if script == "fail":
            return StepResult("failed", "never", 1)
        (context.workspace / "made.txt").write_text(script)
        return StepResult("succeeded", exit_code=0, outputs={"said": script})


class Mortal:
    """Makes a store die at its write number `at`: before it (nothing is written) or after (nobody hears of it)."""

    def __init__(self, store, at: int | None, *, after: bool):
        self.writes, self.at, self.after = 0, at, after
        self.died = asyncio.Event()
        self._database = store._database
        self._write = self._database.write
        self._database.write = self.write

    async def write(self, work):
        if self.died.is_set():
            raise DependencyFailed("dead")
        self.writes += 1
        if self.writes != self.at:
            return await self._write(work)
        if self.after:
            await self._write(work)
        self.died.set()
        raise DependencyFailed("killed")


class Place:
    """One database and one project folder, in which workers come and go."""

    def __init__(self, url: str, folder: Path):
        self.url, self.project = url, Project(folder)
        self.record = folder / "executions"
        folder.mkdir(parents=True)
        self.record.touch()
        self.runner = NoProcesses()
        self.cancelled = False

    @asynccontextmanager
    async def engine(self):
        store = await open_store(self.url)
        artifacts = open_artifacts(str(self.project.state / "artifacts"))
        try:
            yield Engine(self.project, store, artifacts, self.runner, max_parallel=2, lease_seconds=10.0)
        finally:
            await store.close()

    def worker(self, engine: Engine) -> Worker:
        counting = CountingStep(self.record)

        def step_of_kind(kind):
            return counting if kind == "run" else registry.step(kind)

        steps = StepPerformer(
            engine.store, engine.project, engine.artifacts, self.runner, None, step_of_kind=step_of_kind
        )  # fmt: skip
        return Worker(engine.store, (RunMachine(engine.store, Plans(engine.store.documents), steps, max_parallel=2),))

    async def work(self, run: str, *, at: int | None = None, after: bool = False) -> int:
        """Be a worker until the run is over or Forge dies; approve what waits. Returns the number of writes."""
        async with self.engine() as engine, self.engine() as person:
            mortal = Mortal(engine.store, at, after=after)
            stop = asyncio.Event()
            working = asyncio.create_task(self.worker(engine).run(stop))
            try:
                async with asyncio.timeout(20):
                    while not mortal.died.is_set() and not working.done():
                        state, _ = await person.run_state(run)
                        if state.status in RUN_FINAL:
                            break
                        if "slow/1#1" in self.executions() and not (state.cancel_requested or self.cancelled):
                            self.cancelled = True
                            await person.store.inbox.send(run, "cancel", "ben", {})
                        if state.status == "waiting" and not await person.store.inbox.of(run):
                            await person.store.inbox.send(run, "approve", "ben", {})
                        await asyncio.sleep(0.002)
            finally:
                if mortal.died.is_set():
                    working.cancel()
                stop.set()
                with suppress(asyncio.CancelledError):
                    await working
            return mortal.writes

    def forget_leases(self) -> None:
        """Let the dead worker's leases run out at once."""
        if self.url.startswith("sqlite"):
            with sqlite3.connect(self.url.removeprefix("sqlite:///")) as connection:
                connection.execute("UPDATE workers SET lease_until = 0")
            connection.close()
        else:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("UPDATE workers SET lease_until = 0")

    def executions(self) -> Counter[str]:
        return Counter(self.record.read_text().split())


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Return how to make places, each with an empty database."""

    def make() -> Place:
        number = next(numbers)
        if request.param == "sqlite":
            return Place(f"sqlite:///{tmp_path}/{number}.db", tmp_path / str(number))
        server = request.getfixturevalue("postgres_server")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA crash_{number}")
        return Place(f"{server.url()}&options=-csearch_path%3Dcrash_{number}", tmp_path / str(number))

    def deaths(writes: int) -> list[tuple[int, bool]]:
        """Return every write, before and after; on PostgreSQL, under the same code, one of three in turn."""
        every = [(at, after) for at in range(1, writes + 1) for after in (False, True)]
        return every if request.param == "sqlite" else every[::3]

    make.deaths = deaths
    return make


def step(identifier, kind="run", script="ok", **fields) -> StepPlan:
    config = {"script": script} if kind == "run" else {"name": "made.txt"}
    return StepPlan(identifier, kind, identifier, config, **fields)


PLAN = Plan(
    "crashing",
    (
        JobPlan("build", "build", (step("1"), step("2", "publish"))),
        JobPlan("flaky", "flaky", (step("1", script="fail first", retry=Retry(2, delay=0.0)),)),
        JobPlan("bad", "bad", (step("1", script="fail"), step("always-1", run_on="always")), ("flaky",)),
        JobPlan(
            "ship", "ship", (step("1", "download"), step("2")), ("build",),
            gate=Approval(), concurrency=Concurrency("ship"),
        ),
        JobPlan("never", "never", (step("1"),), ("bad",)),
    ),
    Source(""),
)  # fmt: skip


SLOW = Plan(
    "cancelled",
    (
        JobPlan(
            "slow", "slow", (step("1", script="wait"), step("2"), step("always-1", run_on="always")),
            concurrency=Concurrency("ship"),
        ),
        JobPlan("after", "after", (step("1"),), ("slow",)),
    ),
    Source(""),
)  # fmt: skip


def essence(state):
    """Return what must be the same with and without a crash: everything but times, words and counts of restarts."""
    return {
        "status": state.status,
        "jobs": {
            name: (job.status, job.attempt, [(key, one.status, one.attempt, one.exit_code, one.outputs)
                   for key, one in job.steps.items()], [vote.actor for vote in job.votes])
            for name, job in state.jobs.items()
        },
    }  # fmt: skip


def finished_steps(state, intents):
    """Return the executions whose outcome is on disk, in a job's state or beside it."""
    done = {
        f"{name}/{key}#{one.attempt}"
        for name, job in state.jobs.items()
        for key, one in job.steps.items()
        if one.status in {"succeeded", "failed"} and one.attempt
    }
    for intent in intents:
        if intent.outcome is not None and intent.action.kind == "step":
            payload = intent.action.payload
            done.add(f"{payload['job']}/{payload['step']}#{payload['step_attempt']}")
    return done


async def run_with_crash(place: Place, at: int | None, *, after: bool, plan: Plan = PLAN):
    """Run a plan, dying at a write; return the end's essence, all executions, and the number of writes."""
    async with place.engine() as engine:
        run = await engine.start_run(plan, actor="ana")
    writes = await place.work(run, at=at, after=after)
    if at is not None:
        place.forget_leases()
        async with place.engine() as engine:
            state, _ = await engine.run_state(run)
            done = finished_steps(state, await engine.store.intents.of(run))
        before = place.executions()
        await place.work(run)
        again = {name for name in done if place.executions()[name] != before[name]}
        assert not again, f"finished before the crash, and executed again: {again}"
    async with place.engine() as engine:
        state, _ = await engine.run_state(run)
        assert await engine.store.log.verify() is None
        assert not await engine.store.intents.of(run)
        assert not await engine.store.slots.holders("ship")
        assert len(await engine.artifacts_of(run)) == (plan is PLAN)
    return essence(state), place.executions(), writes


async def test_a_crash_at_any_write_changes_nothing(place):
    expected, executions, writes = await run_with_crash(place(), None, after=False)
    assert expected["status"] == "failed"
    assert {name: job[0] for name, job in expected["jobs"].items()} == {
        "build": "succeeded", "flaky": "succeeded", "bad": "failed", "ship": "succeeded", "never": "blocked",
    }  # fmt: skip
    assert writes > 12
    assert max(executions.values()) == 1
    under_way, deaths = 0, list(place.deaths(writes))
    for at, after in deaths:
        there = place()
        found, counted, _ = await run_with_crash(there, at, after=after)
        when = f"crash {'after' if after else 'before'} write {at} of {writes}"
        assert found == expected, when
        repeated = {name: times for name, times in counted.items() if times > 1}
        under_way += bool(repeated)
        assert len(repeated) <= 2, f"{when}: {repeated}"
        assert max(counted.values()) <= 2, when
        assert counted.keys() == executions.keys(), when
    # Where only some of the writes are crashed at, fewer of them hit a step.
    assert under_way > (2 if len(deaths) >= 2 * writes else 0), "the crashes did not hit steps that were under way"


async def test_a_crash_while_it_is_cancelled_still_cleans_up_and_gives_places_back(place):
    expected, executions, writes = await run_with_crash(place(), None, after=False, plan=SLOW)
    assert expected["status"] == "cancelled"
    assert executions.keys() == {"slow/1#1", "slow/always-1#1"}
    for at, after in place.deaths(writes):
        found, counted, _ = await run_with_crash(place(), at, after=after, plan=SLOW)
        when = f"crash {'after' if after else 'before'} write {at} of {writes}"
        assert found == expected, when
        assert counted.keys() == executions.keys(), when
