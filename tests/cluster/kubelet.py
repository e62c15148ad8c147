"""The part of a kubelet's HTTPS API that the apiserver asks: logs of containers, also while they are written."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from cluster.kubelet_exec import FindContainer, serve_exec

Find = Callable[[str, str, str, bool], Path]
"""Returns the log of (namespace, pod, container, whether of its life before). Raises NoLog."""


class NoLog(Exception):
    """There is no such log; `code` is the answer's."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


class KubeletServer:
    """Serves on loopback; whoever reaches it may read: it is a test cluster's."""

    def __init__(self, find: Find, find_container: FindContainer, certificate: Path, key: Path) -> None:
        self._find = find
        self._find_container = find_container
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate, key)
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.decode("latin-1").split()[1]
            if target.startswith("/exec/"):
                await serve_exec(self._find_container, head, reader, writer)
            else:
                await self._answer(target, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    async def _answer(self, target: str, writer: asyncio.StreamWriter) -> None:
        address = urlsplit(target)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        wanted = {key: values[-1] for key, values in parse_qs(address.query).items()}
        try:
            if parts[:1] != ["containerLogs"] or len(parts) != 4:
                raise NoLog(404, f"there is no {address.path}")
            path = self._find(parts[1], parts[2], parts[3], wanted.get("previous") in {"true", "1"})
        except NoLog as problem:
            words = str(problem).encode()
            head = f"HTTP/1.1 {problem.code} -\r\nContent-Length: {len(words)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + words)
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        await self._lines(path, wanted, writer)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _lines(self, path: Path, wanted: dict[str, str], writer: asyncio.StreamWriter) -> None:
        """Write the lines that are there, and, with `follow`, those that come until the container is gone."""
        with path.open("rb") as file:
            lines = [line for line in file.read().splitlines(keepends=True) if _is_since(line, wanted)]
            if "tailLines" in wanted:
                count = int(wanted["tailLines"])
                lines = lines[-count:] if count else []
            _write(writer, lines, wanted)
            await writer.drain()
            silent = 0
            while wanted.get("follow") in {"true", "1"}:
                more = file.readlines()
                # Two looks without a writer: the last line of a container may come just before it is gone.
                silent = 0 if more or self._alive(path) else silent + 1
                if silent > 1:
                    return
                _write(writer, more, wanted)
                await writer.drain()
                await asyncio.sleep(0.05)

    @staticmethod
    def _alive(path: Path) -> bool:
        return path.with_suffix(".running").exists()


def _write(writer: asyncio.StreamWriter, lines: list[bytes], wanted: dict[str, str]) -> None:
    stamped = wanted.get("timestamps") in {"true", "1"}
    body = b"".join(line if stamped else line.partition(b" ")[2] for line in lines)
    if body:
        writer.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")


def _is_since(line: bytes, wanted: dict[str, str]) -> bool:
    if "sinceTime" in wanted:
        return _moment(line.partition(b" ")[0].decode()) >= _moment(wanted["sinceTime"])
    if "sinceSeconds" in wanted:
        begin = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=int(wanted["sinceSeconds"]))
        return _moment(line.partition(b" ")[0].decode()) >= begin
    return True


def _moment(text: str) -> dt.datetime:
    head, _, rest = text.rstrip("Z").partition(".")
    return dt.datetime.fromisoformat(f"{head}.{(rest + '000000')[:6]}+00:00")
