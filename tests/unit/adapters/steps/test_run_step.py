"""`run:` with real shells."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from forge.adapters.runners.live_processes import alive
from forge.adapters.steps.run import command, explain
from forge.model.errors import DependencyFailed, UsageError


async def test_a_script_runs_in_the_working_folder_with_the_environment(job):
    job.write("sub/x")
    result = await job.step("run", script='pwd; echo "$HOME"; ls', cwd="sub", timeout=30)
    assert result.outcome == "succeeded"
    assert result.exit_code == 0
    assert job.said == f"{job.workspace}/sub\n{job.env['HOME']}\nx\n"


async def test_a_failure_has_its_exit_code(job):
    result = await job.step("run", script="echo before\nexit 3\necho after")
    assert (result.outcome, result.exit_code, result.message) == ("failed", 3, "exit code 3")
    assert job.said == "before\n"


@pytest.mark.parametrize("script", ["false\necho on", "echo $UNSET_VARIABLE\necho on", "false | true\necho on"])
async def test_bash_stops_at_the_first_error(job, script):
    result = await job.step("run", script=script)
    assert result.outcome == "failed"
    assert "on\n" not in job.said


async def test_sh_can_be_asked_for(job):
    result = await job.step("run", script="false | true; echo on; echo $0", shell="sh")
    assert result.outcome == "succeeded"
    assert job.said.startswith("on\n")


async def test_the_shell_of_the_job_counts_unless_the_step_has_one(job):
    job.shell = "python3"
    await job.step("run", script="print(40 + 2)")
    await job.step("run", script="echo $((40 + 3))", shell="bash")
    assert job.said == "42\n43\n"


@pytest.mark.parametrize(
    ("shell", "argv"),
    [
        ("bash", ["bash", "-euo", "pipefail", "/s"]),
        ("bash -euo pipefail -c", ["bash", "-euo", "pipefail", "/s"]),
        ("sh -eu -c", ["sh", "-eu", "/s"]),
        ("sh", ["sh", "-eu", "/s"]),
        ("bash --noprofile", ["bash", "--noprofile", "/s"]),
        ("python", ["python3", "-u", "/s"]),
        ("perl {0} --flag", ["perl", "/s", "--flag"]),
        ("env A='b c' sh", ["env", "A=b c", "sh", "/s"]),
    ],
)
def test_shells(shell, argv):
    assert command(shell, Path("/s")) == argv


@pytest.mark.parametrize("shell", ["'", "   ", "-c"])
def test_no_shell(shell):
    with pytest.raises(UsageError):
        command(shell, Path("/s"))


async def test_a_shell_that_is_not_there_is_a_failure_of_the_system(job):
    with pytest.raises(DependencyFailed, match="`no-such-shell` could not be started"):
        await job.step("run", script="true", shell="no-such-shell")
    assert job.private() == []


async def test_a_script_of_a_megabyte_runs(job):
    script = "x=" + "a" * 1_000_000 + "\necho ${#x}"
    await job.step("run", script=script)
    assert job.said == "1000000\n"


async def test_the_script_is_not_shown_in_the_process_list_and_not_in_the_workspace(job):
    script = "ls -A; stat -c %a $0; tr '\\0' ' ' < /proc/$$/cmdline; echo; : distinctive-words"
    await job.step("run", script=script)
    mode, command_line = job.said.splitlines()
    assert mode == "600"
    assert "distinctive-words" not in command_line
    assert str(job.workspace) + "/" not in command_line
    assert job.private() == []


async def test_secrets_are_masked_in_the_log(job):
    await job.step(
        "run", script='echo "[$PASSWORD]"; printf hun; sleep 0.05; printf "ter22\\n"; echo "$PASSWORD" | base64'
    )
    assert "hunter22" not in job.said
    assert "aHVudGVyMj" not in job.said
    assert job.said.startswith("[***]\n***\n***")


async def test_outputs_are_read_and_masked(job):
    script = """echo "version=1.2.3" >> "$FORGE_OUTPUT"
        echo "with-dash=a=b c" >> "$FORGE_OUTPUT"
        echo >> "$FORGE_OUTPUT"
        echo "leak=x${PASSWORD}x" >> "$FORGE_OUTPUT" """
    result = await job.step("run", script=script)
    assert result.outputs == {"version": "1.2.3", "with-dash": "a=b c", "leak": "x***x"}
    assert job.private() == []


@pytest.mark.parametrize("line", ["no equals sign", "=x", "a b=c"])
async def test_outputs_that_are_none_fail_the_step(job, line):
    result = await job.step("run", script=f"echo '{line}' >> $FORGE_OUTPUT")
    assert (result.outcome, result.message) == ("failed", f"`{line}` in $FORGE_OUTPUT is not `name=value`")


async def test_outputs_are_bounded(job):
    result = await job.step("run", script="head -c 2000000 /dev/zero | tr '\\0' a >> $FORGE_OUTPUT")
    assert result.outcome == "failed"
    assert "publish a file instead" in result.message


async def test_a_timeout_ends_the_step(job):
    started = time.monotonic()
    result = await job.step("run", script="echo begun; sleep 60", timeout=0.5)
    assert (result.outcome, result.exit_code) == ("timed_out", None)
    assert result.message == "did not end within 0.5s and was ended"
    assert time.monotonic() - started < 30
    assert job.said.startswith("begun\n")


async def test_cancelling_ends_the_processes_and_cleans_up(job):
    task = asyncio.create_task(job.step("run", script="touch ready; sleep 60"))
    while not (job.workspace / "ready").exists():
        await asyncio.sleep(0.01)
    assert alive(0, {"FORGE_STEP": "run-1/job#1/1#1", "FORGE_WORKER": job.runner.worker})
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert alive(0, {"FORGE_WORKER": job.runner.worker}) == []
    assert job.private() == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "exit code 1"),
        (127, "exit code 127: a command was not found"),
        (126, "exit code 126: a command could not be executed"),
        (139, "exit code 139: a command was ended by SIGSEGV"),
        (-signal.SIGTERM, "ended by SIGTERM"),
        (255, "exit code 255"),
        (192, "exit code 192: a command was ended by SIGRTMAX"),
        (128, "exit code 128"),
    ],
)
def test_exit_codes_in_words(code, words):
    assert explain(code) == words


def test_a_kill_is_told_with_the_memory():
    assert explain(137, 2_000_000_000) == (
        "exit code 137: a command was ended by SIGKILL (it had used up to 2.0 GB; the system may have run out of memory)"
    )


async def test_not_found_and_not_executable_in_real_life(job):
    assert "a command was not found" in (await job.step("run", script="no-such-command")).message
    job.write("plain", "text")
    assert "could not be executed" in (await job.step("run", script="./plain")).message


async def test_two_executions_at_once_do_not_share_their_script(job):
    results = await asyncio.gather(*(job.step("run", script=f"echo n={n} >> $FORGE_OUTPUT") for n in range(8)))
    assert [result.outputs["n"] for result in results] == [str(n) for n in range(8)]


async def test_bytes_that_are_no_text_are_kept(job):
    await job.step("run", script="printf '\\377\\033[31m'")
    assert job.log.read_bytes() == b"\xff\x1b[31m"
    assert os.stat(job.log).st_mode & 0o077 == 0
