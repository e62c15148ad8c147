"""What is no JSON: the bytes of a container's log, and commands in a running container.

Commands go over a WebSocket in the protocol `v4.channel.k8s.io`, which every cluster speaks; it cannot close standard
input, so a command that reads it is told how many bytes come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from forge.adapters.kubernetes import errors
from forge.adapters.kubernetes.connection import SECONDS, Cluster
from forge.adapters.kubernetes.kinds import POD
from forge.model.errors import DependencyFailed

if TYPE_CHECKING:
    from httpx2.websockets import AsyncWebSocketSession

PROTOCOL = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS = range(4)
SLICE = 1 << 17
LARGEST_MESSAGE = 1 << 22
KEPT_STDERR = 4000


class Executed(msgspec.Struct, frozen=True):
    """How a command in a container ended; `complaint` is what it said on stderr, at most some thousand bytes."""

    exit_code: int
    complaint: str = ""


async def log_chunks(
    cluster: Cluster, pod: str, params: Mapping[str, str], *, namespace: str = "", silence: float | None = None
) -> AsyncIterator[bytes]:
    """Yield a log's bytes as they come. `silence`: seconds without any after which the connection counts as lost.

    Raises DependencyFailed; NotThere when there is no such pod.
    """
    import httpx2

    asked = f"read the log of Pod {pod}"
    client = cluster.http()
    path = POD.path(namespace or cluster.namespace, pod, "log")
    timeout = httpx2.Timeout(SECONDS, read=silence)
    try:
        async with client.stream("GET", path, params=dict(params), timeout=timeout) as response:
            if response.status_code >= 400:
                raise errors.failure(response.status_code, await response.aread(), asked, cluster.name)
            async for chunk in response.aiter_raw():
                yield chunk
    except (httpx2.HTTPError, OSError) as error:
        raise DependencyFailed(f"{cluster.name}: {asked}: {error or type(error).__name__}") from error


async def execute(
    cluster: Cluster,
    pod: str,
    container: str,
    command: Sequence[str],
    *,
    namespace: str = "",
    stdin: Iterator[bytes] | None = None,
    stdout: Callable[[bytes], object] | None = None,
    timeout: float = 60.0,
) -> Executed:
    """Run a command in a container to its end. Raises DependencyFailed, also after `timeout` seconds."""
    asked = f"run {command[0]} in Pod {pod}"
    params: dict[str, Any] = {"container": container, "command": list(command), "stdout": "true", "stderr": "true"}
    if stdin is not None:
        params["stdin"] = "true"
    path = POD.path(namespace or cluster.namespace, pod, "exec")
    try:
        async with asyncio.timeout(timeout), _session(cluster, path, params, asked) as session:
            sending = asyncio.ensure_future(_send(session, stdin)) if stdin is not None else None
            try:
                return await _receive(session, stdout or (lambda _data: None), asked, cluster.name)
            finally:
                if sending is not None:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
    except TimeoutError as error:
        raise DependencyFailed(f"{cluster.name}: {asked}: it did not end within {timeout:g} s") from error


@asynccontextmanager
async def _session(
    cluster: Cluster, path: str, params: Mapping[str, Any], asked: str
) -> AsyncIterator[AsyncWebSocketSession]:
    import httpx2
    from httpx2.websockets import HTTPXWSException, WebSocketUpgradeError

    client = cluster.http()
    try:
        async with client.websocket(
            path, params=params, subprotocols=[PROTOCOL], max_message_size_bytes=LARGEST_MESSAGE,
            keepalive_ping_interval_seconds=None,
        ) as session:  # fmt: skip
            yield session
    except BaseException as raised:
        error = _inner(raised)
        if isinstance(error, WebSocketUpgradeError):
            raise _refused(error.response.status_code, path, asked, cluster) from raised
        if isinstance(error, (httpx2.HTTPError, HTTPXWSException, OSError)) and not isinstance(error, TimeoutError):
            raise DependencyFailed(f"{cluster.name}: {asked}: {error or type(error).__name__}") from raised
        if error is not raised:
            raise error from None
        raise


def _refused(status: int, path: str, asked: str, cluster: Cluster) -> DependencyFailed:
    """The error for a WebSocket that was not opened; why is in an answer's body, which is gone by then."""
    if status == 403:
        namespace = path.rsplit("/namespaces/", maxsplit=1)[-1].split("/", maxsplit=1)[0]
        words = f"not allowed to get and create pods/exec in namespace {namespace}"
        return DependencyFailed(f"{cluster.name}: {words}", hint=errors.PERMISSIONS)
    return errors.failure(status, b"", asked, cluster.name)


def _inner(error: BaseException) -> BaseException:
    """The WebSocket's own tasks wrap what goes wrong in groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _send(session: AsyncWebSocketSession, stdin: Iterator[bytes]) -> None:
    while chunk := await asyncio.to_thread(next, stdin, b""):
        await session.send_bytes(bytes((STDIN,)) + chunk)


async def _receive(
    session: AsyncWebSocketSession, stdout: Callable[[bytes], object], asked: str, where: str
) -> Executed:
    complaint = b""
    while True:
        message = await session.receive_bytes()
        channel, data = (message[0], message[1:]) if message else (STDOUT, b"")
        if channel == STDOUT and data:
            stdout(data)
        elif channel == STDERR:
            complaint = (complaint + data)[:KEPT_STDERR]
        elif channel == STATUS:
            return _executed(data, complaint.decode(errors="replace").strip(), asked, where)


def _executed(status: bytes, complaint: str, asked: str, where: str) -> Executed:
    try:
        told = msgspec.json.decode(status, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise DependencyFailed(f"{where}: {asked}: {status[:200].decode(errors='replace')}") from None
    if told.get("status") == "Success":
        return Executed(0, complaint)
    causes = (told.get("details") or {}).get("causes") or ()
    code = next((str(cause.get("message")) for cause in causes if cause.get("reason") == "ExitCode"), "")
    if code.lstrip("-").isdigit():
        return Executed(int(code), complaint)
    raise DependencyFailed(f"{where}: {asked}: {told.get('message') or 'it could not be started'}")
