"""What nothing needs goes, and what a rollback or a run needs never does."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.adapters.artifacts.folder import FolderArtifacts
from forge.adapters.steps.base import PublishedArtifact
from forge.core.pipeline.decide import new_run
from forge.core.release.state import EnvironmentState, ReleaseState, VersionState
from forge.engine.artifact_index import RunArtifacts
from forge.engine.engine import Engine
from forge.engine.environments import KIND, EnvironmentMachine
from forge.engine.project import Project
from forge.engine.pruning import Pruned, prune
from forge.engine.runs import encode_head, encode_parts
from forge.model.plan import EnvironmentPlan, JobPlan, Plan, Source, StepPlan
from forge.model.strategy import Strategy
from forge.model.traffic import Version

STATUSES = ("succeeded", "failed", "cancelled", "running", "queued", "waiting")


class Place:
    """A project with runs and environments that were never worked on: only what is on record counts."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.environments = EnvironmentMachine(engine.project, engine.artifacts)

    async def store(self, content: str) -> str:
        path = self.engine.project.state / "content"
        path.write_text(content)
        digest = await self.engine.artifacts.put(path)
        assert isinstance(self.engine.artifacts, FolderArtifacts)
        old = time.time() - 7200
        os.utime(self.engine.artifacts.root / digest[:2] / digest[2:], (old, old))
        return digest

    async def run(self, status: str, source: str, *published: str) -> str:
        """Put a run on record whose source and artifacts have these contents."""
        step = StepPlan(id="1", name="1", kind="run", config={})
        plan = Plan(
            name="p",
            jobs=(JobPlan(name="build", base="build", steps=(step,)),),
            source=Source(await self.store(source)),
        )
        await self.engine.plans.pin(plan)
        state = new_run(plan, "", actor="ana", at=time.time())
        machines = self.engine.store.machines
        run = await machines.create("run", "", status, encode_head(state), encode_parts(state), id_prefix="run")
        index = RunArtifacts(self.engine.store.documents, 1)
        for content in published:
            digest = await self.store(content)
            artifact = PublishedArtifact(content, digest, len(content), run, "build", "1", plan.digest, "", 0.0)
            await index.publish(artifact)
        return run

    async def environment(
        self, name: str, stable: str, previous: tuple[str, ...], waiting: tuple[str, ...] = ()
    ) -> None:
        """Put an environment on record: what is stable, where a rollback can go, what waits to be released."""
        versions = {}
        for content in (*((stable,) if stable else ()), *previous, *waiting):
            versions[content] = VersionState(Version(content, artifact=await self.store(content)))
        releases = {f"{name}-1": ReleaseState(f"{name}-1", waiting[0], Strategy("rolling"))} if waiting else {}
        state = EnvironmentState(
            name, EnvironmentPlan(name), stable=stable, previous=previous, versions=versions, releases=releases
        )
        status, head, parts = self.environments.dump(state)
        await self.engine.store.machines.create(KIND, name, status, head, parts, id_prefix="env")

    async def left(self) -> set[str]:
        """Return the contents that are still stored."""
        assert isinstance(self.engine.artifacts, FolderArtifacts)
        return {file.read_text() for file in self.engine.artifacts.root.glob("??/*")}


@pytest.fixture
async def place(tmp_path):
    async with Engine.open(Project(tmp_path)) as engine:
        yield Place(engine)


async def test_only_what_nothing_needs_goes(place):
    await place.run("succeeded", "source 1", "a 1", "b 1")
    await place.run("succeeded", "source 2", "a 2")
    await place.run("running", "source 3", "a 3")
    await place.run("failed", "source 4", "a 4")
    await place.environment("production", "a 2", ("b 1",))
    told = await prune(place.engine, keep=1, dry_run=True)
    assert len(await place.left()) == 9
    done = await prune(place.engine, keep=1)
    assert (done, done.kept) == (told, 6)
    assert sorted(size for _, size in done.deleted) == [3, 8, 8]
    assert await place.left() == {"b 1", "a 2", "source 3", "a 3", "source 4", "a 4"}
    assert await prune(place.engine, keep=1) == Pruned(kept=6)


