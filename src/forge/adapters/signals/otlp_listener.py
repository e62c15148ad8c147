"""The small HTTP server that OpenTelemetry exporters push to: one path, bounded in size and time (OTLP 1.x, HTTP)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hmac
import io
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import h11

from forge.adapters.signals.base import SecretReader
from forge.model.errors import DependencyFailed, ForgeError

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

PATH = "/v1/metrics"
LARGEST = 16 * 1024 * 1024
"""Bytes of one push, before and after it is unpacked."""
IDLE = 60.0
"""Seconds after which a connection that says nothing is closed."""
MOST_CONNECTIONS = 100


class _Refused(Exception):
    """A push that is not taken: HTTP status and words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class _Push(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class OtlpListener:
    """Listens on one address and hands every push on; `secret` names what an exporter must know."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        take: Callable[[ExportMetricsServiceRequest], None],
        *,
        secret: str = "",
        secrets: SecretReader | None = None,
    ) -> None:
        self._name = name
        self._host = host
        self._wanted = port
        self._take = take
        self._secret = secret
        self._secrets = secrets
        self._expected = ""
        self._server: asyncio.Server | None = None
        self._open = 0

    @property
    def port(self) -> int:
        """The port that is listened on; 0: not yet."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server and self._server.sockets else 0

    async def start(self) -> None:
        """Begin to listen, unless it does. Raises DependencyFailed when the port is taken."""
        if self._server is not None:
            return
        if self._secret and self._secrets is not None:
            self._expected = f"Bearer {await self._secrets(self._secret)}"
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._wanted)
        except OSError as error:
            raise DependencyFailed(
                f"{self._name} cannot listen on {self._host}:{self._wanted}: {error.strerror or error}",
                hint="another worker may listen there already; give each environment a port of its own",
            ) from None

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MOST_CONNECTIONS:
                await self._talk(reader, writer)
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # the exporter went away, or speaks no HTTP: it will try again
        finally:
            self._open -= 1
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            try:
                push = await _received(connection, reader)
                if push is None:
                    return
                status, words = 200, self._answer(push)
            except _Refused as refused:
                status, words = refused.status, refused.words
            kind = "application/x-protobuf" if status == 200 else "text/plain; charset=utf-8"
            body = words.encode()
            head = h11.Response(
                status_code=status, headers=[("Content-Type", kind), ("Content-Length", str(len(body)))]
            )
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                data = connection.send(event)
                if data:
                    writer.write(data)
            await writer.drain()
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    def _answer(self, push: _Push) -> str:
        if push.path.partition("?")[0] != PATH:
            raise _Refused(404, f"metrics are pushed to {PATH}")
        if push.method != "POST":
            raise _Refused(405, "metrics are pushed by POST")
        given = push.headers.get("authorization", "")
        if self._expected and not hmac.compare_digest(given.encode(), self._expected.encode()):
            raise _Refused(401, "not the right token")
        self._take(_decoded(push))
        return ""


async def _received(connection: h11.Connection, reader: asyncio.StreamReader) -> _Push | None:
    """Return the next push of a connection; None when it is over. Raises _Refused for one that is too large."""
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            async with asyncio.timeout(IDLE):
                connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST:
                raise _Refused(413, f"a push has at most {LARGEST} bytes")
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in head.headers}
            return _Push(head.method.decode(), head.target.decode("latin-1"), headers, bytes(body))
        else:
            return None


def _decoded(push: _Push) -> ExportMetricsServiceRequest:
    from google.protobuf.json_format import Parse, ParseError
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    body = _unpacked(push)
    kind = push.headers.get("content-type", "").partition(";")[0].strip()
    try:
        if kind == "application/json":
            request = ExportMetricsServiceRequest()
            Parse(body, request, ignore_unknown_fields=True)
            return request
        if kind == "application/x-protobuf":
            request = ExportMetricsServiceRequest()
            request.ParseFromString(body)
            return request
    except (DecodeError, ParseError, UnicodeDecodeError, ForgeError) as error:
        raise _Refused(400, f"cannot be read: {str(error)[:200]}") from None
    raise _Refused(415, "send application/x-protobuf or application/json")


def _unpacked(push: _Push) -> bytes:
    encoding = push.headers.get("content-encoding", "identity")
    if encoding in ("identity", ""):
        return push.body
    if encoding != "gzip":
        raise _Refused(415, "send it plain, or packed with gzip")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(push.body)) as packed:
            body = packed.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _Refused(400, f"cannot be unpacked: {error}") from None
    if len(body) > LARGEST:
        raise _Refused(413, f"a push has at most {LARGEST} bytes")
    return body
