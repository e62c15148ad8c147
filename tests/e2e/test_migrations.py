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
from forge.model.plan import Source

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
