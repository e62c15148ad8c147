"""Runs commands as processes of this machine, each in a session of its own, and leaves none behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from forge.adapters.runners.base import Finished, OutputSink, StepFiles
from forge.adapters.runners.live_processes import alive, group_exists, send, send_group
from forge.adapters.runners.peak_memory import PeakMemory
from forge.model.errors import DependencyFailed

SLICE = 1 << 16
LINGER = 1.0
"""Seconds that background children may take to end by themselves after the command: `| tee` has a last line."""
POLL = 0.01
ORPHAN_GRACE = 5.0
"""Seconds between TERM and KILL for the processes of a worker that has died."""


class ProcessRunner:
    """A `Runner` for commands on this machine (Linux).

    `worker` marks every process (`FORGE_WORKER`), unique for each start of Forge; when this process dies, a
    watchdog ends all that carry it. What a step means to leave running has to leave its session and drop that
    variable (`env -u FORGE_WORKER setsid ...`). `scope`, usually the project's folder, keeps two projects on one machine
    apart: `kill` finds only processes that were started in the same scope.
    """

    local = True

    def __init__(
        self, worker: str = "", *, scope: str = "", watchdog: bool = True, orphan_grace: float = ORPHAN_GRACE
    ) -> None:
        self.worker = worker or uuid.uuid4().hex
        self.scope = scope
        self._wants_watchdog = watchdog
        self._orphan_grace = orphan_grace
        self._lifeline: int | None = None

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
        """Run `argv` and return how it ended. See `Runner`."""
        del files  # they are where they are
        self._start_watchdog()
        loop = asyncio.get_running_loop()
        started = loop.time()
        command = _Command(argv, cwd, {**env, **self._cookie(key)}, output)
        self._tell_watchdog(b"+%d\n", command.pid)
        timed_out = False
        try:
            try:
                await asyncio.wait((command.ended,), timeout=timeout)
            except asyncio.CancelledError:
                await uninterrupted(lambda: self._end(command, grace))
                raise
            timed_out = not command.ended.done()
            ending = self._end if timed_out else self._end_leftovers
            await uninterrupted(lambda: ending(command, grace))
            return Finished(command.exit_code, loop.time() - started, command.peak_memory, timed_out=timed_out)
        finally:
            command.close()
            self._tell_watchdog(b"-%d\n", command.pid)

    async def kill(self, key: str, grace: float = 0.0) -> int:
        """End what is alive of step `key`, whichever worker started it; return how many processes it was."""
        cookie = {"FORGE_STEP": key, "FORGE_SCOPE": self.scope}
        seen = set(alive(0, cookie))
        if seen:
            await uninterrupted(lambda: _end_found(0, cookie, grace, seen))
        return len(seen)

    def close(self) -> None:
        """Let the watchdog go; it ends what is still alive of this runner, if anything is."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def _cookie(self, key: str) -> dict[str, str]:
        return {"FORGE_STEP": key, "FORGE_WORKER": self.worker, "FORGE_SCOPE": self.scope}

    async def _end(self, command: _Command, grace: float) -> None:
        """End everything of a command that is to stop now."""
        cookie = {"FORGE_STEP": command.env["FORGE_STEP"], "FORGE_WORKER": self.worker}
        await _end_found(command.pid, cookie, grace, set())
        await asyncio.wait((command.ended,))  # not the future itself: a cancellation here would cancel it
        command.drain()

    async def _end_leftovers(self, command: _Command, grace: float) -> None:
        """The command has ended by itself: see to its background children and to who holds its output."""
        command.drain()
        if command.output_closed and not group_exists(command.pid):
            return
        deadline = asyncio.get_running_loop().time() + min(LINGER, grace)
        pause = POLL
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)
            if command.output_closed and not (group_exists(command.pid) and alive(command.pid, {})):
                return
        await _end_found(command.pid, {}, grace, set())
        command.drain()

    def _start_watchdog(self) -> None:
        if not self._wants_watchdog or self._lifeline is not None:
            return
        ours, lifeline = os.pipe2(os.O_CLOEXEC)
        program = Path(__file__).with_name("watchdog.py")
        try:
            subprocess.Popen(
                [sys.executable, "-I", "-S", str(program), self.worker, str(self._orphan_grace)],
                stdin=ours,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            ).returncode = 0  # it outlives us by design; nobody waits for it
        except OSError as error:
            os.close(lifeline)
            raise DependencyFailed(f"the watchdog of processes could not be started: {error}") from error
        finally:
            os.close(ours)
        os.set_blocking(lifeline, False)
        self._lifeline = lifeline

    def _tell_watchdog(self, message: bytes, session: int) -> None:
        if self._lifeline is not None:
            # A full or broken pipe costs the watchdog a hint; the cookie still finds the processes.
            with contextlib.suppress(OSError):
                os.write(self._lifeline, message % session)


