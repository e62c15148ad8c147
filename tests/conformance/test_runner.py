"""What every runner keeps of its contract: processes of this machine, and pods of a real cluster with a workspace
that is shared, or carried to them and back."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.runners.base import Finished, Runner, StepFiles
from forge.adapters.runners.kubernetes_job import KubernetesRunner
from forge.adapters.runners.live_processes import alive
from forge.adapters.runners.process import ProcessRunner
from forge.model.configs import KubernetesAccess, KubernetesRunnerConfig

PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


class Kept:
    """Keeps all output."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    @property
    def lines(self) -> list[str]:
        """The command's own lines, without those that a runner says."""
        return [line for line in self.data.decode(errors="replace").splitlines() if not line.startswith("forge: ")]


class Bench:
    """One runner and one workspace; each run is a step of its own."""

    def __init__(self, runner: Runner, folder: Path) -> None:
        self.runner = runner
        self.workspace = folder / "job" / "1" / "workspace"
        self.workspace.mkdir(parents=True)
        self.private = folder / "job" / "1" / "workspace.private"
        self.private.mkdir(mode=0o700)
        self.mark = uuid.uuid4().hex
        self.outputs = ""

    async def run(
        self, script: str, *, output: Kept | None = None, key: str = "", env: Mapping[str, str] | None = None,
        cwd: str = "", **options: Any,
    ) -> Finished:  # fmt: skip
        name = uuid.uuid4().hex[:8]
        file, outputs = self.private / f"{name}.script", self.private / f"{name}.outputs"
        file.write_text(script)
        file.chmod(0o600)
        outputs.write_text("")
        try:
            return await self.runner.run(
                ["sh", "-eu", str(file)],
                key=key or f"run-1/{name}#1/1#1",
                cwd=self.workspace / cwd,
                env={"PATH": PATH, "MARK": self.mark, "OUT": str(outputs), "SPACE": str(self.workspace), **(env or {})},
                output=output or Kept(),
                files=StepFiles(self.workspace, (file,), (outputs,)),
                **options,
            )
        finally:
            self.outputs = outputs.read_text()

    @property
    def living(self) -> list[int]:
        """Processes of its commands that are alive on this machine, pods' ones too."""
        return alive(0, {"MARK": self.mark})

    async def nothing_lives(self, seconds: float = 5.0) -> bool:
        deadline = time.monotonic() + seconds
        while self.living and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return not self.living


KINDS = [
    "process",
    pytest.param("shared", marks=pytest.mark.kubernetes),
    pytest.param("carried", marks=pytest.mark.kubernetes),
]


