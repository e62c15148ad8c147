"""The process runner with real processes: output, ends, cancelling, and that nothing survives."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from pathlib import Path

import psutil
import pytest

from forge.adapters.runners.live_processes import alive
from forge.adapters.runners.process import ProcessRunner
from forge.model.errors import DependencyFailed

ENV = {"PATH": os.environ["PATH"]}


class Kept:
    """Keeps all output."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Counted:
    """Counts output and keeps nothing."""

    def __init__(self) -> None:
        self.size = 0
        self.largest = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self.largest = max(self.largest, len(data))


@pytest.fixture
def runner():
    runner = ProcessRunner(scope="tests")
    yield runner
    runner.close()


@pytest.fixture
def shell(runner: ProcessRunner, tmp_path: Path):
    async def run(script: str, *, output=None, key: str = "run-1/job#1/1#1", env=ENV, **options):
        return await runner.run(
            ["bash", "-c", script], key=key, cwd=tmp_path, env=env, output=output or Kept(), **options
        )

    return run


async def until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def of_worker(runner: ProcessRunner) -> list[int]:
    return alive(0, {"FORGE_WORKER": runner.worker})


async def test_output_of_both_streams_comes_in_order_and_the_exit_code_is_returned(shell):
    output = Kept()
    finished = await shell("echo one; echo two >&2; echo three; exit 3", output=output)
    assert output.data == b"one\ntwo\nthree\n"
    assert finished.exit_code == 3
    assert not finished.timed_out
    assert 0 <= finished.duration < 5


async def test_a_command_that_a_signal_ended_has_a_negative_exit_code(shell):
    assert (await shell("kill -SEGV $$")).exit_code == -signal.SIGSEGV


async def test_standard_input_is_empty_so_that_nothing_waits_for_a_person(shell):
    output = Kept()
    await shell("read -r line; echo status $?", output=output, timeout=5)
    assert output.data == b"status 1\n"


async def test_the_environment_is_the_given_one_and_the_cookie(shell, runner, monkeypatch):
    monkeypatch.setenv("FORGE_TEST_LEAK", "leaked")
    output = Kept()
    await runner.run(["env"], key="run-1/a", cwd=Path("/"), env={**ENV, "MINE": "x y"}, output=output)
    found = dict(line.split("=", 1) for line in output.data.decode().splitlines())
    assert found["MINE"] == "x y"
    assert found["FORGE_STEP"] == "run-1/a"
    assert found["FORGE_WORKER"] == runner.worker
    assert "FORGE_TEST_LEAK" not in found


async def test_a_command_is_the_leader_of_its_own_session_and_has_no_files_of_ours(shell):
    output = Kept()
    await shell("ps -o pid=,pgid=,sid= -p $$; ls /proc/$$/fd", output=output)
    ids, *descriptors = output.data.decode().splitlines()
    assert len(set(ids.split())) == 1
    assert set(descriptors) <= {"0", "1", "2", "3"}  # 3 is the folder that ls reads


async def test_peak_memory_is_told_where_it_can_be_known(shell):
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    wanted = ours + 100_000_000
    finished = await shell(f"head -c {wanted} /dev/zero | tail -c {wanted} | wc -c")
    assert finished.peak_memory is not None
    assert wanted * 0.9 < finished.peak_memory < wanted * 2


async def test_peak_memory_of_a_small_command_is_not_the_runners_own(shell):
    ballast = b"x" * 150_000_000
    small = await shell("sleep 0.3")
    assert 500_000 < small.peak_memory < 20_000_000
    assert len(ballast) > 20_000_000


async def test_peak_memory_of_a_grandchild_counts(shell):
    script = "bash -c 'x=$(head -c 30000000 /dev/zero | tr \\\\0 a); sleep 0.3; true'; true"
    finished = await shell(script)
    assert finished.exit_code == 0
    assert 30_000_000 < finished.peak_memory < 400_000_000


