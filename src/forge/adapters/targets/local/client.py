"""Talking to an environment's agent, which is started when none is alive."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import msgspec

from forge.adapters.targets.local.folders import EnvironmentFolder, agent_socket
from forge.adapters.targets.local.logs import last_lines
from forge.adapters.targets.local.protocol import PROTOCOL, Answer, Request, raise_error
from forge.adapters.targets.local.replicas import clean_environment
from forge.model.configs import EnvoyRouterConfig
from forge.model.errors import DependencyFailed

_AWAY = (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError, EOFError)
_LINE_LIMIT = 64 * 1024 * 1024


class AgentClient:
    """Asks the agent of one environment. Safe to use from several tasks at once."""

    def __init__(self, folder: EnvironmentFolder, environment: str, router: EnvoyRouterConfig) -> None:
        self.folder = folder
        self.environment = environment
        self.router = router
        self._starting = asyncio.Lock()

    async def ask(self, operation: str, *, timeout: float = 30.0, start: bool = True, **fields: Any) -> Any:
        """Return the agent's result. An agent that dies meanwhile is replaced and asked again, once: every
        operation is idempotent. Raises what the agent raised, DependencyFailed when there is no agent."""
        request = Request(operation, environment=self.environment, router=self.router, **fields)
        for last in (False, True):
            try:
                answer = await asyncio.wait_for(self._exchange(request), timeout)
                break
            except TimeoutError:
                msg = f"the agent of {self.environment} did not answer within {timeout:g}s"
                raise DependencyFailed(msg, hint=f"its log is {self.folder.agent_log}") from None
            except _AWAY as error:
                if last or not start:
                    msg = f"the agent of {self.environment} cannot be reached: {error or type(error).__name__}"
                    raise DependencyFailed(msg, hint=f"its log is {self.folder.agent_log}") from None
                await self.start()
        raise_error(answer)
        return answer.result

    async def is_alive(self) -> bool:
        """Return whether an agent answers; starts none."""
        try:
            await asyncio.wait_for(self._exchange(Request("hello")), 5.0)
        except (*_AWAY, TimeoutError):
            return False
        return True

    async def start(self, timeout: float = 20.0) -> None:
        """Make sure that an agent of our protocol is alive. Raises DependencyFailed with its last words."""
        async with self._starting:
            deadline = time.monotonic() + timeout
            spawned = 0.0
            while time.monotonic() < deadline:
                try:
                    hello = (await asyncio.wait_for(self._exchange(Request("hello")), 5.0)).result
                    if hello["protocol"] == PROTOCOL:
                        return
                    await self._exchange(Request("leave", protocol=hello["protocol"]))
                except (*_AWAY, TimeoutError):
                    # The agent that was just told to leave may hold the lock a moment longer: try again.
                    if time.monotonic() - spawned > 2.0:
                        await asyncio.to_thread(_spawn, self.folder)
                        spawned = time.monotonic()
                await asyncio.sleep(0.01)
        msg = f"the agent of {self.environment} did not start within {timeout:g}s"
        raise DependencyFailed(msg, hint=f"its log is {self.folder.agent_log}")

    async def _exchange(self, request: Request) -> Answer:
        path = agent_socket(self.folder.runtime())
        reader, writer = await asyncio.open_unix_connection(str(path), limit=_LINE_LIMIT)
        try:
            writer.write(msgspec.json.encode(request) + b"\n")
            await writer.drain()
            line = await reader.readline()
        finally:
            writer.close()
        if not line.endswith(b"\n"):
            raise EOFError("it went away")
        return msgspec.json.decode(line, type=Answer)


def _spawn(folder: EnvironmentFolder) -> None:
    """Start an agent; it detaches itself. Its environment is clean: nobody's cookies, nobody's secrets."""
    env = clean_environment()
    if "PYTHONPATH" in os.environ:
        env["PYTHONPATH"] = os.environ["PYTHONPATH"]
    folder.root.mkdir(parents=True, exist_ok=True)
    with folder.agent_log.open("ab") as log:
        command = [sys.executable, "-P", "-m", "forge.adapters.targets.local.agent", str(folder.root.resolve())]
        process = subprocess.run(
            command, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False,
            start_new_session=True, timeout=20,
        )  # fmt: skip
    if process.returncode != 0:
        last = " ".join(last_lines(folder.agent_log, 1))
        msg = f"the environment's agent ended at its start: {last}"
        raise DependencyFailed(msg, hint=f"its log is {folder.agent_log}")