class _Command:
    """One running command: its process, its output, its end."""

    def __init__(self, argv: Sequence[str], cwd: Path, env: dict[str, str], output: OutputSink) -> None:
        self.env = env
        self.exit_code = -1
        self.peak_memory: int | None = None
        self.output_closed = False
        self._output = output
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._inherited_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._pipe, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = _spawn(argv, cwd, env, theirs)
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)
        self.pid = self._process.pid
        os.set_blocking(self._pipe, False)
        self._pidfd = os.pidfd_open(self.pid)
        self._watched = PeakMemory(self.pid)
        self._loop.add_reader(self._pipe, self._read)
        self._loop.add_reader(self._pidfd, self._reap)

    def _read(self) -> bool:
        """Take one slice; the pipe's own limit is the back-pressure. Tell whether there may be more."""
        try:
            data = os.read(self._pipe, SLICE)
        except BlockingIOError:
            return False
        if data:
            self._output.write(data)
            return True
        self.output_closed = True
        self._loop.remove_reader(self._pipe)
        return False

    def drain(self) -> None:
        """Take what is in the pipe now, and not more than a pipe can hold: others may go on writing for ever."""
        for _ in range(32):
            if self.output_closed or not self._read():
                return

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._watched.stop()
        with contextlib.suppress(ChildProcessError):  # someone else has waited for all children of this process
            _, status, usage = os.wait4(self.pid, 0)
            self.exit_code = os.waitstatus_to_exitcode(status)
            exact = usage.ru_maxrss * 1024 if usage.ru_maxrss > self._inherited_peak else 0
            self.peak_memory = max(exact, self._watched.bytes) or None
        self._process.returncode = self.exit_code
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        """Let go of the pipe; whoever still writes into it gets SIGPIPE."""
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)


def _spawn(argv: Sequence[str], cwd: Path, env: dict[str, str], output: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        if not cwd.is_dir():
            raise DependencyFailed(f"the working folder {cwd} does not exist") from error
        raise DependencyFailed(f"`{argv[0]}` could not be started: {error.strerror}") from error
    except ValueError as error:
        raise DependencyFailed(f"`{argv[0]}` could not be started: {error}") from error


async def _end_found(session: int, cookie: Mapping[str, str], grace: float, told: set[int]) -> None:
    """TERM to each process once, KILL to all after `grace` seconds; return when nothing is alive.

    `told` gathers all that were found. New processes that appear meanwhile are ended as well.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace
    reached: set[int] = set()
    pause = POLL
    while pids := alive(session, cookie):
        told |= set(pids)
        if loop.time() >= deadline:
            if session:
                send_group(session, signal.SIGKILL)  # at once, so that none can fork away between two signals
            send(pids, signal.SIGKILL)
        else:
            send(set(pids) - reached, signal.SIGTERM)
            send(set(pids) - reached, signal.SIGCONT)  # what is stopped could not hear it
            reached |= set(pids)
        await asyncio.sleep(min(pause, max(deadline - loop.time(), POLL)))
        pause = min(pause * 1.5, 0.1)


async def uninterrupted(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `work` to its end even when the waiting task, or `work` itself, is cancelled meanwhile, as happens
    when a loop shuts down: leaving no process behind goes before leaving quickly. The cancellation is raised
    afterwards. `work` may be begun again, so it must be idempotent."""
    cancelled = False
    task = asyncio.ensure_future(work())
    while True:
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
            if task.cancelled():
                task = asyncio.ensure_future(work())
        else:
            break
    if cancelled:
        raise asyncio.CancelledError