async def test_a_stopped_child_is_ended_gently_too(shell, runner, tmp_path):
    task = asyncio.create_task(shell("trap 'touch heard; exit' TERM; touch ready; kill -STOP $$; sleep 60", grace=5))
    await until((tmp_path / "ready").exists)
    await until(lambda: any(psutil.Process(pid).status() == "stopped" for pid in of_worker(runner)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "heard").exists()


@pytest.mark.parametrize(
    ("argv", "cwd", "words"),
    [
        (["no-such-command-here"], "/", "`no-such-command-here` could not be started: No such file"),
        (["/etc/passwd"], "/", "`/etc/passwd` could not be started: Permission denied"),
        (["true"], "/no/such/folder", "the working folder /no/such/folder does not exist"),
        (["echo", "a\0b"], "/", "`echo` could not be started: embedded null byte"),
        (["echo", "x" * 200_000], "/", "`echo` could not be started: Argument list too long"),
    ],
)
async def test_what_cannot_be_started_is_a_failure_of_the_system(runner, argv, cwd, words):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DependencyFailed, match=words):
        await runner.run(argv, key="k", cwd=Path(cwd), env=ENV, output=Kept())
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the watchdog's pipe


async def test_two_hundred_megabytes_of_output_do_not_grow_memory(shell):
    output = Counted()
    before = psutil.Process().memory_info().rss
    peak = before

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, psutil.Process().memory_info().rss)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    finished = await shell("head -c 200000000 /dev/zero", output=output)
    watching.cancel()
    assert finished.exit_code == 0
    assert output.size == 200_000_000
    assert output.largest <= 1 << 16
    assert peak - before < 20_000_000


async def test_a_sink_that_is_slow_holds_the_command_back(shell, tmp_path):
    class Slow(Counted):
        def write(self, data: bytes) -> None:
            super().write(data)
            time.sleep(0.02)

    output = Slow()
    started = time.monotonic()
    await shell("head -c 2000000 /dev/zero; date +%s.%N > ended", output=output)
    assert output.size == 2_000_000
    # The command itself ended when all but a pipeful of its output was taken, not at once.
    assert float((tmp_path / "ended").read_text()) - (time.time() - (time.monotonic() - started)) > 0.4


async def test_the_loop_stays_awake_while_a_command_shouts(shell):
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            started = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - started)

    ticking = asyncio.create_task(tick())
    await shell("head -c 50000000 /dev/zero", output=Counted())
    ticking.cancel()
    assert longest < 1


async def test_a_timeout_ends_the_whole_group_and_what_fled_from_it(shell, runner):
    script = "sleep 301 & (setsid sleep 302 &) ; set -m; sleep 303 & wait"
    finished = await shell(script, timeout=0.4, grace=60)
    assert finished.timed_out
    # The shell may see its children end before it gets its own signal.
    assert finished.exit_code in {-signal.SIGTERM, 0, 128 + signal.SIGTERM}
    assert finished.duration < 30
    assert of_worker(runner) == []


async def test_what_ignores_term_is_killed_after_the_grace(shell, runner):
    script = "trap '' TERM; (trap '' TERM; setsid sleep 304) & while true; do sleep 0.05; done"
    finished = await shell(script, timeout=0.3, grace=0.5)
    assert finished.exit_code == -signal.SIGKILL
    assert 0.8 <= finished.duration < 30
    assert of_worker(runner) == []


async def test_what_threw_its_environment_away_is_found_by_its_session(shell, runner):
    task = asyncio.create_task(shell("set -m; env -i sleep 305 & env -i bash -c 'sleep 306; true' & wait", grace=1))
    await until(lambda: len([p for p in psutil.process_iter(["cmdline"]) if _is_sleep(p, "305", "306")]) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [p for p in psutil.process_iter(["cmdline"]) if _is_sleep(p, "305", "306")]


def _is_sleep(process: psutil.Process, *seconds: str) -> bool:
    words = process.info["cmdline"] or []
    return words[:1] == ["sleep"] and words[1] in seconds


async def test_cancelling_raises_only_when_nothing_is_alive(shell, runner, tmp_path):
    task = asyncio.create_task(
        shell("trap 'sleep 0.3; echo cleaned > cleaned; exit 1' TERM; touch ready; while true; do sleep 0.01; done")
    )
    await until((tmp_path / "ready").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "cleaned").read_text() == "cleaned\n"
    assert of_worker(runner) == []


async def test_cancelling_twice_does_not_leave_early(shell, runner, tmp_path):
    task = asyncio.create_task(shell("trap '' TERM; touch ready; while true; do sleep 0.01; done", grace=0.5))
    await until((tmp_path / "ready").exists)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.05)
    assert not task.done()
    assert of_worker(runner)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert of_worker(runner) == []


