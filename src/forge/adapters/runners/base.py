"""Runners: where a step's command is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec


class Finished(msgspec.Struct, frozen=True):
    """How a command ended. `exit_code` is negative for a signal; `peak_memory` is bytes; `duration` seconds."""

    exit_code: int
    duration: float
    peak_memory: int | None = None
    cancelled: bool = False
    timed_out: bool = False
    reason: str = ""
    """What whoever ran it says of its end, where the exit code does not: that its memory ran out."""


class StepFiles(msgspec.Struct, frozen=True):
    """What a command works on, for runners that are elsewhere: the job's folder, and private files beside it."""

    workspace: Path
    reads: tuple[Path, ...] = ()
    """Files that the command reads: its script."""
    writes: tuple[Path, ...] = ()
    """Files that it may append to, and that are read when it is over: its outputs."""


class OutputSink(Protocol):
    """Takes a command's output as raw bytes, in any slices; masks secrets, keeps ANSI, writes lines."""

    def write(self, data: bytes) -> None:
        """Take the next bytes. Must not block for long and must not raise for any bytes."""


class Runner(Protocol):
    """Executes one command to its end.

    The command and all that it starts are one group, told by the cookie `FORGE_STEP=<key>` in its environment.
    When the awaiting task is cancelled, or `timeout` seconds pass, the group gets TERM, after `grace` seconds
    KILL, and the call returns (or re-raises CancelledError) only when nothing of it is alive.
    DependencyFailed: the command could not be started (no such shell, no such folder).

    `local`: the command runs on the worker's machine, with what that has, and ends with the worker. If not, a
    command goes on while there is no worker: `run` under the same key finds it again and returns its end.
    """

    local: bool

    async def run(
        self,
        argv: Sequence[str],
        *,
        key: str,
        cwd: Path,
        env: Mapping[str, str],
        output: OutputSink,
        timeout: float | None = None,
        grace: float = 10.0,
        files: StepFiles | None = None,
    ) -> Finished:
        """Run `argv` and return how it ended."""

    async def kill(self, key: str, grace: float = 0.0) -> int:
        """End whatever of step `key` is still alive (after a crash of Forge); return how many processes it was."""
