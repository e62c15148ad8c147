"""One suite for both ways to a project: its own database, and a server's API."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import yaml

from cluster.releases import SERVICE
from forge.engine.engine import Engine
from forge.engine.project import Project
from forge.engine.recording import read
from forge.model.errors import InvalidConfiguration, Rejected, UsageError
from forge.service.base import Accepted, Service
from forge.service.local import LocalService
from forge.service.remote import RemoteService, open_api
from forge.views.run import RunView
from serving.listening import listening

T = TypeVar("T")
GATE = {"message": "Well?", "inputs": {"ticket": {"type": "string"}, "sure": {"type": "boolean", "default": True}}}
JOBS: dict[str, Any] = {
    "build": {"steps": [{"id": "make", "run": "seq 1 2000; printf hello > out; printf 'no end'"}, {"publish": "out"}]},
    "ship": {
        "depends_on": "build",
        "steps": [{"approve": GATE}, {"id": "go", "run": "echo for $FORGE_INPUT_TICKET; test $WHAT != bad"}],
        "env": {"WHAT": "${{ params.what }}"},
    },
}
PARAMETERS = {"what": {"type": "string", "default": "good"}}


def write_project(folder: Path, jobs: dict[str, Any] = JOBS, **more: Any) -> Path:
    (folder / "forge").mkdir(parents=True, exist_ok=True)
    pipeline = {"parameters": PARAMETERS, **more, "jobs": jobs}
    (folder / "forge" / "pipeline.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    return folder


@contextlib.asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Service]:
    """The project itself, with a worker."""
    over = asyncio.Event()

    async def is_over() -> bool:
        return over.is_set()

    async with Engine.open(Project(folder)) as engine:
        working = asyncio.create_task(engine.work(is_over))
        try:
            yield LocalService(engine)
        finally:
            over.set()
            await working


@contextlib.asynccontextmanager
async def remote(folder: Path) -> AsyncIterator[Service]:
    """A server of the project on a real port, which is a worker too."""
    async with (
        listening(folder) as asked,
        open_api(str(asked.client.base_url), "forge_token-of-ann") as api,
    ):
        await asked.site.workers.start()
        yield RemoteService(api, folder.name)


@pytest.fixture(params=[local, remote], ids=["local", "remote"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    async with request.param(write_project(tmp_path / "shop")) as opened:
        yield opened


async def until(look: Callable[[], Awaitable[T]], good: Callable[[T], bool], seconds: float = 15.0) -> T:
    """Look until it is good; fail with what was seen last."""
    end = time.monotonic() + seconds
    while not good(seen := await look()):
        assert time.monotonic() < end, seen
        await asyncio.sleep(0.05)
    return seen


async def run_until(service: Service, run: str, *states: str) -> RunView:
    return await until(lambda: service.runs.get(run), lambda view: view.state in states)


async def at_the_gate(service: Service, **parameters: str) -> str:
    run = await service.runs.start(parameters, actor="ann")
    await run_until(service, run, "waiting")
    return run


class TestRuns:
    async def test_a_run_goes_from_start_over_its_gate_to_the_end(self, service):
        run = await service.runs.start({"what": "good"}, actor="ann")
        waiting = await run_until(service, run, "waiting")
        assert (waiting.id, waiting.actor, [job.name for job in waiting.waiting_jobs()]) == (run, "ann", ["ship"])
        accepted = await service.runs.command(
            run, "approve", {"comment": "fine", "inputs": {"ticket": "X-1"}}, actor="ann"
        )
        assert accepted.machine == run
        ended = await run_until(service, run, "succeeded", "failed")
        assert ended.state == "succeeded"
        assert (await service.runs.log(run, "ship", 1, "go")).data == b"for X-1\n"
        assert await service.records.refusal(accepted) == ""
        assert await service.records.waiting(run) == []

    async def test_the_plan_of_a_run_is_the_pinned_one(self, service):
        run = await service.runs.start({"what": "better"}, actor="ann")
        plan = await service.runs.plan(run)
        assert [job.name for job in plan.jobs] == ["build", "ship"]
        assert plan.digest == (await service.runs.get(run)).plan

    async def test_the_same_key_starts_one_run(self, service):
        first = await service.runs.start({}, actor="ann", key="monday")
        assert await service.runs.start({}, actor="ann", key="monday") == first
        assert await service.runs.start({}, actor="ann", key="tuesday") != first

    async def test_a_key_is_worth_more_than_what_is_in_the_folder_by_now(self, service, tmp_path):
        first = await service.runs.start({}, actor="ann", key="monday")
        (tmp_path / "shop/forge/pipeline.yaml").write_text("jobs: [broken")
        assert await service.runs.start({}, actor="ann", key="monday") == first
        with pytest.raises(InvalidConfiguration):
            await service.runs.start({}, actor="ann", key="tuesday")

    async def test_parameters_are_checked_before_anything_is_stored(self, service):
        with pytest.raises(InvalidConfiguration) as raised:
            await service.runs.start({"waht": "good"}, actor="ann")
        assert "what" in raised.value.diagnostics[0].render()
        assert (await service.runs.page()).items == ()

    async def test_a_folder_has_nothing_to_check_out(self, service):
        with pytest.raises(UsageError, match="Git"):
            await service.runs.start({}, actor="ann", ref="main")

    async def test_pages_hold_every_run_once_newest_first(self, service):
        runs = [await service.runs.start({}, actor="ann") for _ in range(5)]
        seen, cursor, pages = [], "", 0
        while True:
            page = await service.runs.page(limit=2, cursor=cursor)
            seen += [row.id for row in page.items]
            pages, cursor = pages + 1, page.next
            if not cursor:
                break
        assert (seen, pages) == (runs[::-1], 3)
        assert (await service.runs.page(statuses=("succeeded",))).items == ()
        with pytest.raises(UsageError):
            await service.runs.page(cursor="run-999")

    async def test_what_nobody_knows_is_told_with_the_nearest(self, service):
        run = await service.runs.start({}, actor="ann")
        for asked in (
            service.runs.get("run-11"), service.runs.plan("run-11"), service.runs.artifacts("run-11"),
            service.runs.command("run-11", "cancel", {}, actor="ann"), service.runs.log("run-11", "build", 1, "make"),
        ):  # fmt: skip
            with pytest.raises(UsageError, match="there is no run `run-11`") as raised:
                await asked
            assert run in str(raised.value.hint)
        for where in (("bild", 1, "make"), ("build", 7, "make"), ("build", 1, "mkae")):
            with pytest.raises(UsageError) as raised:
                await service.runs.log(run, *where)
            assert raised.value.hint


class TestCommands:
    async def test_a_word_that_makes_no_sense_now_is_refused_and_not_sent(self, service):
        run = await at_the_gate(service)
        for kind, payload in [
            ("retry", {}), ("approve", {"job": "build"}), ("approve", {"job": "shp"}), ("aprove", {}),
            ("approve", {"inputs": {"tikcet": "1"}}), ("approve", {"inputs": {"sure": "perhaps"}}),
            ("cancel", {"job": "shp"}),
        ]:  # fmt: skip
            with pytest.raises(UsageError) as raised:
                await service.runs.command(run, kind, payload, actor="ann")
            assert raised.value.hint, (kind, payload)
        assert await service.records.waiting(run) == []
        assert (await service.runs.get(run)).state == "waiting"

    async def test_rejected_by_a_person(self, service):
        run = await at_the_gate(service)
        await service.runs.command(run, "reject", {"comment": "no"}, actor="ann")
        assert (await run_until(service, run, "rejected", "succeeded")).state == "rejected"
        with pytest.raises(UsageError, match="over already"):
            await service.runs.command(run, "cancel", {}, actor="ann")

    async def test_cancelled_once_by_the_same_key(self, service):
        run = await at_the_gate(service)
        first = await service.runs.command(run, "cancel", {"comment": "enough"}, actor="ann", key="once")
        assert isinstance(first, Accepted)
        assert (await run_until(service, run, "cancelled")).final
        assert (
            await service.runs.command(run, "cancel", {"comment": "enough"}, actor="ann", key="once")
        ).id == first.id
        events = await service.records.events(run)
        assert sum(stored.event.kind == "run_cancelling" for stored in events) <= 1

    async def test_a_failed_run_is_done_again(self, service):
        run = await at_the_gate(service, what="bad")
        await service.runs.command(run, "approve", {"inputs": {"ticket": "7", "sure": False}}, actor="ann")
        assert (await run_until(service, run, "failed", "succeeded")).state == "failed"
        accepted = await service.runs.command(run, "retry", {}, actor="ann")
        await until(lambda: service.records.refusal(accepted), lambda refusal: refusal is not None)
        assert (await service.runs.get(run)).attempt == 2

    async def test_who_may_not_is_rejected_and_told_why(self, service, tmp_path):
        gate = {"approvers": ["bob"]}
        write_project(tmp_path / "shop", {"ship": {"steps": [{"approve": gate}, {"run": "true"}]}})
        run = await at_the_gate(service)
        with pytest.raises(Rejected) as raised:
            await service.runs.command(run, "approve", {}, actor="ann")
        assert "ann" in raised.value.message
        assert (await service.runs.get(run)).state == "waiting"


class TestArtifactsAndLogs:
    async def test_an_artifact_is_fetched_whole(self, service, tmp_path):
        run = await at_the_gate(service)
        (row,) = await service.runs.artifacts(run)
        assert (row.name, row.size, row.run, row.job) == ("out", 5, run, "build")
        assert await service.runs.fetch(run, "out", tmp_path / "copy") == row.digest
        assert (tmp_path / "copy").read_bytes() == b"hello"
        with pytest.raises(UsageError) as raised:
            await service.runs.fetch(run, "uot", tmp_path / "other")
        assert "out" in str(raised.value.hint)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "shop"]

    async def test_a_log_is_read_in_pieces_from_any_place(self, service):
        run = await at_the_gate(service)
        whole = b"".join(b"%d\n" % number for number in range(1, 2001)) + b"no end"
        first = await service.runs.log(run, "build", 1, "make", limit=100)
        assert (first.data, first.offset, first.size, first.ended) == (whole[:100], 0, len(whole), True)
        seen, offset = b"", 0
        while offset < first.size:
            part = await service.runs.log(run, "build", 1, "make", offset=offset, limit=777)
            assert (part.offset, len(part.data) <= 777) == (offset, True)
            seen, offset = seen + part.data, offset + len(part.data)
        assert seen == whole
        last = await service.runs.log(run, "build", 1, "make", offset=-6)
        assert (last.data, last.offset) == (b"no end", len(whole) - 6)
        beyond = await service.runs.log(run, "build", 1, "make", offset=len(whole) + 50)
        assert (beyond.data, beyond.offset) == (b"", len(whole))
        pending = await service.runs.log(run, "ship", 1, "go")
        assert (pending.data, pending.size, pending.ended) == (b"", 0, False)


class TestRecords:
    async def test_events_are_read_followed_and_resumed(self, service):
        run = await at_the_gate(service)
        events = await service.records.events(run)
        assert next(one.event.kind for one in events) == "run_created"
        assert {one.machine for one in events} == {run}
        assert await service.records.events(run, after=events[2].seq, limit=2) == events[3:5]
        assert await service.records.last() >= events[-1].seq
        followed = []
        async with asyncio.timeout(20):
            async for stored in service.records.follow(run, after=events[1].seq):
                followed.append(stored)
                if stored.seq == events[-1].seq:
                    await service.runs.command(run, "reject", {"comment": "no"}, actor="ann")
                if len(followed) > len(events):
                    break
        assert followed[: len(events) - 2] == events[2:]

    async def test_the_record_is_whole_and_an_unknown_machine_is_told(self, service):
        await at_the_gate(service)
        found = await service.records.verify()
        assert found["events"]["first_wrong"] is None
        assert int(found["events"]["records"] or 0) > 3
        assert found["decisions"] == {"records": 0, "first_wrong": None}
        for asked in (service.records.events("run-77"), service.records.events("nowhere")):
            with pytest.raises(UsageError):
                await asked


def releasing(strategy: Any) -> dict[str, Any]:
    """A pipeline that releases a small service to this machine."""
    return {"release": {"steps": [{"deploy": {
        "environment": "production", "version": "${{ params.what }}", "strategy": strategy, "keep_previous": "0s",
        "target": {"env": {"POD_IP": "127.0.0.1", "VERSION": "${{ params.what }}"}},
    }}]}}  # fmt: skip


def environments(folder: Path) -> dict[str, Any]:
    (folder / "service.py").write_text(SERVICE)
    command = [sys.executable, "-I", "-S", str(folder / "service.py")]
    target = {"command": command, "replicas": 1, "drain": "100ms", "env": {"POD_IP": "127.0.0.1"},
              "ready": {"http": "/healthz", "interval": "50ms"}}  # fmt: skip
    return {"production": {"target": {"local": target}}, "staging": {"target": {"local": target}}}


BY_HAND = {"canary": {"steps": [{"weight": "50%"}, {"pause": "until_resumed"}]}}


@pytest.fixture(params=[local, remote], ids=["local", "remote"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    """A project that releases; what it started is gone afterwards."""
    from forge.adapters.targets.local.environment import shutdown

    folder = tmp_path / "shop"
    folder.mkdir()
    write_project(folder, releasing(BY_HAND), environments=environments(folder))
    try:
        async with request.param(folder) as opened:
            yield opened
    finally:
        await shutdown(Project(folder).environment_folder("production"))


@pytest.mark.long
async def test_releases_are_looked_at_steered_and_explained(shop):
    known = shop.environments
    assert await known.names() == ("production", "staging")
    assert not await known.exists("production")
    assert (await known.get("production")).state == "empty"
    assert await shop.records.events("production") == []
    assert (await known.plan("staging")).target == "local"
    for asked in (known.get("prodution"), known.plan("prodution"), known.command("prodution", "pause", {}, actor="a")):
        with pytest.raises(UsageError) as raised:
            await asked
        assert "production" in str(raised.value.hint)
    with pytest.raises(UsageError, match="nothing was released"):
        await known.command("production", "pause", {}, actor="ann")

    first = await shop.runs.start({"what": "v1"}, actor="ann")
    assert (await run_until(shop, first, "succeeded", "failed", "error")).state == "succeeded"
    assert await known.exists("production")
    with pytest.raises(UsageError, match="no release is under way"):
        await known.command("production", "promote", {}, actor="ann")
    second = await shop.runs.start({"what": "v2"}, actor="ann")
    await until(lambda: known.get("production"), lambda view: bool(view.current) and view.current.state == "paused")
    close = await known.get("production", closely=True)
    assert {arm.version: arm.actual_weight for arm in close.arms} == {"v1": 5000, "v2": 5000}
    with pytest.raises(UsageError, match="production-9"):
        await known.command("production", "promote", {"release": "production-9"}, actor="ann")
    accepted = await known.command("production", "promote", {"full": True, "release": ""}, actor="ann", key="go")
    assert (await known.command("production", "promote", {"full": True}, actor="ann", key="go")).id == accepted.id
    assert (await run_until(shop, second, "succeeded", "failed", "error")).state == "succeeded"
    assert await shop.records.refusal(accepted) == ""
    story = await known.explanation("production-2")
    assert (story.version, story.status) == ("v2", "promoted")
    with pytest.raises(UsageError, match="production-12"):
        await known.explanation("production-12")
    decided = await shop.records.decisions("production", limit=3)
    assert decided
    assert read(decided[0].body, decided[0].seq).environment == "production"
    assert (await shop.records.verify())["decisions"]["first_wrong"] is None


@pytest.mark.long
async def test_both_ways_tell_the_same(tmp_path):
    """Whoever asks a server sees the very values that the project's own database has."""
    folder = tmp_path / "shop"
    folder.mkdir()
    write_project(folder, {**JOBS, **releasing("rolling")}, environments=environments(folder))
    from forge.adapters.targets.local.environment import shutdown

    try:
        async with listening(folder) as asked, open_api(str(asked.client.base_url), "token") as api:
            await asked.site.workers.start()
            there, here = RemoteService(api, "shop"), LocalService(asked.site.engine("shop"))
            run = await there.runs.start({"what": "v1"}, actor="ann")
            await run_until(there, run, "waiting")
            await there.runs.command(run, "reject", {"comment": "no"}, actor="ann")
            await run_until(there, run, "rejected", "error")
            for ask in (
                lambda one: one.runs.get(run), lambda one: one.runs.plan(run), lambda one: one.runs.artifacts(run),
                lambda one: one.runs.log(run, "build", 1, "make"), lambda one: one.records.events(limit=200),
                lambda one: one.records.events("production", limit=200), lambda one: one.records.decisions(limit=50),
                lambda one: one.records.verify(), lambda one: one.records.last(), lambda one: one.records.waiting(run),
                lambda one: one.environments.names(), lambda one: one.environments.plan("production"),
                lambda one: one.environments.get("staging"), lambda one: one.environments.explanation("production-1"),
            ):  # fmt: skip
                ours, theirs = await ask(here), await ask(there)
                assert msgspec.json.encode(ours) == msgspec.json.encode(theirs)
                assert type(ours) is type(theirs)
            assert (await there.runs.page()).items == (await here.runs.page()).items
            ours, theirs = await here.environments.get("production"), await there.environments.get("production")
            assert msgspec.structs.replace(ours, releases=()) == msgspec.structs.replace(theirs, releases=())
    finally:
        await shutdown(Project(folder).environment_folder("production"))
