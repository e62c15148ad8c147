"""Commands in a running container, as a kubelet gives them: over a WebSocket, each message with its channel in front."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, RejectConnection, Request

from cluster.container import Container, has_mount_namespaces, relocated

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""The fifth adds that one side can end a channel: kubectl ends standard input so."""
STDIN, STDOUT, STDERR, STATUS = range(4)
END = 255
SLICE = 1 << 16
FindContainer = Callable[[str, str, str], Container | None]
"""Returns the running (namespace, pod, container), None when there is none."""


async def serve_exec(
    find: FindContainer, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one request for `/exec/NAMESPACE/POD/CONTAINER`; `head` are the bytes of the request that were read."""
    socket = WSConnection(ConnectionType.SERVER)
    socket.receive_data(head)
    request = next(event for event in socket.events() if isinstance(event, Request))
    address = urlsplit(request.target)
    _, namespace, pod, container = (unquote(part) for part in address.path.strip("/").split("/"))
    found = find(namespace, pod, container)
    asked = parse_qs(address.query)
    protocol = next((each for each in PROTOCOLS if each in request.subprotocols), None)
    if found is None or found.process is None or protocol is None:
        writer.write(socket.send(RejectConnection(status_code=404 if found is None else 403)))
        await writer.drain()
        return
    writer.write(socket.send(AcceptConnection(subprotocol=protocol)))
    process = await asyncio.create_subprocess_exec(
        *inside(found, asked.get("command", [])), env=found.env, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    if not asked.keys() & {"input", "stdin"}:
        assert process.stdin
        process.stdin.close()
    receiving = asyncio.create_task(_take(socket, reader, writer, process))
    try:
        assert process.stdout
        assert process.stderr
        await asyncio.gather(
            _give(socket, writer, STDOUT, process.stdout), _give(socket, writer, STDERR, process.stderr)
        )
        _send(socket, writer, STATUS, json.dumps(_status(await process.wait())).encode())
        writer.write(socket.send(CloseConnection(1000)))
        await writer.drain()
    finally:
        receiving.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


def inside(container: Container, words: list[str]) -> list[str]:
    """Return the words that run a command where the container's own process sees its mounts."""
    assert container.process
    who = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    if not container.mounts:
        return words
    if not has_mount_namespaces():
        return [relocated(word, container.mounts) for word in words]
    return ["nsenter", *who, "--mount", "--target", str(container.process.pid), *words]


async def _take(
    socket: WSConnection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    process: asyncio.subprocess.Process,
) -> None:
    """Pass standard input on; end the command when whoever asked is gone."""
    assert process.stdin
    message = b""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while data := await reader.read(SLICE):
            socket.receive_data(data)
            for event in socket.events():
                if isinstance(event, BytesMessage):
                    message += event.data  # a long message comes in parts, and only the first has the channel
                    if not event.message_finished:
                        continue
                    if message == bytes((END, STDIN)):
                        process.stdin.close()
                    elif message[:1] == bytes((STDIN,)):
                        process.stdin.write(message[1:])
                        await process.stdin.drain()
                    message = b""
                elif isinstance(event, Ping):
                    writer.write(socket.send(event.response()))
                elif isinstance(event, CloseConnection):
                    break
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _give(socket: WSConnection, writer: asyncio.StreamWriter, channel: int, source: asyncio.StreamReader) -> None:
    while data := await source.read(SLICE):
        _send(socket, writer, channel, data)
        await writer.drain()


def _send(socket: WSConnection, writer: asyncio.StreamWriter, channel: int, data: bytes) -> None:
    writer.write(socket.send(BytesMessage(bytes((channel,)) + data)))


def _status(code: int) -> dict[str, object]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    code = code if code > 0 else 128 - code
    causes = [{"reason": "ExitCode", "message": str(code)}]
    words = f"command terminated with non-zero exit code: exit status {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": words,
        "details": {"causes": causes},
    }
