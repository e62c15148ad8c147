"""The agent of one environment: a process of its own, detached from Forge, that looks after replicas and proxy.

Started by `client.py` as `python -m forge.adapters.targets.local.agent FOLDER`. There is at most one for a
folder (it holds a lock). It may be killed at any time: replicas and proxy go on, and the next one adopts them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from forge.adapters.targets.local.folders import EnvironmentFolder, agent_socket
from forge.adapters.targets.local.operations import Operations
from forge.adapters.targets.local.records import forgotten
from forge.adapters.targets.local.supervisor import Supervisor

_LINE_LIMIT = 64 * 1024 * 1024
_LOOK_AFTER_SOCKET = 2.0

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def main(arguments: list[str]) -> int:
    """Detach, and be the agent of the folder in `arguments`. Returns to the caller when there is an agent: 0, or
    1 if it ended at its start."""
    folder = EnvironmentFolder(Path(arguments[0]))
    told, tell = os.pipe()
    # Twice: the caller neither gets a zombie, nor finds the agent among its descendants.
    if os.fork() > 0:
        os.close(tell)
        return 0 if os.read(told, 1) else 1
    os.close(told)
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    try:
        be_agent(folder, _Word(tell))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


class _Word:
    """Lets the process that started us end, once: there is an agent now."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def __call__(self) -> None:
        if self._pipe is None:
            return
        try:
            os.write(self._pipe, b"+")
        except BrokenPipeError:
            pass
        os.close(self._pipe)
        self._pipe = None


def be_agent(folder: EnvironmentFolder, started: Callable[[], None]) -> None:
    """Be the agent, unless there is one already. `started` is called when there is one."""
    folder.root.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        started()
        return
    held = os.fstat(lock)
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())

    def holds() -> bool:
        """Whether the lock's file is still there: who removes the folder wants the environment gone."""
        try:
            return os.path.samestat(folder.lock.stat(), held)
        except OSError:
            return False

    asyncio.run(serve(folder, started, holds))


async def serve(folder: EnvironmentFolder, started: Callable[[], None], holds: Callable[[], bool]) -> None:
    """Adopt what there is, answer requests, and look after everything until told to leave, or until `holds`
    says that the folder is not ours any more: then everything is stopped."""
    supervisor = Supervisor(folder)
    supervisor.holds = holds
    leaving = asyncio.Event()
    operations = Operations(supervisor, leaving.set)
    answering: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answering.add(task)
        try:
            while (line := await reader.readline()) and holds():
                writer.write(await operations.answer(line))
                await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            answering.discard(task)
            writer.close()

    supervisor.adopt()
    path = agent_socket(supervisor.runtime)
    listening = asyncio.create_task(_listen(path, connected, started))
    looking_after = asyncio.create_task(supervisor.run())
    told = asyncio.create_task(leaving.wait())
    await asyncio.wait({looking_after, told, listening}, return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    if not holds():
        await supervisor.abandon()
        return
    path.unlink(missing_ok=True)
    for task in (looking_after, listening):
        if task.done():
            task.result()
    if supervisor.state.stopping:
        _clear(supervisor)
    if answering:
        await asyncio.wait(answering, timeout=1.0)
    looking_after.cancel()


async def _listen(path: Path, connected: Connected, started: Callable[[], None]) -> None:
    """Listen, also when something takes the socket's file away. Cancelled to end."""
    while True:
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(connected, str(path), limit=_LINE_LIMIT)
        started()
        try:
            while path.exists():
                await asyncio.sleep(_LOOK_AFTER_SOCKET)
        finally:
            server.close()


def _clear(supervisor: Supervisor) -> None:
    """Leave nothing of an environment that was taken down but its token, its port and its logs."""
    supervisor.state = forgotten(supervisor.state)
    supervisor.save()
    shutil.rmtree(supervisor.folder.versions, ignore_errors=True)
    for name in ("eds", "cds", "rds"):
        shutil.rmtree(supervisor.folder.envoy / name, ignore_errors=True)
    shutil.rmtree(supervisor.runtime, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
