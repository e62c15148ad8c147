"""Whole runs whose commands are pods: artifacts, outputs, secrets, cancelling, time limits, and workers that die."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import JOB, POD, SECRET
from forge.core.pipeline.state import RunState
from forge.engine.engine import Engine
from forge.engine.project import Project
from forge.model.configs import KubernetesAccess
from forge.model.plan import JobPlan, Plan, SecretReference, Source, StepPlan
from forge.service.local_runs import LocalRuns

FINAL = {"succeeded", "failed", "cancelled", "rejected", "error"}
WORKER = """
import asyncio, sys
from pathlib import Path
from forge.engine.engine import Engine
from forge.engine.project import Project

async def main():
    async with Engine.open(Project(Path(sys.argv[1])), lease_seconds=1.0) as engine:
        await engine.work()

asyncio.run(main())
"""


class Bench:
    """A project on this machine whose jobs run in pods of the test's namespace."""

    def __init__(self, root: Path, access: KubernetesAccess, cluster: Cluster) -> None:
        self.project = Project(root)
        self.access = access
        self.cluster = cluster

    def job(self, name: str, *steps: StepPlan, shared: bool = False, **fields: Any) -> JobPlan:
        config = {"image": "debian:12", "access": msgspec.to_builtins(self.access)}
        if shared:
            config["host_path"] = str(self.project.root)
        numbered = tuple(msgspec.structs.replace(step, id=step.id or str(n)) for n, step in enumerate(steps, 1))
        return JobPlan(name, name, numbered, runner="kubernetes", runner_config=config, **fields)

    def engine(self) -> Any:
        return Engine.open(self.project, lease_seconds=1.0)

    def log(self, run: str, job: str, step: str = "1") -> str:
        path = self.project.step_log(run, job, 1, step)
        return path.read_text() if path.exists() else ""

    async def left(self) -> list[str]:
        names = []
        for kind in (JOB, POD, SECRET):
            found, _ = await self.cluster.objects(kind, labels="app.kubernetes.io/managed-by=forge")
            names += [one["metadata"]["name"] for one in found]
        return names

    async def nothing_is_left(self) -> bool:
        deadline = time.monotonic() + 15
        while await self.left():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.2)
        return True


@pytest.fixture
async def bench(cluster: Any, namespace: str, tmp_path: Path) -> AsyncIterator[Bench]:
    root = tmp_path / "project"
    (root / "forge").mkdir(parents=True)
    (root / "forge" / "pipeline.yaml").write_text("jobs: {}\n")
    access = KubernetesAccess(kubeconfig=str(cluster.kubeconfig), namespace=namespace)
    opened = Cluster(access)
    yield Bench(root, access, opened)
    await opened.close()


def run(script: str, **fields: Any) -> StepPlan:
    return StepPlan(fields.pop("id", ""), "run", script.splitlines()[0], {"script": script}, **fields)


async def finish(engine: Engine, run_id: str, seconds: float = 60) -> RunState:
    async def over() -> bool:
        return (await engine.run_state(run_id))[0].status in FINAL

    async with asyncio.timeout(seconds):
        await engine.work(over)
    return (await engine.run_state(run_id))[0]


async def work_until(engine: Engine, condition: Callable[[], bool], seconds: float = 40) -> None:
    async def met() -> bool:
        return condition()

    async with asyncio.timeout(seconds):
        await engine.work(met)