async def test_what_waits_to_be_released_stays(place):
    await place.run("succeeded", "source", "sent", "queued")
    await place.run("succeeded", "newer")
    await place.environment("production", "", (), ("queued",))
    machine = await place.engine.store.machines.find(KIND, "production")
    version = msgspec.to_builtins(Version("2", artifact=await place.store("sent")))
    await place.engine.store.inbox.send(machine, "deploy", "ana", {"version": version})
    await prune(place.engine, keep=1)
    assert await place.left() == {"sent", "queued", "newer"}


async def test_what_was_stored_lately_may_be_needed_by_who_has_not_said_so_yet(place):
    await place.run("succeeded", "source", "a")
    await place.run("succeeded", "newer")
    digest = await place.engine.artifacts.put(_file(place, "a"))
    await prune(place.engine, keep=1)
    assert await place.left() == {"a", "newer"}
    assert (await place.engine.artifacts.about(digest)).size == 1


async def test_what_became_needed_while_it_was_looked_for_stays(place, monkeypatch):
    await place.run("succeeded", "source", "a")
    await place.run("succeeded", "newer")
    about = place.engine.artifacts.about

    async def meanwhile(digest: str):
        monkeypatch.undo()
        await place.environment("production", "a", ())
        return await about(digest)

    monkeypatch.setattr(place.engine.artifacts, "about", meanwhile)
    await prune(place.engine, keep=1)
    assert "a" in await place.left()


async def test_what_another_puts_into_the_store_is_not_ours(place):
    await place.run("succeeded", "source")
    await place.store("somebody else's")
    await prune(place.engine, keep=1)
    assert await place.left() == {"source", "somebody else's"}


async def test_an_environments_own_copies_go_with_their_artifacts(place):
    await place.run("succeeded", "source", "old", "stable")
    await place.run("succeeded", "newer")
    await place.environment("production", "stable", ())
    folder = place.engine.project.environment_folder("production") / "artifacts"
    for content in ("old", "stable"):
        copy = folder / (await place.store(content))[:16]
        copy.mkdir(parents=True)
        (copy / "app").write_text(content)
        os.utime(copy, (0, 0))
    assert (await prune(place.engine, keep=1, dry_run=True)).copies == 3
    assert len(list(folder.iterdir())) == 2
    assert (await prune(place.engine, keep=1)).copies == 3
    assert [copy.joinpath("app").read_text() for copy in folder.iterdir()] == ["stable"]


contents = st.sampled_from([f"c{number}" for number in range(8)])
runs = st.lists(st.tuples(st.sampled_from(STATUSES), contents, st.lists(contents, max_size=3, unique=True)), max_size=7)
environments = st.lists(
    st.tuples(contents, st.lists(contents, max_size=3, unique=True), st.lists(contents, max_size=2, unique=True)),
    max_size=3,
)


@settings(max_examples=25)
@given(runs, environments, st.integers(1, 4))
def test_whatever_happened_nothing_that_is_needed_goes_and_nothing_else_stays(history, places, keep):
    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with Engine.open(Project(Path(folder))) as engine:
                place = Place(engine)
                needed, known = set(), set()
                for number, (status, source, published) in enumerate(history):
                    await place.run(status, source, *published)
                    known |= {source, *published}
                    if number >= len(history) - keep or status in {"running", "queued", "waiting"}:
                        needed |= {source, *published}
                for number, (stable, previous, waiting) in enumerate(places):
                    await place.environment(f"e{number}", stable, tuple(previous), tuple(waiting))
                    needed |= {stable, *previous, *waiting}
                before = await place.left()
                await prune(engine, keep=keep)
                assert await place.left() == needed | (before - known)

    asyncio.run(scenario())


def _file(place: Place, content: str) -> Path:
    path = place.engine.project.state / "content"
    path.write_text(content)
    return path
