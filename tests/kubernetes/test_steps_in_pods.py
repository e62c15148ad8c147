"""A step's command in a pod of a real cluster: what is kept secret, followed, found again, told and cleaned up."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.fixtures import fresh_namespace
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import JOB, NAMESPACE, POD, SECRET
from forge.adapters.runners.base import Finished, StepFiles
from forge.adapters.runners.kubernetes_job import KubernetesRunner
from forge.adapters.runners.kubernetes_orphans import find_orphans, remove_orphan
from forge.model.configs import KubernetesAccess, KubernetesRunnerConfig
from forge.model.errors import DependencyFailed

KEY = "run-7/build#1/2#1"


class Kept:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.splitlines() if not line.startswith("forge: ")]


class Bench:
    """One project on one cluster; `runner()` is a worker's, another call another worker's."""

    def __init__(self, cluster: Cluster, access: KubernetesAccess, folder: Path) -> None:
        self.cluster = cluster
        self._access = access
        self.folder = folder
        self.workspace = folder / "job" / "1" / "workspace"
        self.workspace.mkdir(parents=True)
        self.script = self.workspace.parent / "step.script"
        self.outputs = self.workspace.parent / "step.outputs"
        self.outputs.write_text("")

    def runner(self, told: Callable[[], Awaitable[bool]] | None = None, **config: Any) -> KubernetesRunner:
        shared = {} if config.pop("carried", False) else {"host_path": str(self.folder)}
        settings = KubernetesRunnerConfig("debian:12", access=self._access, **{**shared, **config})
        more = {"told_to_stop": told} if told else {}
        return KubernetesRunner(settings, self.cluster, scope=str(self.folder), **more)

    async def run(self, runner: KubernetesRunner, script: str, output: Kept, **options: Any) -> Finished:
        self.script.write_text(script)
        env = {"TOKEN": "hunter22", "OUT": str(self.outputs), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        async with asyncio.timeout(90):
            return await runner.run(
                ["sh", "-eu", str(self.script)], key=options.pop("key", KEY), cwd=self.workspace, env=env, output=output,
                files=StepFiles(self.workspace, (self.script,), (self.outputs,)), **options,
            )  # fmt: skip

    async def names(self, kind: Any) -> list[str]:
        found, _ = await self.cluster.objects(kind, labels="app.kubernetes.io/managed-by=forge")
        return [one["metadata"]["name"] for one in found]

    async def nothing_is_left(self) -> bool:
        deadline = time.monotonic() + 15
        while any([await self.names(kind) for kind in (JOB, POD, SECRET)]):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.2)
        return True


@pytest.fixture
async def bench(cluster: Any, namespace: str, tmp_path: Path) -> AsyncIterator[Bench]:
    access = KubernetesAccess(kubeconfig=str(cluster.kubeconfig), namespace=namespace)
    opened = Cluster(access)
    yield Bench(opened, access, tmp_path)
    await opened.close()


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


async def never() -> bool:
    return False


async def test_secrets_are_in_a_secret_alone_and_go_with_the_step(bench: Bench) -> None:
    output = Kept()
    task = asyncio.create_task(
        bench.run(bench.runner(), 'echo "begun $TOKEN"; until [ -e go ]; do sleep 0.1; done', output)
    )
    await until(lambda: "begun hunter22" in output.text)
    jobs, _ = await bench.cluster.objects(JOB)
    pods, _ = await bench.cluster.objects(POD)
    (secret,) = await bench.names(SECRET)
    assert "hunter22" not in json.dumps([jobs, pods])
    stored = await bench.cluster.get(SECRET, secret)
    assert stored is not None
    assert stored["metadata"]["ownerReferences"][0]["uid"] == jobs[0]["metadata"]["uid"]
    (bench.workspace / "go").touch()
    assert (await task).exit_code == 0
    assert await bench.nothing_is_left()


@pytest.mark.parametrize("carried", [False, True])
async def test_a_restarted_worker_finds_the_command_and_goes_on_where_the_log_was(bench: Bench, carried: bool) -> None:
    """The command runs once; its workspace, outputs and every line arrive, whoever was there when."""
    output = Kept()
    script = 'i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo a=b >> "$OUT"; echo x > made'
    first = asyncio.create_task(bench.run(bench.runner(never, carried=carried), script, output))
    for seen in (5, 20):  # twice: the second worker leaves, too
        await until(lambda seen=seen: len(output.lines) >= seen)  # type: ignore[misc]
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await asyncio.sleep(0.5)  # nobody follows for a moment
        first = asyncio.create_task(bench.run(bench.runner(never, carried=carried), script, output))
    finished = await first
    assert finished.exit_code == 0
    assert output.lines == [f"line {number}" for number in range(1, 61)]
    assert bench.outputs.read_text() == "a=b\n"
    assert (bench.workspace / "made").read_text() == "x\n"
    assert await bench.nothing_is_left()


async def test_a_command_that_ended_while_nobody_was_there_is_found_with_its_end(bench: Bench) -> None:
    output = Kept()
    runner = bench.runner(never)
    task = asyncio.create_task(bench.run(runner, "echo begun; sleep 1; echo ended; exit 4", output))
    await until(lambda: "begun" in output.text)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(2.5)
    again = Kept()
    assert (await bench.run(bench.runner(never), "echo must not run", again)).exit_code == 4
    assert output.lines + again.lines == ["begun", "ended"]


async def test_a_worker_that_died_between_two_writes_leaves_a_job_that_the_next_one_begins(bench: Bench) -> None:
    """The Job is there, still suspended, without its Secret."""
    failing = bench.runner()
    create, calls = bench.cluster.create, []

    async def dies(item: Any, **options: Any) -> Any:
        if item["kind"] == "Secret":
            raise asyncio.CancelledError
        calls.append(item["kind"])
        return await create(item, **options)

    bench.cluster.create = dies  # type: ignore[method-assign]
    failing._told_to_stop = never
    with pytest.raises(asyncio.CancelledError):
        await bench.run(failing, "echo hello $TOKEN", Kept())
    bench.cluster.create = create  # type: ignore[method-assign]
    assert calls == ["Job"]
    assert await bench.names(POD) == []
    output = Kept()
    assert (await bench.run(bench.runner(), "echo hello $TOKEN", output)).exit_code == 0
    assert output.lines == ["hello hunter22"]


async def test_memory_that_runs_out_is_told_with_its_limit(bench: Bench) -> None:
    runner = bench.runner(limits={"memory": "60Mi"})
    script = "python3 -c 'import time; x = bytearray(200_000_000); time.sleep(30)'"
    finished = await bench.run(runner, script, Kept())
    assert finished.exit_code == 137
    assert finished.reason == "out of memory: it needed more than its limit of 60Mi"


async def test_an_image_that_is_not_there_is_an_error_within_seconds(bench: Bench) -> None:
    began = time.monotonic()
    with pytest.raises(DependencyFailed, match=r"the image debian:12 cannot be had: ErrImagePull: .*not found"):
        await bench.run(bench.runner(annotations={"forge.test/fail": "image-error"}), "true", Kept())
    assert time.monotonic() - began < 15
    assert await bench.nothing_is_left()


async def test_a_pod_that_no_node_takes_says_so_at_once_and_ends_at_its_limit(bench: Bench) -> None:
    output = Kept()
    runner = bench.runner(node_selector={"disk": "none-has-it"}, start_timeout=4.0)
    with pytest.raises(DependencyFailed, match=r"no node takes the pod: .*node affinity/selector"):
        await bench.run(runner, "true", output)
    assert output.text.count("no node takes the pod") == 1
    assert await bench.nothing_is_left()


async def test_a_quota_that_is_used_up_is_told(bench: Bench) -> None:
    quota = {
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}},
    }  # fmt: skip
    await bench.cluster.apply({**quota, "metadata": {"name": "none"}})
    await asyncio.sleep(1.0)  # until its controller has counted
    output = Kept()
    with pytest.raises(DependencyFailed, match=r"the pod did not begin within 8.0s: .*exceeded quota"):
        await bench.run(bench.runner(start_timeout=8.0), "true", output)
    assert "no pod is made: " in output.text


async def test_a_pod_that_somebody_deletes_is_an_error_of_the_cluster_not_of_the_work(bench: Bench) -> None:
    output = Kept()
    task = asyncio.create_task(bench.run(bench.runner(), "echo begun; sleep 60", output))
    await until(lambda: "begun" in output.text)
    (pod,) = await bench.names(POD)
    await bench.cluster.delete(POD, pod)
    with pytest.raises(DependencyFailed, match=r"the pod was deleted by somebody else|did not come to its end"):
        await task
    assert await bench.nothing_is_left()


async def test_a_secret_of_the_cluster_that_is_not_there_is_told(bench: Bench) -> None:
    runner = bench.runner(env_secrets=("registry",), start_timeout=20.0)
    with pytest.raises(DependencyFailed, match=r'cannot be started: .*"?registry"? not found'):
        await bench.run(runner, "true", Kept())


async def test_secrets_and_config_maps_of_the_cluster_are_in_the_environment(bench: Bench) -> None:
    await bench.cluster.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"A": "one"}}
    )
    await bench.cluster.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"B": "two"}}
    )
    output = Kept()
    runner = bench.runner(env_secrets=("s",), env_config_maps=("c",))
    assert (await bench.run(runner, 'echo "$A $B"', output)).exit_code == 0
    assert output.lines == ["one two"]


async def test_a_time_limit_is_kept_and_nothing_stays(bench: Bench) -> None:
    finished = await bench.run(bench.runner(), "echo begun; sleep 100", Kept(), timeout=4.0, grace=1.0)
    assert finished.timed_out
    assert await bench.nothing_is_left()


async def test_orphans_are_found_by_their_labels_and_can_be_removed(bench: Bench) -> None:
    output = Kept()
    task = asyncio.create_task(bench.run(bench.runner(never), "echo begun; sleep 100", output))
    await until(lambda: "begun" in output.text)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    scope = str(bench.folder)
    assert await find_orphans(bench.cluster, scope, lambda run: run == "run-7") == []
    assert await find_orphans(bench.cluster, "/another/project", lambda run: False) == []
    (orphan,) = await find_orphans(bench.cluster, scope, lambda run: False)
    assert (orphan.run, orphan.key) == ("run-7", KEY)
    await remove_orphan(bench.cluster, orphan)
    assert await bench.nothing_is_left()


async def test_a_namespace_that_is_restricted_takes_the_pods_of_a_user(bench: Bench, namespace: str) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await bench.cluster.patch(NAMESPACE, namespace, label)
    with pytest.raises(DependencyFailed, match=r"violates PodSecurity"):
        await bench.run(bench.runner(carried=True, start_timeout=5.0), "true", Kept())
    output = Kept()
    assert (
        await bench.run(bench.runner(carried=True, user=1000), "echo hello", output, key="run-8/b#1/1#1")
    ).exit_code == 0
    assert output.lines == ["hello"]


ROLE = [
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
]
"""What docs/kubernetes/steps.md tells administrators to allow; the last rule only for workspaces that are carried."""


def allowed(without: str) -> list[dict[str, Any]]:
    return [rule for rule in ROLE if without not in rule["resources"]]


@pytest.mark.parametrize("carried", [False, True])
async def test_the_role_of_the_docs_is_enough(
    bench: Bench, service_account_kubeconfig: Any, namespace: str, carried: bool
) -> None:
    kubeconfig = service_account_kubeconfig(ROLE if carried else allowed("pods/exec"))
    bench.cluster = Cluster(KubernetesAccess(kubeconfig=str(kubeconfig), namespace=namespace))
    output = Kept()
    finished = await bench.run(bench.runner(carried=carried), 'echo hello; echo a=b >> "$OUT"', output)
    await bench.cluster.close()
    assert (finished.exit_code, output.lines, bench.outputs.read_text()) == (0, ["hello"], "a=b\n")


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("jobs", "not allowed to get jobs.batch in namespace"),
        ("secrets", "not allowed to create secrets in namespace"),
        ("pods", "not allowed to list pods in namespace"),
        ("pods/log", "not allowed to get pods/log in namespace"),
        ("pods/exec", "not allowed to get and create pods/exec in namespace"),
    ],
)
async def test_with_less_the_error_names_what_is_missing(
    bench: Bench, service_account_kubeconfig: Any, namespace: str, without: str, words: str
) -> None:
    bench.cluster = Cluster(
        KubernetesAccess(kubeconfig=str(service_account_kubeconfig(allowed(without))), namespace=namespace)
    )
    with pytest.raises(DependencyFailed, match=words) as raised:
        await bench.run(bench.runner(carried=without != "pods/log"), "sleep 1", Kept())
    await bench.cluster.close()
    assert "permissions" in str(raised.value.hint)


@pytest.mark.long
async def test_an_apiserver_that_restarts_costs_no_line_and_no_command(own_cluster: Any, tmp_path: Path) -> None:
    with fresh_namespace(own_cluster, "restarts") as namespace:
        access = KubernetesAccess(kubeconfig=str(own_cluster.kubeconfig), namespace=namespace)
        opened = Cluster(access)
        bench, output = Bench(opened, access, tmp_path), Kept()
        script = 'i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo a=b >> "$OUT"'
        task = asyncio.create_task(bench.run(bench.runner(carried=True), script, output))
        await until(lambda: len(output.lines) >= 10)
        await asyncio.to_thread(own_cluster.stop_apiserver, "kill")
        await asyncio.sleep(2.0)
        await asyncio.to_thread(own_cluster.start_apiserver)
        finished = await task
        assert finished.exit_code == 0
        assert output.lines == [f"line {number}" for number in range(1, 101)]
        assert bench.outputs.read_text() == "a=b\n"
        assert await bench.nothing_is_left()
        await opened.close()


async def test_a_large_workspace_and_a_large_log_are_carried_whole(bench: Bench) -> None:
    content = os.urandom(20_000_000)
    (bench.workspace / "large").write_bytes(content)
    for number in range(200):
        (bench.workspace / f"small-{number}").write_text(str(number))
    output = Kept()
    script = "cat large large > twice; rm small-7; seq 1 50000"
    finished = await bench.run(bench.runner(carried=True), script, output)
    assert finished.exit_code == 0
    assert (bench.workspace / "twice").read_bytes() == content * 2
    assert len(list(bench.workspace.iterdir())) == 201
    assert output.lines == [str(number) for number in range(1, 50_001)]