async def test_steps_in_pods_and_on_the_machine_work_on_one_workspace(bench: Bench, monkeypatch: Any) -> None:
    monkeypatch.setenv("FROM_TOKEN", "hunter22")
    build = bench.job(
        "build",
        run(
            'echo "token $TOKEN"; echo "HOME $HOME"; mkdir out; echo made > out/app; echo "version=1.4" >> "$FORGE_OUTPUT"',
            id="make",
        ),
        StepPlan("", "publish", "publish", {"name": "app", "path": "out/app"}),
    )
    check = bench.job(
        "check",
        StepPlan("", "download", "download", {"name": "app"}),
        run('cat app; echo "$GOT of $FORGE_RUN in $PWD"', env={"GOT": "${{ jobs.build.outputs.version }}"}),
        depends_on=("build",),
    )
    plan = Plan("test", (build, check), Source(""), secrets=(SecretReference("TOKEN", env="FROM_TOKEN"),))
    async with bench.engine() as engine:
        run_id = await engine.start_run(plan, actor="ana")
        state = await finish(engine, run_id)
        published = await engine.artifacts_of(run_id)
    assert {name: job.status for name, job in state.jobs.items()} == {"build": "succeeded", "check": "succeeded"}
    assert "token ***" in bench.log(run_id, "build", "make")
    assert "hunter22" not in bench.log(run_id, "build", "make")
    assert f"made\n1.4 of {run_id} in /workspace\n" in bench.log(run_id, "check", "2")
    assert state.jobs["build"].steps["make"].outputs == {"version": "1.4"}
    assert [artifact.name for artifact in published] == ["app"]
    assert await bench.nothing_is_left()


async def test_what_is_no_command_happens_on_the_workers_machine(bench: Bench, tmp_path: Path) -> None:
    """A checkout asks this machine's git, with what this machine has to log in by; the pod only sees the files."""
    origin = tmp_path / "origin"
    origin.mkdir()
    for words in (
        ["init", "-q", "-b", "main"],
        ["config", "user.email", "a@example.org"],
        ["config", "user.name", "a"],
    ):
        await git(origin, *words)
    (origin / "app.txt").write_text("from git")
    await git(origin, "add", ".")
    await git(origin, "commit", "-q", "-m", "first")
    checkout = {"repository": str(origin), "ref": "main", "into": "."}
    job = bench.job("build", StepPlan("", "checkout", "checkout", checkout), run("cat app.txt"))
    async with bench.engine() as engine:
        run_id = await engine.start_run(Plan("test", (job,), Source("")), actor="ana")
        state = await finish(engine, run_id)
    assert state.status == "succeeded", state.jobs["build"].message
    assert "from git" in bench.log(run_id, "build", "2")
    assert "Pod" not in bench.log(run_id, "build", "1")


async def git(folder: Path, *words: str) -> None:
    process = await asyncio.create_subprocess_exec("git", *words, cwd=folder)
    assert await process.wait() == 0


async def test_a_command_that_fails_in_a_pod_fails_its_job_and_cleans_up_in_pods(bench: Bench) -> None:
    clean = StepPlan("always-1", "run", "clean", {"script": "echo cleaned; cat left"}, run_on="always")
    job = bench.job("build", run("echo left > left; exit 3"), clean, shared=True)
    async with bench.engine() as engine:
        run_id = await engine.start_run(Plan("test", (job,), Source("")), actor="ana")
        state = await finish(engine, run_id)
    assert state.status == "failed"
    assert state.jobs["build"].steps["1"].exit_code == 3
    assert "cleaned\nleft\n" in bench.log(run_id, "build", "always-1")


async def test_cancelling_a_run_that_no_worker_tends_ends_its_pod_all_the_same(bench: Bench) -> None:
    job = bench.job("build", run("echo begun; sleep 300"))
    async with bench.engine() as engine:
        run_id = await engine.start_run(Plan("test", (job,), Source("")), actor="ana")
        await work_until(engine, lambda: "begun" in bench.log(run_id, "build"))
        assert await bench.left()
        await LocalRuns(engine).command(run_id, "cancel", {}, actor="ana")
        assert (await finish(engine, run_id)).status == "cancelled"
    assert await bench.nothing_is_left()


async def test_cancelling_while_its_worker_works_ends_the_pod_before_the_run(bench: Bench) -> None:
    job = bench.job("build", run("echo begun; sleep 300"))
    async with bench.engine() as engine:
        run_id = await engine.start_run(Plan("test", (job,), Source("")), actor="ana")

        async def cancel() -> None:
            while "begun" not in bench.log(run_id, "build"):
                await asyncio.sleep(0.05)
            await LocalRuns(engine).command(run_id, "cancel", {}, actor="ana")

        _, state = await asyncio.gather(cancel(), finish(engine, run_id))
        pods, _ = await bench.cluster.objects(POD)
    assert state.status == "cancelled"
    assert pods == []


