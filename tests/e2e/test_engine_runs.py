"""The engine with everything real: database, worker, processes, artifacts, files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forge.adapters import source
from forge.engine.engine import Engine
from forge.engine.project import Project
from forge.model.plan import Approval, JobPlan, Plan, Retry, SecretReference, Source, StepPlan

FINAL = {"succeeded", "failed", "cancelled", "rejected", "error"}


def run(script: str, **fields) -> StepPlan:
    identifier = fields.pop("id", "1")
    return StepPlan(identifier, "run", script.splitlines()[0], {"script": script}, **fields)


def steps(*made: StepPlan) -> tuple[StepPlan, ...]:
    """Number the steps as the resolver does."""
    import msgspec

    return tuple(msgspec.structs.replace(step, id=str(number)) for number, step in enumerate(made, 1))


def job(name: str, *made: StepPlan, **fields) -> JobPlan:
    return JobPlan(name, name, steps(*made), **fields)


def pipeline(*jobs: JobPlan, **fields) -> Plan:
    return Plan("test", jobs, fields.pop("source", Source("")), **fields)


@pytest.fixture
def project(tmp_path) -> Project:
    root = tmp_path / "project"
    (root / "forge").mkdir(parents=True)
    (root / "forge" / "pipeline.yaml").write_text("jobs: {}\n")
    return Project(root)


@pytest.fixture
async def engine(project):
    async with Engine.open(project, max_parallel=2) as opened:
        yield opened


async def finish(engine: Engine, run_id: str, *statuses: str, seconds: float = 30):
    """Work until the run is final, or in one of `statuses`; return its state."""

    async def over() -> bool:
        state, _ = await engine.run_state(run_id)
        return state.status in (statuses or FINAL)

    async with asyncio.timeout(seconds):
        await engine.work(over)
    return (await engine.run_state(run_id))[0]


def log_of(engine: Engine, run_id: str, job_name: str, step: str = "1", attempt: int = 1) -> str:
    return engine.project.step_log(run_id, job_name, attempt, step).read_text()


async def events(engine: Engine, run_id: str) -> list[str]:
    return [stored.event.kind for stored in await engine.store.log.read(run_id)]


async def test_goes_from_source_to_a_shipped_artifact_past_a_gate(engine, project, tmp_path):
    (project.root / "app.txt").write_text("the app\n")
    (project.root / "k8s").mkdir()
    (project.root / "k8s" / "deployment.yaml").write_text("kind: Deployment\n")
    taken = await source.snapshot(project.root, engine.artifacts, tmp_path / "scratch")
    shipped = tmp_path / "shipped"
    ship = f"cat myapp.tar.gz k8s/deployment.yaml >> {shipped}"
    plan = pipeline(
        job(
            "build_and_test",
            StepPlan("", "checkout", "checkout .", {"path": "."}),
            run("cp app.txt myapp.tar.gz"),
            run("test -s myapp.tar.gz"),
            StepPlan("", "publish", "publish", {"name": "myapp.tar.gz"}),
        ),
        job(
            "deploy_staging",
            StepPlan("", "download", "download", {"name": "myapp.tar.gz"}),
            run(ship),
            depends_on=("build_and_test",),
        ),
        job(
            "deploy_production",
            StepPlan("", "download", "download", {"name": "myapp.tar.gz"}),
            run(ship),
            depends_on=("deploy_staging",),
            gate=Approval(),
        ),
        source=taken,
    )
    run_id = await engine.start_run(plan, actor="ana")
    waiting = await finish(engine, run_id, "waiting")
    assert waiting.jobs["deploy_production"].status == "waiting_approval"
    assert "approval" in waiting.waits_for
    assert shipped.read_text() == "the app\nkind: Deployment\n"

    await engine.approve(run_id, "deploy_production", actor="ben")
    done = await finish(engine, run_id)
    assert done.status == "succeeded", done.message
    assert shipped.read_text() == "the app\nkind: Deployment\n" * 2
    assert [artifact.name for artifact in await engine.artifacts_of(run_id)] == ["myapp.tar.gz"]
    assert await engine.store.log.verify() is None
