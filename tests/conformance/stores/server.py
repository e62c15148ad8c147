"""A store on loopback for tests: answers in the shape of a real one, and fails in every way that a real one does."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

FAULTS = ("500", "429", "401", "html", "truncated", "hang", "endless", "redirect", "wrong_shape", "cut_off")


class Asked(NamedTuple):
    """One request as the store received it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The body as an HTML form."""
        return dict(parse_qsl(self.body.decode()))


@dataclass
class StoreServer:
    """Serves `answer` (which returns the body as bytes) until a `fault` is set. `asked` keeps what was asked."""

    answer: Callable[[Asked], bytes]
    kind: str = "application/json"
    fault: str = ""
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> StoreServer:
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                store._handle(self)

            do_POST = do_GET

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._stopping = threading.Event()
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        parts = urlsplit(handler.path)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(
            handler.command, parts.path, dict(parse_qsl(parts.query)), headers, handler.rfile.read(length)
        )  # fmt: skip
        self.asked.append(asked)
        try:
            self._reply(handler, asked)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True

    def _reply(self, handler: http.server.BaseHTTPRequestHandler, asked: Asked) -> None:
        if self.fault == "hang":
            self._stopping.wait(20)
            handler.close_connection = True
        elif self.fault == "endless":
            handler.send_response(200)
            handler.end_headers()
            for _ in range(100_000):
                if self._stopping.is_set():
                    return
                handler.wfile.write(b'["' + b"x" * 65536)
                time.sleep(0.001)
        elif self.fault == "redirect":
            _send(handler, 302, b"", {"Location": "http://127.0.0.2:9/elsewhere"})
        elif self.fault in ("500", "429", "401"):
            _send(handler, int(self.fault), b'{"error":"no"}', {"Retry-After": "7"})
        elif self.fault == "html":
            _send(handler, 200, b"<html><body>Please log in</body></html>", {"Content-Type": "text/html"})
        elif self.fault == "wrong_shape":
            _send(handler, 200, b'{"something":["else"]}', {"Content-Type": "application/json"})
        elif self.fault == "cut_off":
            body = self.answer(asked)
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body) + 100))
            handler.end_headers()
            handler.wfile.write(body)
            handler.close_connection = True
        else:
            body = self.answer(asked)
            _send(
                handler, 200, body[: len(body) // 2] if self.fault == "truncated" else body, {"Content-Type": self.kind}
            )


def _send(handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
