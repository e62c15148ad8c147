"""A Kubernetes Job as a step, on a real control plane: its logs, its end, its removal, and workers that leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import JOB, POD
from forge.adapters.kubernetes.sharing import close_shared
from forge.adapters.masking import StepLog
from forge.adapters.steps.base import StepContext, StepResult
from forge.adapters.steps.job import JobStep, end_left
from forge.model.configs import JobStepConfig, KubernetesAccess
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan, JobPlan, Plan, Source, StepPlan

SHELL = ["sh", "-c"]


def manifest(script: str, name: str = "migrate", **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "debian:12", "command": [*SHELL, script], **spec.pop("container", {})}
    pod = {"restartPolicy": "Never", "containers": [container], **spec.pop("pod", {})}
    metadata = {"name": name, **spec.pop("metadata", {})}
    body = {"backoffLimit": 0, "template": {"metadata": spec.pop("labels", {}), "spec": pod}, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": body}


class Bench:
    """Performs `job:` steps in the test's namespace."""

    def __init__(self, folder: Path, cluster: Cluster, access: KubernetesAccess) -> None:
        self.folder, self.cluster, self.access = folder, cluster, access
        self.workspace = folder / "1" / "workspace"
        self.workspace.mkdir(parents=True)
        self.log = folder / "step.log"
        self.told = True

    def context(self, config: JobStepConfig, key: str) -> StepContext:
        environment = EnvironmentPlan(
            "production", target="kubernetes", target_config={"access": msgspec.to_builtins(self.access)}
        )
        step = StepPlan("1", "job", "migrate", msgspec.to_builtins(config))
        job = JobPlan("deploy", "deploy", (step,))
        log = StepLog(self.log)

        async def told() -> bool:
            return self.told

        return StepContext(
            key=key, run="run-1", plan=Plan("p", (job,), Source(""), environments=(environment,)), job=job, step=step,
            attempt=1, actor="ana", workspace=self.workspace, cwd=self.workspace, env={}, output=log, say=log.say,
            runner=None, artifacts=None, index=None, releases=None, project=self.folder, cache=self.folder, now=time.time,
            told_to_stop=told,
        )  # type: ignore[arg-type]  # fmt: skip

    async def run(self, item: Any, *, key: str = "run-1/deploy#1/1#1", **config: Any) -> StepResult:
        text = item if isinstance(item, str) else yaml.safe_dump(item)
        (self.workspace / "job.yaml").write_text(text)
        given = JobStepConfig("job.yaml", "" if "access" in config else "production", **config)
        async with asyncio.timeout(90):
            return await JobStep().run(self.context(given, key))

    @property
    def lines(self) -> list[str]:
        text = self.log.read_text() if self.log.exists() else ""
        return [line for line in text.splitlines() if not line.startswith("forge: ")]

    async def jobs(self) -> list[dict[str, Any]]:
        return (await self.cluster.objects(JOB))[0]

    async def pods(self) -> list[dict[str, Any]]:
        return (await self.cluster.objects(POD))[0]


@pytest.fixture
async def bench(cluster: Any, namespace: str, tmp_path: Path) -> AsyncIterator[Bench]:
    access = KubernetesAccess(kubeconfig=str(cluster.kubeconfig), namespace=namespace)
    opened = Cluster(access)
    yield Bench(tmp_path, opened, access)
    await opened.close()
    await close_shared()


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


async def test_its_log_is_the_steps_and_it_is_removed_when_it_completed(bench: Bench) -> None:
    result = await bench.run(manifest("echo adding; sleep 0.3; echo added"))
    assert result.outcome == "succeeded"
    assert bench.lines == ["adding", "added"]
    assert result.outputs["job"].startswith("migrate-")
    assert result.outputs["namespace"] == bench.access.namespace
    assert await bench.jobs() == []


async def test_a_job_that_fails_tells_its_exit_code_and_is_kept_to_be_looked_at(bench: Bench) -> None:
    result = await bench.run(manifest("echo no such table >&2; exit 3"))
    assert (result.outcome, result.exit_code) == ("failed", 3)
    assert "failed: exit code 3; BackoffLimitExceeded" in result.message
    assert bench.lines == ["no such table"]
    assert len(await bench.jobs()) == 1
    assert "kubectl --namespace" in bench.log.read_text()


@pytest.mark.parametrize(
    ("keep", "script", "kept"), [("never", "exit 1", 0), ("always", "true", 1), ("failed", "true", 0)]
)
async def test_what_is_kept(bench: Bench, keep: Any, script: str, kept: int) -> None:
    await bench.run(manifest(script), keep=keep)
    assert len(await bench.jobs()) == kept


async def test_every_attempt_is_followed(bench: Bench) -> None:
    script = 'if [ -e "$DIR/once" ]; then echo second; else touch "$DIR/once"; echo first; exit 1; fi'
    env = {"env": [{"name": "DIR", "value": str(bench.folder)}]}
    result = await bench.run(manifest(script, container=env, backoffLimit=2))
    assert result.outcome == "succeeded"
    assert bench.lines == ["first", "second"]


