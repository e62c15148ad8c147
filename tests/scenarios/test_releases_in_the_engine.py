"""Releases through the real worker, the real database and the real core; target, router and signals in memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forge.adapters.artifacts.folder import FolderArtifacts
from forge.adapters.routers.memory import MemoryRouter
from forge.adapters.signals.memory import MemorySignals
from forge.adapters.targets.memory import MemoryTarget
from forge.core.release.state import EnvironmentState
from forge.engine.environments import EnvironmentMachine, status_of
from forge.engine.project import Project
from forge.engine.releases import EngineReleases
from forge.engine.worker import Worker
from forge.model.configs import DeployConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, StrategyStep, Threshold
from forge.model.traffic import Version
from forge.store.database import open_store

PLAN = EnvironmentPlan("production", target_config={"command": ["true"], "replicas": 2})
QUICK_CHECK = (Threshold("error_rate", 0.05, 10.0),)
CHECK = (Threshold("error_rate", 0.05, 10.0, minimum_requests=20),)
CANARY = Strategy(
    "canary",
    steps=(StrategyStep(weight=1000), StrategyStep(pause=0.2), StrategyStep(weight=5000), StrategyStep(pause=0.2)),
    thresholds=CHECK,
    keep_previous=60.0,
)


QUICK = Strategy(
    "canary", steps=(StrategyStep(weight=5000), StrategyStep(pause=0.05)), thresholds=QUICK_CHECK, keep_previous=60.0
)


@dataclass
class World:
    """What outlives Forge: replicas, the proxy, its counters; and users who ask all the time."""

    target: MemoryTarget = field(default_factory=lambda: MemoryTarget(time.time))
    broken: set[str] = field(default_factory=set)
    signals: MemorySignals = field(default_factory=lambda: MemorySignals(time.time))

    def __post_init__(self) -> None:
        self.router = MemoryRouter(time.time, self.target)

    async def ask(self) -> None:
        while True:
            table = await self.router.observed()
            for version, weight in (table.weights if table else {}).items():
                requests = weight // 50
                self.signals.serve(version, requests, errors=requests // 2 if version in self.broken else 0)
            await asyncio.sleep(0.02)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("forge.core.release.decide.INTERVAL", 0.05)
    return World()


class Forge:
    """One process' worth of Forge upon the world; `dead` makes its database unreachable for it, as a kill does."""

    def __init__(self, url: str, folder: Path, world: World, *, lease: float = 10.0) -> None:
        self.url, self.world, self.lease = url, world, lease
        self.project = Project(folder)
        self.writes = 0
        self.crash_at: tuple[int, str] | None = None
        self.crashed = asyncio.Event()

    async def __aenter__(self) -> Forge:
        self.store = await open_store(self.url)
        artifacts = FolderArtifacts(self.project.state / "artifacts")
        self.artifacts = artifacts
        self.machine = EnvironmentMachine(self.project, artifacts, opener=lambda _plan, _folder: self.world)
        self.releases = EngineReleases(self.store, self.machine)
        for family, name in ((self.store.machines, "write"), (self.store.intents, "finish_all")):
            self._guard(family, name)
        worker = Worker(self.store, [self.machine], lease_seconds=self.lease)
        self.stop = asyncio.Event()
        self.tasks = [asyncio.create_task(worker.run(self.stop)), asyncio.create_task(self.world.ask())]
        return self

    def _guard(self, family: Any, name: str) -> None:
        original = getattr(family, name)

        async def guarded(*words: Any, **named: Any) -> Any:
            if self.crashed.is_set():
                raise DependencyFailed("killed")
            self.writes += 1
            if self.crash_at == (self.writes, "before"):
                self.crashed.set()
                raise DependencyFailed("killed")
            result = await original(*words, **named)
            if self.crash_at == (self.writes, "after"):
                self.crashed.set()
                raise DependencyFailed("killed")
            return result

        setattr(family, name, guarded)

    async def __aexit__(self, *_: object) -> None:
        if self.crashed.is_set():
            self.store.machines.let_go_all = self.store.machines.let_go = _nothing  # type: ignore[method-assign]
        self.stop.set()
        self.tasks[1].cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.store.close()

    async def deploy(
        self,
        version: str,
        strategy: Strategy = CANARY,
        *,
        key: str = "",
        plan: EnvironmentPlan = PLAN,
        artifact: str = "",
    ) -> str:
        made = Version(version, artifact=artifact, artifact_name="app.bin" if artifact else "", config={"replicas": 2})
        request = {
            "request": msgspec.to_builtins(DeployConfig("production", version=version, strategy=strategy)),
            "version": msgspec.to_builtins(made),
            "run": "run-1",
        }
        return await self.releases.deploy(plan, request, key=key or f"deploy {version}", actor="ann")

    async def released(self, version: str, strategy: Strategy = CANARY) -> dict[str, Any]:
        release = await self.deploy(version, strategy)
        async with asyncio.timeout(60):
            return await self.releases.wait("production", release, lambda _line: None)

    async def state(self) -> EnvironmentState:
        record = await self.store.machines.load(await self.store.machines.find("environment", "production") or "")
        assert record is not None
        return EnvironmentMachine.load(record)


