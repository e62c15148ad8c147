"""Grafana's API of annotations on loopback: its paths, its fields, its answers, and its refusals."""

from __future__ import annotations

import http.server
import json
import re
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Grafana:
    """Keeps annotations as Grafana does. While `fault` is a status, it answers that and keeps nothing; `forget` is how
    many answers to POST are lost after the annotation was made."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.fault = 0
        self.forget = 0
        self.annotations: dict[int, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Grafana:
        grafana = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                grafana._serve(self)

            do_POST = do_PATCH = do_GET

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def of(self, release: str) -> list[dict[str, Any]]:
        """The annotations of a release in the order of their time."""
        with self._lock:
            own = [dict(one) for one in self.annotations.values() if f"release:{release}" in one["tags"]]
        return sorted(own, key=lambda one: (one["time"], one["id"]))

    def steps(self, release: str) -> list[str]:
        return [tag[5:] for one in self.of(release) for tag in one["tags"] if tag.startswith("step:")]

    def _serve(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        with self._lock:
            self.asked.append((request.command, request.path))
            status, answer = self._answer(request, body)
            lost = status == 200 and request.command == "POST" and self.forget > 0
            self.forget -= lost
        if lost:
            request.close_connection = True
            return
        content = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json; charset=UTF-8")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _answer(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, Any]:
        if self.fault:
            return self.fault, {"message": "not now"}
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {"message": "Invalid API key"}
        parts = urlsplit(request.path)
        if request.command == "GET" and parts.path == "/api/annotations":
            return 200, self._found(parse_qs(parts.query))
        if request.command == "POST" and parts.path == "/api/annotations":
            sent = json.loads(body)
            if not sent.get("text"):
                return 400, {"message": "Failed to save annotation: text field should not be empty"}
            number = len(self.annotations) + 1
            end = sent.get("timeEnd") or sent["time"]
            self.annotations[number] = {**sent, "id": number, "timeEnd": end, "tags": sent.get("tags", [])}
            return 200, {"id": number, "message": "Annotation added"}
        match = re.fullmatch(r"/api/annotations/(\d+)", parts.path)
        if request.command == "PATCH" and match:
            if int(match[1]) not in self.annotations:
                return 404, {"message": "Annotation not found"}
            self.annotations[int(match[1])].update(json.loads(body))
            return 200, {"message": "Annotation patched"}
        return 404, {"message": "Not found"}

    def _found(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        tags, first, last = set(query.get("tags", ())), int(query["from"][0]), int(query["to"][0])
        return [
            one
            for one in self.annotations.values()
            if tags <= set(one["tags"]) and one["time"] <= last and one["timeEnd"] >= first
        ]
