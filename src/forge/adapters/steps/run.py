"""`run:` a script in a shell."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
from functools import cache
from pathlib import Path

import msgspec

from forge.adapters.masking import StepLog
from forge.adapters.runners.base import Finished, StepFiles
from forge.adapters.steps.base import StepContext, StepResult
from forge.adapters.steps.private import private_file, process_key
from forge.model.configs import RunConfig
from forge.model.errors import UsageError
from forge.model.units import format_duration, format_size

SHELLS = {
    "bash": "bash -euo pipefail",
    "sh": "sh -eu",
    "dash": "dash -eu",
    "zsh": "zsh -euo pipefail",
    "python": "python3 -u",
    "python3": "python3 -u",
}
"""What a shell's bare name stands for."""
SCRIPT = "{0}"
"""Where a custom shell wants the script's file; at its end if it does not say."""
LARGEST_OUTPUT = 1 << 20


class RunStep:
    """Runs the script and reports how it ended.

    The script is given as a file, so that its length does not matter and `ps` does not show it. Lines
    `name=value` that it appends to the file named by `$FORGE_OUTPUT` become the step's outputs.
    """

    kind = "run"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, RunConfig)
        script, outputs = private_file(context, ".script"), private_file(context, ".outputs")
        argv = command(context.step.shell or context.job.shell or ("" if context.runner.local else "sh"), script)
        _write_private(script, config.script)
        _write_private(outputs, "")
        try:
            finished = await context.runner.run(
                argv,
                key=process_key(context.run, context.key),
                cwd=context.cwd,
                env={**context.env, "FORGE_OUTPUT": str(outputs)},
                output=context.output,
                timeout=context.step.timeout,
                files=StepFiles(context.workspace, (script,), (outputs,)),
            )
            return _result(context, finished, outputs)
        finally:
            script.unlink(missing_ok=True)
            outputs.unlink(missing_ok=True)


def command(shell: str, script: Path) -> list[str]:
    """Return the argv that runs `script` in a shell as users write it: `bash`, `sh -e -c`, `perl {0}`.

    Raises UsageError if it cannot be split into words.
    """
    try:
        words = shlex.split(shell or _default())
    except ValueError as error:
        raise UsageError(f"`{shell}` is not a shell: {error}") from error
    if len(words) == 1 and words[0] in SHELLS:
        words = shlex.split(SHELLS[words[0]])
    if words[-1:] == ["-c"]:
        del words[-1]
    if not words:
        raise UsageError(f"`{shell}` names no shell", hint="write for example `bash -eu`")
    if any(SCRIPT in word for word in words):
        return [word.replace(SCRIPT, str(script)) for word in words]
    return [*words, str(script)]


@cache
def _default() -> str:
    return "bash" if shutil.which("bash") else "sh"


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        file.write(text)


def _result(context: StepContext, finished: Finished, outputs: Path) -> StepResult:
    if finished.timed_out:
        limit = format_duration(context.step.timeout or finished.duration)
        return StepResult("timed_out", f"did not end within {limit} and was ended", None, finished.peak_memory)
    if finished.exit_code:
        message = finished.reason or explain(finished.exit_code, finished.peak_memory)
        return StepResult("failed", message, finished.exit_code, finished.peak_memory)
    try:
        found = _read_outputs(context, outputs)
    except ValueError as error:
        return StepResult("failed", str(error), 0, finished.peak_memory)
    return StepResult("succeeded", "", 0, finished.peak_memory, found)


def explain(exit_code: int, peak_memory: int | None = None) -> str:
    """Return an exit code in words; shells report a child's signal as 128 + its number."""
    if exit_code == 127:
        return "exit code 127: a command was not found"
    if exit_code == 126:
        return "exit code 126: a command could not be executed"
    number = -exit_code if exit_code < 0 else exit_code - 128
    try:
        name = signal.Signals(number).name if number > 0 else ""
    except ValueError:
        name = ""
    if not name:
        return f"exit code {exit_code}"
    text = f"ended by {name}" if exit_code < 0 else f"exit code {exit_code}: a command was ended by {name}"
    if name == "SIGKILL" and peak_memory:
        text += f" (it had used up to {format_size(peak_memory)}; the system may have run out of memory)"
    return text


def _read_outputs(context: StepContext, path: Path) -> dict[str, str]:
    if path.stat().st_size > LARGEST_OUTPUT:
        raise ValueError(f"the outputs are larger than {format_size(LARGEST_OUTPUT)}; publish a file instead")
    found: dict[str, str] = {}
    for line in path.read_text(errors="replace").splitlines():
        name, equals, value = line.partition("=")
        if not line.strip():
            continue
        if not equals or not name.strip().replace("-", "_").isidentifier():
            raise ValueError(f"`{line[:80]}` in $FORGE_OUTPUT is not `name=value`")
        # Outputs go into the database, where no secret may go.
        found[name.strip()] = context.output.mask(value) if isinstance(context.output, StepLog) else value
    return found