@pytest.fixture(params=KINDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "process":
        runner = ProcessRunner(scope=str(tmp_path))
        yield Bench(runner, tmp_path)
        runner.close()
        return
    running = request.getfixturevalue("cluster")
    access = KubernetesAccess(kubeconfig=str(running.kubeconfig), namespace=request.getfixturevalue("namespace"))
    shared = str(tmp_path) if request.param == "shared" else ""
    cluster = Cluster(access)
    config = KubernetesRunnerConfig("debian:12", access=access, host_path=shared)
    yield Bench(KubernetesRunner(config, cluster, scope=str(tmp_path)), tmp_path)
    await cluster.close()


async def test_output_comes_in_order_and_the_exit_code_is_the_commands(bench: Bench) -> None:
    output = Kept()
    finished = await bench.run("echo one; echo two >&2; echo three; exit 3", output=output)
    assert output.lines == ["one", "two", "three"]
    assert (finished.exit_code, finished.timed_out) == (3, False)
    assert 0 <= finished.duration < 30


async def test_a_command_that_succeeds_has_exit_code_0(bench: Bench) -> None:
    finished = await bench.run("true")
    assert (finished.exit_code, finished.reason, finished.cancelled) == (0, "", False)


async def test_a_signal_is_told(bench: Bench) -> None:
    assert (await bench.run("kill -SEGV $$")).exit_code in {-signal.SIGSEGV, 128 + signal.SIGSEGV}


async def test_a_log_of_thousands_of_lines_comes_whole(bench: Bench) -> None:
    output = Kept()
    await bench.run("i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo line $i; done", output=output)
    assert output.lines == [f"line {number}" for number in range(1, 5001)]


async def test_bytes_that_are_no_text_come_as_they_are(bench: Bench) -> None:
    output = Kept()
    await bench.run(r"printf '\377\033[31mred\n'", output=output)
    assert b"\xff\x1b[31mred\n" in output.data


async def test_standard_input_is_empty(bench: Bench) -> None:
    assert (await bench.run("! read line", timeout=60)).exit_code == 0


async def test_the_environment_is_what_is_given(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_TEST_LEAK", "leaked")
    output = Kept()
    given = {"WORDS": "x y", "LINES": "one\ntwo", "ODD": "$(HOME) $HOME"}
    await bench.run('echo "$WORDS|$LINES|$ODD|${FORGE_TEST_LEAK:-none}"', env=given, output=output)
    assert output.lines == ["x y|one", "two|$(HOME) $HOME|none"]


async def test_the_command_finds_the_workspace_changes_it_and_the_next_one_sees_that(bench: Bench) -> None:
    (bench.workspace / "sub").mkdir()
    (bench.workspace / "sub" / "in.txt").write_text("in")
    (bench.workspace / "old.txt").write_text("old")
    (bench.workspace / "tool").write_text("#!/bin/sh\necho ran > ran.txt\n")
    (bench.workspace / "tool").chmod(0o755)
    (bench.workspace / "link").symlink_to("sub/in.txt")
    finished = await bench.run(
        'cat in.txt > ../copy.txt; rm ../old.txt; cd ..; ./tool; cat link >> "$SPACE/copy.txt"', cwd="sub"
    )
    assert finished.exit_code == 0
    assert (bench.workspace / "copy.txt").read_text() == "inin"
    assert (bench.workspace / "ran.txt").read_text() == "ran\n"
    assert not (bench.workspace / "old.txt").exists()
    assert (bench.workspace / "link").is_symlink()
    assert (await bench.run("test -x tool && test -e ran.txt && ! test -e old.txt")).exit_code == 0


async def test_what_a_command_that_fails_has_left_is_there(bench: Bench) -> None:
    assert (await bench.run("echo report > report.xml; exit 1")).exit_code == 1
    assert (bench.workspace / "report.xml").read_text() == "report\n"


async def test_outputs_come_back_and_are_not_in_the_workspace(bench: Bench) -> None:
    await bench.run('echo "version=1.4" >> "$OUT"; echo "more=x" >> "$OUT"')
    assert bench.outputs == "version=1.4\nmore=x\n"
    assert list(bench.workspace.iterdir()) == []


async def test_steps_at_once_are_apart(bench: Bench) -> None:
    outputs = [Kept(), Kept(), Kept()]
    codes = [
        each.exit_code
        for each in await asyncio.gather(
            *(bench.run(f"echo {number}; sleep 0.2; exit {number}", output=outputs[number]) for number in range(3))
        )
    ]
    assert codes == [0, 1, 2]
    assert [output.lines for output in outputs] == [["0"], ["1"], ["2"]]


async def test_a_time_limit_ends_everything_and_keeps_what_was_said(bench: Bench) -> None:
    output = Kept()
    finished = await bench.run("echo begun; sleep 300 & sleep 300", timeout=5.0, grace=2.0, output=output)
    assert finished.timed_out
    assert output.lines == ["begun"]
    assert await bench.nothing_lives()


async def test_cancelling_ends_everything_before_it_returns(bench: Bench) -> None:
    output = Kept()
    task = asyncio.create_task(bench.run("echo begun; sleep 300 & sleep 300", grace=2.0, output=output))
    deadline = time.monotonic() + 30
    while not output.lines:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert bench.living
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.nothing_lives(2.0)


async def test_a_command_may_end_itself_in_order_when_it_is_told_to(bench: Bench) -> None:
    output = Kept()
    script = "trap 'echo leaving; exit 0' TERM; echo begun; while :; do sleep 0.1; done"
    task = asyncio.create_task(bench.run(script, grace=10.0, output=output))
    deadline = time.monotonic() + 30
    while not output.lines:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert output.lines[0] == "begun"
    assert "leaving" in output.lines  # the shell may tell of its child after that


async def test_killing_what_is_not_there_is_no_harm(bench: Bench) -> None:
    assert await bench.runner.kill("run-9/nothing#1/1#1") == 0


async def test_killing_by_the_key_finds_the_command(bench: Bench) -> None:
    key = f"run-3/{uuid.uuid4().hex[:8]}#1/1#1"
    output = Kept()
    task = asyncio.create_task(bench.run("echo begun; exec sleep 300", key=key, output=output))
    deadline = time.monotonic() + 30
    while not output.lines:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert await bench.runner.kill(key, grace=1.0) >= 1
    assert await bench.nothing_lives()
    await asyncio.gather(task, return_exceptions=True)
    assert not task.done() or task.exception() is not None or task.result().exit_code != 0
