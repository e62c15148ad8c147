"""Decisions on record, through the real worker and both real databases: verified, made again, told, tampered with."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import zlib
from pathlib import Path

import msgspec
import psycopg
import pytest
from test_releases_in_the_engine import CANARY, Forge, World

from forge.cli.main import run_command
from forge.engine.recording import read, rules
from forge.engine.records import replay_all, stored_decisions
from forge.model.errors import CorruptData, DependencyFailed, UsageError
from forge.service.stories import explanation_of, history_of


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("forge.core.release.decide.INTERVAL", 0.05)
    return World()


def change(url: str, statement: str, value: bytes) -> None:
    """Run a statement with one value behind Forge's back."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute(statement.format("?"), (value,))
        connection.close()
    else:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(statement.format("%s"), (value,))


async def test_a_release_is_verified_made_again_and_told(store_url: str, tmp_path: Path, world: World) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        await forge.released("1.1")
        world.broken.add("1.2")
        bad = await forge.released("1.2")
        assert await forge.store.decisions.verify() is None
        assert await forge.store.log.verify() is None
        found = await replay_all(forge.store)
        story = await explanation_of(forge.store, "production-3")
        good = await explanation_of(forge.store, "production-2")
        with pytest.raises(UsageError) as unknown:
            await explanation_of(forge.store, "production-33")
        with pytest.raises(UsageError):
            await explanation_of(forge.store, "nowhere-1")
    assert bad["status"] == "rolled_back"
    assert found.difference is None
    assert found.other_rules == 0
    assert found.decisions > 20
    assert "production-3" in (unknown.value.hint or "")
    assert (story.status, story.rolled_back_to, story.actor) == ("rolled_back", "1.1", "ann")
    assert story.steps[0].weight == 1000
    assert story.steps[-1].weight == 0
    assert story.decisive is not None
    assert story.decisive.kind == "rollback"
    assert story.harm is not None
    assert story.harm.failed == bad["failed_requests"]
    assert story.counterfactual is not None
    assert story.counterfactual.weight == 5000
    assert "estimate" in story.counterfactual.words
    assert (good.status, good.counterfactual, good.rolled_back_to) == ("promoted", None, "")
    assert [step.weight for step in good.steps][:2] == [1000, 5000]


