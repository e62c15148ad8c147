"""Is a replica ready? Asked by HTTP, by TCP, or by a command."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from forge.model.configs import Readiness


async def probe(ready: Readiness, port: int, *, env: Mapping[str, str], cwd: Path) -> str | None:
    """Return None if the replica is ready, else why not. Never raises; takes at most `ready.timeout`."""
    what = _name(ready)
    try:
        async with asyncio.timeout(ready.timeout):
            reason = None
            if ready.http:
                reason = await _http(ready.http, port)
            elif ready.tcp:
                reason = await _tcp(port)
            if reason is None and ready.command:
                reason = await _command(ready.command, env, cwd)
            return reason
    except TimeoutError:
        return f"{what} gave no answer within {ready.timeout:g}s"
    except (OSError, ValueError, EOFError) as error:
        return f"{what} failed: {_reason(error)}"


def _name(ready: Readiness) -> str:
    if ready.http:
        return f"GET {ready.http}"
    return "connecting" if ready.tcp else f"command `{' '.join(ready.command)}`"


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens on its port yet"
    return str(error) or type(error).__name__


async def _tcp(port: int) -> str | None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return None


async def _http(path: str, port: int) -> str | None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        target = path if path.startswith("/") else f"/{path}"
        head = (
            f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: forge-ready\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        await writer.drain()
        line = (await reader.readline()).decode("latin-1").split(None, 2)
    finally:
        writer.close()
    if len(line) < 2 or not line[0].startswith("HTTP/") or not line[1].isdigit():
        return f"GET {path} was not answered in HTTP"
    return None if 200 <= int(line[1]) < 400 else f"GET {path} answered {line[1]}"


async def _command(command: tuple[str, ...], env: Mapping[str, str], cwd: Path) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *command, env=dict(env), cwd=cwd, start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        status = await process.wait()
    finally:
        if process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await process.wait()
    return None if status == 0 else f"command `{' '.join(command)}` exited with code {status}"