async def _nothing(*_words: Any, **_named: Any) -> None:
    return None


async def test_a_good_version_is_promoted_and_a_bad_one_goes_back(store_url: str, tmp_path: Path, world: World) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        first = await forge.released("1.0")
        good = await forge.released("1.1")
        world.broken.add("1.2")
        lines: list[str] = []
        release = await forge.deploy("1.2")
        bad = await forge.releases.wait("production", release, lines.append)
        state = await forge.state()

    assert (first["status"], good["status"], bad["status"]) == ("promoted", "promoted", "rolled_back")
    assert state.stable == "1.1"
    assert world.router.applied[-1].weights == {"1.1": 10_000}
    assert bad["failed_requests"] > 0
    assert bad["requests"] > bad["failed_requests"]
    assert good["failed_requests"] == 0
    assert "failed requests so far" in bad["reason"]
    assert any("traffic: " in line for line in lines)


async def test_the_same_key_is_the_same_release(store_url: str, tmp_path: Path, world: World) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        once = await forge.deploy("1.0", key="step 1")
        again = await forge.deploy("1.0", key="step 1")
        await forge.releases.wait("production", once, lambda _line: None)
        state = await forge.state()
    assert once == again
    assert [*state.releases] == [once]


async def test_a_release_survives_the_loss_of_its_worker_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every write: killed just before and just after it, and carried on by another worker."""
    monkeypatch.setattr("forge.core.release.decide.INTERVAL", 0.05)
    async with Forge(f"sqlite:///{tmp_path / 'whole.db'}", tmp_path, World()) as forge:
        assert (await forge.released("1.0", QUICK))["status"] == "promoted"
        before = forge.writes
        assert (await forge.released("1.1", QUICK))["status"] == "promoted"
        count = forge.writes - before
    assert count > 5
    cases = [(number, moment) for number in range(1, count + 1) for moment in ("before", "after")]
    together = asyncio.Semaphore(8)

    async def case(number: int, moment: str) -> None:
        async with together:
            folder = tmp_path / f"{number}{moment}"
            await _killed_at(f"sqlite:///{tmp_path / f'{number}{moment}.db'}", folder, number, moment)

    await asyncio.gather(*(case(number, moment) for number, moment in cases))


async def _killed_at(url: str, folder: Path, number: int, moment: str) -> None:
    world = World()
    async with Forge(url, folder, world) as forge:
        await forge.released("1.0", QUICK)
    killed = Forge(url, folder, world, lease=0.4)
    killed.crash_at = (number, moment)
    async with killed:
        waiting = asyncio.create_task(killed.released("1.1", QUICK))
        crash = asyncio.create_task(killed.crashed.wait())
        await asyncio.wait({waiting, crash}, return_when=asyncio.FIRST_COMPLETED)
        for task in (waiting, crash):
            task.cancel()
        await asyncio.gather(waiting, crash, return_exceptions=True)
    async with Forge(url, folder, world) as successor:
        release = await successor.deploy("1.1", QUICK)
        async with asyncio.timeout(60):
            view = await successor.releases.wait("production", release, lambda _line: None)
        state = await successor.state()
        problem = await successor.store.log.verify()
    where = f"killed {moment} write {number}"
    assert view["status"] == "promoted", where
    assert state.stable == "1.1", where
    assert [*state.releases] == ["production-1", "production-2"], where
    assert world.router.applied[-1].weights == {"1.1": 10_000}, where
    assert all(sum(table.weights.values()) == 10_000 for table in world.router.applied), where
    assert problem is None, where


async def test_a_command_without_effect_says_why(store_url: str, tmp_path: Path, world: World) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        refusal = await forge.releases.command("production", "abort", {}, key="a", actor="ben")
        nowhere = await forge.releases.command("production", "rollback", {}, key="b", actor="ben")
    assert "no release is under way" in refusal
    assert "nothing was rolled back" in nowhere


async def test_a_rollback_goes_back_to_the_version_before(store_url: str, tmp_path: Path, world: World) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        await forge.released("1.1")
        assert await forge.releases.command("production", "rollback", {}, key="r", actor="ben") == ""
        async with asyncio.timeout(10):
            while not (view := await forge.releases.view("production"))["settled"]:
                await asyncio.sleep(0.02)
    assert view["stable"] == "1.0"
    assert world.router.applied[-1].weights == {"1.0": 10_000}


async def test_metrics_that_are_away_hold_a_release_and_it_goes_on_when_they_are_back(
    store_url: str, tmp_path: Path, world: World
) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        world.signals.unreachable = True
        release = await forge.deploy("1.1")
        await asyncio.sleep(1.0)
        held = await forge.state()
        world.signals.unreachable = False
        view = await forge.releases.wait("production", release, lambda _line: None)
    assert held.releases[release].status not in {"promoted", "rolled_back"}
    assert "metrics" in held.releases[release].waits_for
    assert view["status"] == "promoted"


async def test_a_target_that_is_away_changes_nothing_and_says_so(store_url: str, tmp_path: Path, world: World) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        world.target.unreachable = True
        release = await forge.deploy("1.1")
        await asyncio.sleep(0.5)
        assert world.router.applied[-1].weights == {"1.0": 10_000}
        held = (await forge.state()).releases[release]
        world.target.unreachable = False
        view = await forge.releases.wait("production", release, lambda _line: None)
    assert view["status"] == "promoted"
    assert "cannot be reached" in held.waits_for


async def _judged(forge: Forge, thresholds: tuple[Threshold, ...], *, exceeded: bool) -> list[dict[str, Any]]:
    """Read again until the limit is judged that way, for ten seconds at most."""
    for _ in range(100):
        found = await forge.releases.examine("production", thresholds)
        if found[0]["exceeded"] is exceeded:
            break
        await asyncio.sleep(0.1)
    return found


async def test_thresholds_are_held_against_the_stable_version(store_url: str, tmp_path: Path, world: World) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        within = await _judged(forge, CHECK, exceeded=False)
        world.broken.add("1.0")
        above = await _judged(forge, (Threshold("error_rate", 0.05, 1.0),), exceeded=True)
        world.signals.unreachable = True
        unknown = await forge.releases.examine("production", CHECK)
    assert within[0]["exceeded"] is False
    assert above[0]["exceeded"] is True
    assert unknown[0]["exceeded"] is None
    assert "cannot be read" in unknown[0]["why"]


async def test_nobody_asking_is_a_pass_only_where_no_request_is_required(
    store_url: str, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "ask", _nothing)
    rolling = Strategy("rolling", thresholds=())
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0", rolling)
        world.signals.serve("1.0", 0)
        await forge.releases.examine("production", CHECK)
        strict = await forge.releases.examine("production", (Threshold("error_rate", 0.05),))
        lenient = await forge.releases.examine("production", (Threshold("error_rate", 0.05, minimum_requests=0),))
    assert strict[0]["exceeded"] is None
    assert lenient[0]["exceeded"] is False


async def test_an_artifact_is_fetched_for_the_target_and_a_lost_one_is_told(
    store_url: str, tmp_path: Path, world: World
) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        (tmp_path / "app").write_text("program")
        digest = await forge.artifacts.put(tmp_path / "app")
        await forge.deploy("1.0", artifact=digest, key="with artifact")
        async with asyncio.timeout(10):
            while not (await forge.releases.view("production"))["settled"]:
                await asyncio.sleep(0.02)
        path = world.target.artifacts["1.0"]
        await forge.deploy("1.1", artifact="0" * 64, key="without")
        await asyncio.sleep(0.5)
        events = [stored.event.message for stored in await forge.store.log.read(limit=1000)]
    assert path is not None
    assert Path(path).read_text() == "program"
    assert Path(path).name == "app.bin"
    assert any("is not stored" in message for message in events)


async def test_asking_of_an_environment_without_releases_is_an_error(
    store_url: str, tmp_path: Path, world: World
) -> None:
    async with Forge(store_url, tmp_path, world) as forge:
        with pytest.raises(UsageError, match="nothing was released to staging"):
            await forge.releases.view("staging")


async def test_a_stale_worker_changes_nothing_in_the_world(tmp_path: Path, world: World) -> None:
    """The successor's token is larger, and the target refuses the older one."""
    url = f"sqlite:///{tmp_path / 'forge.db'}"
    async with Forge(url, tmp_path, world) as forge:
        await forge.released("1.0")
        first = world.target.fence.token
    async with Forge(url, tmp_path, world) as forge:
        await forge.released("1.1")
    assert world.target.fence.token > first


