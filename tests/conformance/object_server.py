"""A server on loopback that speaks as much S3 as artifact stores use: objects and multipart uploads."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class ObjectServer(ThreadingHTTPServer):
    """Keeps objects in memory. While `full`, it answers 507 to every write, as a full disk would."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.stored_at: dict[str, float] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.requests: list[str] = []
        self.full = False
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: ObjectServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_PUT(self) -> None:
        path, query = self._target()
        content = self._content()
        if self.server.full:
            return self._answer(507, b"<Error><Code>InsufficientStorage</Code></Error>")
        if "uploadId" in query:
            self.server.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = content
        else:
            self.server.objects[path] = content
            self.server.stored_at[path] = time.time()
        return self._answer(200, ETag=f'"{hashlib.md5(content).hexdigest()}"')

    def do_POST(self) -> None:
        path, query = self._target()
        content = self._content()
        if "uploads" in query:
            upload = f"upload-{len(self.server.uploads)}"
            self.server.uploads[upload] = {}
            body = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return self._answer(200, body.encode())
        if "delete" in query:
            names = re.findall("<Key>(.*?)</Key>", content.decode())
            for name in names:
                self.server.objects.pop(f"{path.rstrip('/')}/{name}", None)
            deleted = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
            return self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())
        parts = self.server.uploads.pop(query["uploadId"][0])
        self.server.objects[path] = b"".join(parts[number] for number in sorted(parts))
        return self._answer(200, b'<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>')

    def do_GET(self) -> None:
        path, _ = self._target()
        content = self.server.objects.get(path)
        if content is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        date = formatdate(self.server.stored_at.setdefault(path, time.time()), usegmt=True)
        return self._answer(200, content, **{"ETag": '"x"', "Last-Modified": date})

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        path, query = self._target()
        if "uploadId" in query:
            self.server.uploads.pop(query["uploadId"][0], None)
        else:
            self.server.objects.pop(path, None)
        self._answer(204)

    def _target(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        self.server.requests.append(f"{self.command} {self.path}")
        return parts.path, parse_qs(parts.query, keep_blank_values=True)

    def _content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