async def test_logs_of_pods_at_once_are_told_apart(bench: Bench) -> None:
    env = {"env": [{"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}
    result = await bench.run(manifest('echo "from $ME"', container=env, parallelism=3, completions=3))
    assert result.outcome == "succeeded"
    found = sorted(bench.lines)
    assert len(found) == 3
    assert all(line == f"[{line.split()[-1]}/main] from {line.split()[-1]}" for line in found)


async def test_memory_that_runs_out_is_told(bench: Bench) -> None:
    script = "exec python3 -c 'import time; x = bytearray(200_000_000); time.sleep(20)'"
    limits = {"resources": {"limits": {"memory": "60Mi"}}}
    result = await bench.run(manifest(script, container=limits))
    assert result.outcome == "failed"
    assert "out of memory: it needed more than its limit of 60Mi" in result.message


async def test_an_image_that_is_not_there_is_an_error_and_nothing_starts_later(bench: Bench) -> None:
    with pytest.raises(DependencyFailed, match="cannot be had"):
        await bench.run(manifest("true", labels={"annotations": {"forge.test/fail": "image-error"}}))
    assert await bench.jobs() == []


async def test_stopping_the_step_ends_the_job(bench: Bench) -> None:
    task = asyncio.create_task(
        bench.run(manifest("echo begun; exec sleep 300", pod={"terminationGracePeriodSeconds": 1}))
    )
    await until(lambda: bench.lines == ["begun"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.jobs() == []
    assert await bench.pods() == []


async def test_a_worker_that_leaves_stops_nothing_and_the_next_goes_on_in_the_log(bench: Bench) -> None:
    bench.told = False
    item = manifest("for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.4; done")
    task = asyncio.create_task(bench.run(item))
    await until(lambda: len(bench.lines) >= 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(await bench.jobs()) == 1
    result = await bench.run(item)
    assert result.outcome == "succeeded"
    assert bench.lines == [f"line {number}" for number in range(1, 10)]


async def test_what_nobody_waits_for_any_more_is_ended_by_its_key(bench: Bench) -> None:
    bench.told = False
    item = manifest("echo begun; exec sleep 300", pod={"terminationGracePeriodSeconds": 1})
    task = asyncio.create_task(bench.run(item))
    await until(lambda: bench.lines == ["begun"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    plan = bench.context(JobStepConfig("job.yaml", "production"), "x").plan
    config = msgspec.to_builtins(JobStepConfig("job.yaml", "production"))
    await end_left(plan, config, "run-1/other#1/1#1", bench.folder)
    assert len(await bench.jobs()) == 1
    await end_left(plan, config, "run-1/deploy#1/1#1", bench.folder)
    assert await bench.jobs() == []


async def test_two_executions_of_one_manifest_do_not_meet(bench: Bench) -> None:
    item = manifest("echo done")
    results = await asyncio.gather(bench.run(item), bench.run(item, key="run-2/deploy#1/1#1"))
    assert [result.outcome for result in results] == ["succeeded", "succeeded"]
    assert len({result.outputs["job"] for result in results}) == 2


async def test_a_job_that_somebody_deletes_is_an_error(bench: Bench) -> None:
    task = asyncio.create_task(
        bench.run(manifest("echo begun; exec sleep 60", pod={"terminationGracePeriodSeconds": 1}))
    )
    await until(lambda: bench.lines == ["begun"])
    (job,) = await bench.jobs()
    await bench.cluster.delete(JOB, job["metadata"]["name"])
    with pytest.raises(DependencyFailed, match="was deleted by somebody else"):
        await task


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Deployment\nmetadata: {name: x}\n", "must hold one Job and nothing else; it holds Deployment"),
        ("", "it holds nothing"),
        ("kind: Job\nspec: {}\n", "has a Job without a name"),
        ("kind: Job\nmetadata: {name: x}\nspec: {suspend: true}\n", "it would never end"),
        ("kind: Job\nmetadata: {name: x, namespace: other}\n", "is for namespace other, but the step is for t-"),
        ("kind: Job\n  metadata: [\n", "job.yaml"),
        (
            "kind: Job\nmetadata: {name: x, annotations: {forge.dev/migration: contract}}\n",
            "without a `forge.dev/since`",
        ),
    ],
)
async def test_a_manifest_that_does_not_fit_is_a_failure_in_words(bench: Bench, text: str, words: str) -> None:
    result = await bench.run(text)
    assert result.outcome == "failed"
    assert words in result.message


async def test_a_job_that_the_cluster_does_not_take_is_told(bench: Bench) -> None:
    with pytest.raises(DependencyFailed, match="restartPolicy"):
        await bench.run(manifest("true", pod={"restartPolicy": "Always"}))
    assert await bench.jobs() == []