@pytest.mark.parametrize("limit", ["step", "job"])
async def test_time_limits_end_the_pod(bench: Bench, limit: str) -> None:
    step = run("echo begun; sleep 300", timeout=4.0 if limit == "step" else None)
    job = bench.job("build", step, timeout=4.0 if limit == "job" else None)
    async with bench.engine() as engine:
        run_id = await engine.start_run(Plan("test", (job,), Source("")), actor="ana")
        state = await finish(engine, run_id)
    assert state.jobs["build"].steps["1"].status == "timed_out"
    assert await bench.nothing_is_left()


COUNTING = "i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo a=b >> $FORGE_OUTPUT"


def counted(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("line ")]


@pytest.mark.parametrize("shared", [False, True])
async def test_a_worker_that_leaves_does_not_stop_the_pod_and_the_next_follows_it(bench: Bench, shared: bool) -> None:
    job = bench.job("build", run(COUNTING), shared=shared)
    async with bench.engine() as engine:
        run_id = await engine.start_run(Plan("test", (job,), Source("")), actor="ana")
        await work_until(engine, lambda: "line 5\n" in bench.log(run_id, "build"))
    assert len([name for name in await bench.left() if name]) == 3  # the Job, its pod, its Secret
    await asyncio.sleep(0.7)
    async with bench.engine() as engine:
        state = await finish(engine, run_id)
    log = bench.log(run_id, "build")
    assert state.status == "succeeded"
    assert state.jobs["build"].steps["1"].outputs == {"a": "b"}
    assert counted(log) == [f"line {number}" for number in range(1, 51)]
    assert "it is followed again" in log
    assert await bench.nothing_is_left()


async def test_a_step_that_must_not_run_twice_is_lost_and_its_pod_ended(bench: Bench) -> None:
    job = bench.job("build", run("echo begun; sleep 300", on_crash="report"))
    async with bench.engine() as engine:
        run_id = await engine.start_run(Plan("test", (job,), Source("")), actor="ana")
        await work_until(engine, lambda: "begun" in bench.log(run_id, "build"))
    async with bench.engine() as engine:
        state = await finish(engine, run_id)
    assert state.jobs["build"].steps["1"].status == "error"
    assert "its worker ended while it was under way" in state.jobs["build"].message
    assert await bench.nothing_is_left()


def started_worker(project: Project) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(project.root)], env=dict(os.environ))


async def test_a_worker_that_is_killed_does_not_stop_the_pod(bench: Bench) -> None:
    job = bench.job("build", run(COUNTING))
    async with bench.engine() as engine:
        run_id = await engine.start_run(Plan("test", (job,), Source("")), actor="ana")
    worker = started_worker(bench.project)
    try:
        deadline = time.monotonic() + 40
        while "line 5\n" not in bench.log(run_id, "build"):
            assert worker.poll() is None
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    async with bench.engine() as engine:
        state = await finish(engine, run_id)
    assert state.status == "succeeded"
    lines = counted(bench.log(run_id, "build"))
    assert list(dict.fromkeys(lines)) == [f"line {number}" for number in range(1, 51)]
    assert len(lines) <= 52  # between writing a line and noting that, a kill may double what was written last
    assert await bench.nothing_is_left()


async def test_what_cannot_be_run_is_an_error_not_a_failure(bench: Bench) -> None:
    config = {"image": "debian:12", "access": {"kubeconfig": str(bench.project.root / "nowhere")}}
    job = JobPlan(
        "build", "build", (msgspec.structs.replace(run("true"), id="1"),), runner="kubernetes", runner_config=config
    )
    async with bench.engine() as engine:
        run_id = await engine.start_run(Plan("test", (job,), Source("")), actor="ana")
        state = await finish(engine, run_id)
    assert state.jobs["build"].status == "error"
    assert "no cluster to talk to" in state.jobs["build"].message
