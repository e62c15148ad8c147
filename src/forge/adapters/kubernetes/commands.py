"""Runs the tools that render manifests, each to its end, with its output kept apart from what it complains of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from forge.model.errors import DependencyFailed, UsageError
from forge.model.units import format_duration

TIMEOUT = 120.0
"""Seconds that rendering may take; a chart from a registry is fetched first."""
_GRACE = 2.0
_KEPT = 5
_LOGGED = re.compile(r'^[EF]\d{4} .*\berr="((?:[^"\\]|\\.)*)"')
"""How kubectl's log says what went wrong."""


class Output(NamedTuple):
    """What a command that succeeded wrote."""

    text: bytes
    complaints: str


def find_tool(name: str, env: Mapping[str, str], hint: str) -> str:
    """Return the path of a tool: of PATH, or of this Python's own scripts. Raises DependencyFailed with `hint`."""
    found = shutil.which(name, path=env.get("PATH", os.defpath))
    if found is None:
        beside = Path(sys.executable).parent / name
        found = str(beside) if os.access(beside, os.X_OK) and beside.is_file() else None
    if found is None:
        raise DependencyFailed(f"`{name}` is not on the PATH", hint=hint)
    return found


async def run_tool(
    argv: Sequence[str], *, title: str, cwd: Path, env: Mapping[str, str], timeout: float = TIMEOUT
) -> Output:
    """Run a command and return its output. It is ended, with all that it started, when the caller is cancelled.

    Raises UsageError with what it complained of when it fails; DependencyFailed when it cannot be started, or takes
    longer than `timeout` seconds.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise DependencyFailed(f"`{title}` could not be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(timeout):
            text, complaints = await process.communicate()
    except TimeoutError:
        raise DependencyFailed(
            f"`{title}` took longer than {format_duration(timeout)}", hint="does it wait for a registry?"
        ) from None
    finally:
        await _end(process)
    told = complaints.decode(errors="replace").strip()
    if process.returncode:
        reason = reason_of(told).replace(f"{cwd}/", "") or f"exit code {process.returncode}"
        raise UsageError(f"`{title}` failed: {reason}")
    return Output(text, told)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await process.wait()
                return


def reason_of(complaints: str) -> str:
    """Return the lines that tell why; tools warn of other things first, and advise afterwards."""
    lines = [line.strip() for line in complaints.strip().splitlines()]
    for line in lines:
        if (logged := _LOGGED.search(line)) is not None:
            return logged[1].replace('\\"', '"').replace("\\n", " ")
    for number, line in enumerate(lines):
        if line.lower().startswith("error"):
            rest = lines[number + 1 : number + _KEPT]
            # After an empty line it is advice.
            rest = rest[: rest.index("")] if "" in rest else rest
            return " ".join([line.partition(":")[2].strip() or line, *rest])
    return " ".join(line for line in lines[-_KEPT:] if line)