async def test_the_status_of_an_environment_in_one_word(store_url: str, tmp_path: Path, world: World) -> None:
    assert status_of(EnvironmentState("production", PLAN)) == "empty"
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        assert status_of(await forge.state()) == "stable"
        slow = msgspec.structs.replace(CANARY, steps=(StrategyStep(weight=1000), StrategyStep(until_resumed=True)))
        await forge.deploy("1.1", slow)
        async with asyncio.timeout(10):
            while status_of(await forge.state()) != "paused":
                await asyncio.sleep(0.02)
        await forge.releases.command("production", "abort", {}, key="x", actor="ben")


async def test_an_environment_that_was_taken_down_stays_down_until_it_is_needed(
    store_url: str, tmp_path: Path, world: World
) -> None:
    """Also when a warm version of before was about to be removed at a later time."""
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        await forge.released("1.1", msgspec.structs.replace(CANARY, keep_previous=0.5))
        assert await forge.releases.command("production", "down", {}, key="d", actor="ben") == ""
        world.target.unreachable = True  # as if everything had been ended
        events = len(await forge.store.log.read(limit=1000))
        await asyncio.sleep(1.0)
        quiet = len(await forge.store.log.read(limit=1000))
        assert (await forge.state()).down
        world.target.unreachable = False
        view = await forge.released("1.2")
        state = await forge.state()
    assert quiet == events
    assert view["status"] == "promoted"
    assert (state.down, state.stable) == (False, "1.2")


async def test_an_environment_with_a_release_under_way_is_not_taken_down(
    store_url: str, tmp_path: Path, world: World
) -> None:
    slow = msgspec.structs.replace(CANARY, steps=(StrategyStep(weight=1000), StrategyStep(until_resumed=True)))
    async with Forge(store_url, tmp_path, world) as forge:
        await forge.released("1.0")
        release = await forge.deploy("1.1", slow)
        refusal = await forge.releases.command("production", "down", {}, key="d", actor="ben")
        assert not (await forge.state()).down
    assert f"{release} is under way" in refusal
