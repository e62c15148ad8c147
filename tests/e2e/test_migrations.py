"""Expand and contract with everything real: what a contract took away is nowhere to go back to, and that is told
before anything moves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import resolve
from forge.core.pipeline.state import RunState
from forge.core.release.state import EnvironmentState
from forge.engine.engine import Engine
from forge.engine.environments import KIND, EnvironmentMachine
from forge.engine.project import Project
from forge.engine.releases import EngineReleases
from forge.model.migrations import Contract
from forge.model.plan import EnvironmentPlan, Source

FINAL = {"succeeded", "failed", "cancelled", "rejected", "error"}
SERVER = f"{sys.executable} -I -S -m http.server --bind 127.0.0.1 $PORT"
HEAD = f"""\
environments:
  shop:
    target: {{local: {{command: "{SERVER}", replicas: 1, ready: {{tcp: true, interval: 100ms}}, stop_grace: 1s, drain: 0s}}}}
jobs:
  it:
    environment: shop
    steps:
"""


class Bench:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def run(self, *steps: str) -> tuple[RunState, list[str]]:
        """Run a job of these steps; return the run, and what each step said of itself."""
        text = HEAD + "".join(f"      - {step}\n" for step in steps)
        plan = resolve(Sources(read(text, "forge/pipeline.yaml")), {}, Source(""))
        run_id = await self.engine.start_run(plan, actor="ana")

        async def over() -> bool:
            return (await self.engine.run_state(run_id))[0].status in FINAL

        async with asyncio.timeout(90):
            await self.engine.work(over)
        state = (await self.engine.run_state(run_id))[0]
        return state, [step.message for step in state.jobs["it"].steps.values()]

    async def environment(self) -> EnvironmentState:
        machine = await self.engine.store.machines.find(KIND, "shop")
        assert machine is not None
        record = await self.engine.store.machines.load(machine)
        assert record is not None
        return EnvironmentMachine.load(record)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    root = tmp_path / "project"
    (root / "forge").mkdir(parents=True)
    (root / "forge" / "pipeline.yaml").write_text("jobs: {}\n")
    project = Project(root)
    async with Engine.open(project) as engine:
        yield Bench(engine)
    from forge.adapters.targets.local.environment import shutdown

    await shutdown(project.environment_folder("shop"))


def deploy(version: str) -> str:
    return f"deploy: {{environment: shop, version: '{version}', checks: []}}"


def contract(since: str, script: str = "echo dropped >> $FORGE_WORKSPACE/../../../../dropped") -> str:
    return f"{{run: '{script}', name: drop price, migration: {{contract: '{since}'}}}}"


async def test_a_rollback_to_what_cannot_run_any_more_is_refused_before_it_starts(bench: Bench) -> None:
    state, _ = await bench.run(deploy("1.3"))
    assert state.status == "succeeded", state.jobs["it"].message

    early, messages = await bench.run(contract("1.4"))
    assert early.status == "failed"
    assert "this migration was not begun" in messages[0]
    assert "1.3 is stable in shop and needs what `drop price` takes away" in messages[0]
    assert not list(bench.engine.project.state.rglob("dropped"))

    state, _ = await bench.run(deploy("1.4"), contract("1.4"))
    assert state.status == "succeeded", state.jobs["it"].message
    before = await bench.environment()
    assert before.contracts[0].finished_at is not None

    back, messages = await bench.run("rollback: {environment: shop, to: '1.3'}")
    assert back.status == "failed"
    assert (
        f"1.3 cannot run any more: `drop price` of {state.id} took away what versions older than 1.4 need"
        in messages[0]
    )
    plain, messages = await bench.run("rollback: shop")
    assert plain.status == "failed"
    assert "1.3 cannot run any more" in messages[0]

    after = await bench.environment()
    assert after.stable == "1.4"
    assert after.releases == before.releases
    assert after.traffic == before.traffic

    old, messages = await bench.run(deploy("1.3.5"))
    assert old.status == "failed"
    assert "1.3.5 cannot run any more" in messages[0]
    assert "1.3.5" not in (await bench.environment()).versions


async def test_a_contract_of_an_environment_that_has_nothing_yet_is_remembered(bench: Bench) -> None:
    state, _ = await bench.run(contract("2.0"))
    assert state.status == "succeeded", state.jobs["it"].message
    old, messages = await bench.run(deploy("1.9"))
    assert old.status == "failed"
    assert "1.9 cannot run any more" in messages[0]


async def test_a_contract_that_fails_counts_and_an_expand_takes_nothing_away(bench: Bench) -> None:
    state, _ = await bench.run(contract("2.0", "exit 4"))
    assert state.status == "failed"
    (known,) = (await bench.environment()).contracts
    assert known.failed == "exit code 4"
    state, _ = await bench.run("{run: echo added, migration: expand}")
    assert state.status == "succeeded", state.jobs["it"].message
    assert len((await bench.environment()).contracts) == 1


async def test_a_refusal_that_a_dead_worker_heard_is_heard_again_by_the_next(bench: Bench) -> None:
    """The same key asked again must not read as a yes, because the refusal was told before."""
    engine = bench.engine
    environments = EnvironmentMachine(engine.project, engine.artifacts)
    releases = EngineReleases(engine.store, environments)
    contract = Contract("run-1/a#1/1#1", "drop price", "no-such-version", 0.0, 0.0)
    over = asyncio.Event()

    async def until_over() -> bool:
        return over.is_set()

    async def ask() -> list[str]:
        try:
            async with asyncio.timeout(30):
                plan = EnvironmentPlan("shop")
                return [await releases.begin_contract(plan, contract, actor="ana") for _ in range(2)]
        finally:
            over.set()

    answers, _ = await asyncio.gather(ask(), engine.work(until_over))
    assert "is neither a number nor a version of shop" in answers[0]
    assert "has refused it before" in answers[1]
    assert (await bench.environment()).contracts == ()


async def test_who_restored_what_was_dropped_goes_back_all_the_same(bench: Bench) -> None:
    state, _ = await bench.run(deploy("1.3"))
    assert state.status == "succeeded", state.jobs["it"].message
    state, _ = await bench.run(deploy("1.4"), contract("1.4"))
    assert state.status == "succeeded", state.jobs["it"].message
    root = bench.engine.project.root
    (root / "forge" / "pipeline.yaml").write_text(HEAD + "      - run: 'true'\n")
    command = [sys.executable, "-m", "forge", "rollback", "shop", "--to", "1.3"]

    async def called(*more: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *command, *more, cwd=root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    code, words = await called()
    assert code != 0
    assert "1.3 cannot run any more" in words
    assert (await bench.environment()).stable == "1.4"
    code, words = await called("--override", "the column was restored")
    assert code == 0, words
    assert (await bench.environment()).stable == "1.3"