def test_a_loop_that_shuts_down_leaves_nothing_either(tmp_path):
    """`asyncio.run` cancels every task at once when its main has ended, also those that clean up."""
    runner = ProcessRunner(watchdog=False)
    begun = []

    async def main() -> None:
        script = "trap 'sleep 0.2; touch cleaned; exit' TERM; touch ready; while true; do sleep 0.01; done"
        command = runner.run(["bash", "-c", script], key="k", cwd=tmp_path, env=ENV, output=Kept())
        begun.append(asyncio.create_task(command))
        await until((tmp_path / "ready").exists)
        begun[0].cancel()
        await asyncio.sleep(0.05)  # it cleans up now, and is disturbed in the middle of it

    asyncio.run(main())
    assert begun[0].cancelled()
    assert (tmp_path / "cleaned").exists()
    assert of_worker(runner) == []


async def test_output_after_term_is_kept(shell, tmp_path):
    output = Kept()
    script = "trap 'echo good-bye; exit 0' TERM; touch ready; while true; do sleep 0.01; done"
    task = asyncio.create_task(shell(script, output=output))
    await until((tmp_path / "ready").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert output.data.endswith(b"good-bye\n")


async def test_a_last_line_through_a_pipe_in_the_background_is_not_lost(shell):
    output = Kept()
    finished = await shell("exec > >(sleep 0.2; cat); echo last", output=output)
    assert output.data == b"last\n"
    assert finished.exit_code == 0


async def test_background_children_are_ended_when_the_command_has_ended(shell, runner):
    output = Kept()
    finished = await shell("sleep 307 & echo done", output=output, grace=0.3)
    assert finished.exit_code == 0
    assert finished.duration < 30
    assert output.data == b"done\n"
    assert of_worker(runner) == []


async def test_a_fled_child_that_holds_the_pipe_does_not_hold_the_step(shell, runner):
    finished = await shell("setsid sleep 308 & sleep 0.1; echo done", grace=0.3)
    assert finished.exit_code == 0
    assert finished.duration < 30
    assert await runner.kill("run-1/job#1/1#1") == 1


async def test_a_child_that_writes_for_ever_does_not_hold_the_step(shell, runner):
    output = Counted()
    finished = await shell("(setsid yes &) ; sleep 0.1", output=output, grace=0.2)
    assert finished.exit_code == 0
    assert finished.duration < 30
    await runner.kill("run-1/job#1/1#1")
    assert of_worker(runner) == []


async def test_kill_finds_processes_of_a_dead_worker_by_the_step(shell, tmp_path):
    dead = ProcessRunner(scope="tests", watchdog=False)
    key = "run-1/job#1/2#1"
    task = asyncio.create_task(
        dead.run(
            ["bash", "-c", "(setsid sleep 309 &); touch ready; sleep 310"],
            key=key,
            cwd=tmp_path,
            env=ENV,
            output=Kept(),
        )
    )
    await until((tmp_path / "ready").exists)
    other = ProcessRunner(scope="tests", watchdog=False)
    assert await other.kill("run-1/job#1/2#10") == 0
    assert await ProcessRunner(scope="elsewhere", watchdog=False).kill(key) == 0
    assert await other.kill(key, grace=1) == 2
    assert (await task).exit_code == -signal.SIGTERM
    assert await other.kill(key) == 0


async def test_parallel_commands_keep_their_output_apart(shell):
    outputs = [Kept() for _ in range(20)]
    await asyncio.gather(
        *(shell(f"for i in 1 2 3; do echo {n}; done", output=output, key=f"k{n}") for n, output in enumerate(outputs))
    )
    assert [output.data for output in outputs] == [f"{n}\n{n}\n{n}\n".encode() for n in range(20)]


async def test_a_thousand_commands_leak_nothing_and_take_little(runner, tmp_path):
    output = Counted()
    slots = asyncio.Semaphore(10)

    async def one(number: int) -> None:
        async with slots:
            finished = await runner.run(["sh", "-c", "true"], key=f"k{number}", cwd=tmp_path, env=ENV, output=output)
            assert finished.exit_code == 0

    await one(0)
    before = len(os.listdir("/proc/self/fd"))
    started = time.process_time()
    await asyncio.gather(*(one(number) for number in range(1000)))
    took = time.process_time() - started
    assert len(os.listdir("/proc/self/fd")) == before
    assert took < 2, f"{took:.1f} ms of our own time each; 0.4 where this was written"


async def test_a_sink_sees_output_while_the_command_runs(shell, tmp_path):
    output = Kept()
    task = asyncio.create_task(shell("echo first; while ! test -e go; do sleep 0.01; done; echo second", output=output))
    await until(lambda: output.data == b"first\n")
    (tmp_path / "go").touch()
    await task
    assert output.data == b"first\nsecond\n"
