"""Pods that go on though their run is over are told by `forge doctor`, with the command that ends them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import JOB
from forge.adapters.runners.kubernetes_job import end_job
from forge.engine.engine import Engine
from forge.engine.health import check_left_steps
from forge.engine.left_steps import accesses, left_steps
from forge.engine.project import Project
from forge.model.configs import KubernetesAccess
from forge.model.plan import EnvironmentPlan, JobPlan, Plan, Source, StepPlan
from forge.service.local_runs import LocalRuns


async def test_a_pod_whose_run_was_cancelled_while_the_cluster_was_away(
    cluster: Any, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    (root / "forge").mkdir(parents=True)
    (root / "forge" / "pipeline.yaml").write_text("jobs: {}\n")
    project = Project(root)
    access = KubernetesAccess(kubeconfig=str(cluster.kubeconfig), namespace=namespace)
    step = StepPlan("1", "run", "wait", {"script": "echo begun; sleep 300"})
    config = {"image": "debian:12", "access": msgspec.to_builtins(access)}
    plan = Plan("test", (JobPlan("build", "build", (step,), runner="kubernetes", runner_config=config),), Source(""))
    opened = Cluster(access)

    async def is_there(words: str) -> bool:
        log = project.step_log(run_id, "build", 1, "1")
        return log.exists() and words in log.read_text()

    async with Engine.open(project, lease_seconds=1.0) as engine:
        run_id = await engine.start_run(plan, actor="ana")
        async with asyncio.timeout(40):
            await engine.work(lambda: is_there("begun"))
        assert await left_steps(engine.store, str(root)) == []  # its run goes on

        async def away(*_words: object, **_more: object) -> None:
            raise OSError("the cluster is away")

        with monkeypatch.context() as patched:
            patched.setattr("forge.engine.step_performing.StepPerformer.end_left", away)
            await LocalRuns(engine).command(run_id, "cancel", {}, actor="ana")

            async def over() -> bool:
                return (await engine.run_state(run_id))[0].status in {"cancelled", "error", "failed"}

            async with asyncio.timeout(40):
                await engine.work(over)
        (left,) = await left_steps(engine.store, str(root))
        assert left.orphan.run == run_id
        (finding,) = [each async for each in check_left_steps(engine.store, project)]
        assert finding.state == "warn"
        assert finding.message.startswith(f"Job {left.orphan.name} of {run_id} goes on in ")
        assert finding.hint == f"`kubectl --namespace {namespace} delete job {left.orphan.name}` ends it"
        await end_job(opened, left.orphan.name, 1.0)
        assert [each async for each in check_left_steps(engine.store, project)] == []
    assert await opened.get(JOB, left.orphan.name) is None
    await opened.close()


def test_which_clusters_a_plan_uses() -> None:
    one, two, three = ({"context": name} for name in ("one", "two", "three"))
    steps = (StepPlan("1", "job", "m", {"manifest": "m", "environment": "shop", "access": {}}),
             StepPlan("2", "job", "m", {"manifest": "m", "environment": "", "access": two}))  # fmt: skip
    jobs = (JobPlan("a", "a", (), runner="kubernetes", runner_config={"image": "x", "access": one}),
            JobPlan("b", "b", steps), JobPlan("c", "c", (), runner="kubernetes", runner_config={"image": "x", "access": {
                "context": "${{ params.c }}"}}))  # fmt: skip
    environments = (EnvironmentPlan("shop", target="kubernetes", target_config={"access": three}),
                    EnvironmentPlan("other", target="kubernetes", target_config={"access": {"context": "four"}}),
                    EnvironmentPlan("local"))  # fmt: skip
    found = accesses(Plan("p", jobs, Source(""), environments=environments))
    assert {access.context for access in found} == {"one", "two", "three"}


def test_a_project_that_never_ran_anything_asks_no_cluster(tmp_path: Path) -> None:
    async def findings() -> list[Any]:
        async with Engine.open(Project(tmp_path)) as engine:
            return [each async for each in check_left_steps(engine.store, Project(tmp_path))]

    began = time.monotonic()
    assert asyncio.run(findings()) == []
    assert time.monotonic() - began < 10