async def test_a_story_that_an_earlier_forge_recorded_can_still_be_told(
    store_url: str, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer Forge's states have more fields, so that their digests are others than those on record."""
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        await forge.released("1.1")
        monkeypatch.setattr("forge.service.stories.rules", lambda: "newer")
        monkeypatch.setattr("forge.core.release.replay.state_digest", lambda _state: "another")
        story = await explanation_of(forge.store, "production-2")
        history = await history_of(forge.store, "production-2")
    assert story.status == "promoted"
    assert story.decisions > 3
    assert history.complete
    assert {point.verdict for point in history.points} >= {"promote"}
    assert history.versions[:2] == ("1.0", "1.1")


async def test_what_another_worker_carries_on_is_one_record(tmp_path: Path, world: World) -> None:
    url = f"sqlite:///{tmp_path / 'forge.db'}"
    async with Forge(url, tmp_path, world) as forge:
        await forge.released("1.0")
        writes = forge.writes
        await forge.released("1.1")
        writes = forge.writes - writes
    for number, moment in ((writes // 2, "before"), (writes // 2 + 1, "after")):
        killed = Forge(url, tmp_path, world, lease=0.4)
        async with killed:
            killed.crash_at = (killed.writes + number, moment)
            with contextlib.suppress(DependencyFailed, TimeoutError):
                release = await killed.deploy(f"2.{number}")
                waiting = asyncio.create_task(killed.releases.wait("production", release, lambda _line: None))
                crash = asyncio.create_task(killed.crashed.wait())
                await asyncio.wait({waiting, crash}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
                for task in (waiting, crash):
                    task.cancel()
        async with Forge(url, tmp_path, world) as successor:
            assert (await successor.released(f"2.{number}"))["status"] == "promoted"
            found = await replay_all(successor.store)
            assert await successor.store.decisions.verify() is None
        assert found.difference is None
        assert found.segments > 5


async def test_tampering_is_found(store_url: str, tmp_path: Path, world: World) -> None:
    """A forged reading with a wrong hash is found by its hash; one with all hashes made anew is found by deciding."""
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        await forge.released("1.1", CANARY)
        stored = await stored_decisions(forge.store)
        number, forged = next(
            (record.seq, changed) for record in stored if (changed := _forge_a_reading(record.body)) is not None
        )
        change(store_url, f"UPDATE decisions SET body = {{}} WHERE seq = {number}", forged)
        assert await forge.store.decisions.verify() == number
        found = await replay_all(forge.store)
        assert found.difference is not None
        assert found.difference.segment == number
        assert found.difference.words
        change(store_url, f"UPDATE decisions SET body = {{}} WHERE seq = {number}", forged[:-7])
        with pytest.raises(CorruptData, match=f"record {number} "):
            await replay_all(forge.store)


def _forge_a_reading(body: bytes) -> bytes | None:
    segment = read(body, 0)
    assert segment.rules == rules()
    for at, tick in enumerate(segment.ticks):
        samples = tick.observation.samples or {}
        serving = [version for version in tick.observation.weights or {} if version in samples]
        if serving and samples[serving[0]].requests:
            sample = msgspec.structs.replace(samples[serving[0]], errors=samples[serving[0]].errors + 1)
            seen = msgspec.structs.replace(tick.observation, samples={**samples, serving[0]: sample})
            ticks = (*segment.ticks[:at], msgspec.structs.replace(tick, observation=seen), *segment.ticks[at + 1 :])
            return zlib.compress(msgspec.json.encode(msgspec.structs.replace(segment, ticks=ticks)))
    return None


@pytest.fixture
async def project(tmp_path: Path, world: World) -> Path:
    """A project with a good and a bad release on record."""
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge" / "pipeline.yaml").write_text("jobs: {a: {steps: [{run: 'true'}]}}\n")
    (tmp_path / ".forge").mkdir()
    async with Forge(f"sqlite:///{tmp_path / '.forge' / 'forge.db'}", tmp_path, world) as forge:
        await forge.released("1.0")
        world.broken.add("1.1")
        await forge.released("1.1")
    return tmp_path


async def command(project: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run a command line as a person does; return its exit code and all that it printed."""
    code = await asyncio.to_thread(run_command, ["-C", str(project), *words])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


async def test_the_commands(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = await command(project, capsys, "audit", "verify")
    assert code == 0, text
    assert text.count("every one fits the chain") == 2
    code, text = await command(project, capsys, "audit", "replay", "production")
    assert code == 0, text
    assert "decisions replayed, all the same" in text
    code, text = await command(project, capsys, "explain", "production-2")
    assert code == 0, text
    assert "production-2 releases 1.1 in production: rolled back" in text
    assert "What decided" in text
    code, text = await command(project, capsys, "explain", "production-2", "-o", "json")
    assert msgspec.json.decode(text)["rolled_back_to"] == "1.0"
    code, text = await command(project, capsys, "explain", "prodction-2")
    assert code == 2
    assert "did you mean `production-2`?" in text
    code, text = await command(project, capsys, "audit", "log", "production", "-o", "json")
    events = msgspec.json.decode(text)
    assert code == 0
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert all(event["hash"] for event in events)
    code, text = await command(project, capsys, "audit", "log", "--decisions", "-o", "json")
    records = msgspec.json.decode(text)
    assert {"now", "observation", "after"} <= records[0]["record"]["ticks"][0].keys()
    code, text = await command(project, capsys, "audit", "log", "--decisions")
    assert "production" in text
    code, text = await command(project, capsys, "audit", "log", "run-9")
    assert code == 2


async def test_the_commands_find_what_was_forged(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{project / '.forge' / 'forge.db'}"
    change(url, "UPDATE decisions SET machine = {} WHERE seq = 3", b"env-7")
    code, text = await command(project, capsys, "audit", "verify")
    assert code == 1
    assert "record 3 is the first that does not fit" in text
    code, text = await command(project, capsys, "audit", "verify", "-o", "json")
    assert code == 1
    assert msgspec.json.decode(text)["decisions"]["first_wrong"] == 3
    change(url, "UPDATE decisions SET body = {} WHERE seq = 3", b"x")
    code, text = await command(project, capsys, "audit", "replay")
    assert code == 1, text
    assert "record 3" in text
