"""`Idempotency-Key`: a write that is sent twice is done once, and answered the same both times.

Kept for a day in the site's database, under a hash of who asked for what. The key also goes to the project's own
database with the command, so that a server that dies between doing and remembering does not make it two.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import Request
from sqlalchemy import Column, Double, Integer, LargeBinary, Table, Text, delete, select, update
from sqlalchemy.exc import IntegrityError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forge.model.errors import ForgeError
from forge.server.database import metadata
from forge.server.identity.guard import signed_in
from forge.server.problems import Problem, answer

if TYPE_CHECKING:
    from forge.server.site import Site

KEPT_SECONDS = 24 * 3600.0
ABANDONED_SECONDS = 120.0
"""A write that was begun so long ago and has no answer died with its server; it may be tried again."""
LONGEST_KEY = 255
LONGEST_ANSWER = 1_000_000
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_STATE_KEY = "idempotency_key"

answers = Table(
    "idempotent_answers",
    metadata,
    Column("key", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("status", Integer),  # NULL: under way
    Column("headers", LargeBinary),
    Column("answer", LargeBinary),
)


def key_of(request: Request) -> str:
    """Return what the project's database knows the write by; empty: the client gave no key."""
    return str(getattr(request.state, _STATE_KEY, ""))


class Idempotency:
    """Middleware: answers a repeated write from memory. Only writes of the API with the header are looked at."""

    def __init__(self, app: ASGIApp, site: Site, prefix: str) -> None:
        self._app = app
        self._site = site
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] not in _WRITES or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("idempotency-key")
        if given is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            await self._once(request, given, send)
        except (Problem, ForgeError, HTTPException) as error:
            await (await answer(request, error))(scope, receive, send)

    async def _once(self, request: Request, given: str, send: Send) -> None:
        if not given or len(given) > LONGEST_KEY or not (given.isascii() and given.isprintable()):
            raise Problem(400, f"an Idempotency-Key is 1 to {LONGEST_KEY} printable ASCII characters")
        body = await request.body()
        key, body_hash = _hash(_who(request), request.method, request.url.path, given), _hash(body)
        if (known := await self._begin(key, body_hash)) is not None:
            await signed_in(request)  # a token may be revoked since
            await send({"type": "http.response.start", "status": known.status, "headers": known.headers})
            await send({"type": "http.response.body", "body": known.body})
            return
        request.scope.setdefault("state", {})[_STATE_KEY] = key
        recorder = _Recorder(send)
        try:
            await self._app(request.scope, _replayed(body), recorder.send)
        finally:
            await self._end(key, recorder)

    async def _begin(self, key: str, body_hash: str) -> _Known | None:
        """Write down that it is begun; return the answer when it was given before. Raises Problem."""
        now = self._site.clock()
        try:
            async with self._site.database.begin() as connection:
                await connection.execute(delete(answers).where(answers.c.at < now - KEPT_SECONDS))
                abandoned = answers.c.status.is_(None) & (answers.c.at < now - ABANDONED_SECONDS)
                await connection.execute(delete(answers).where((answers.c.key == key) & abandoned))
                await connection.execute(answers.insert().values(key=key, body_hash=body_hash, at=now))
            return None
        except IntegrityError:
            pass
        async with self._site.database.read() as connection:
            row = (await connection.execute(select(answers).where(answers.c.key == key))).one_or_none()
        if row is None or (row.status is None and row.body_hash == body_hash):
            raise Problem(409, "the first request with this Idempotency-Key is under way", headers={"Retry-After": "1"})
        if row.body_hash != body_hash:
            raise Problem(409, "this Idempotency-Key was used for another request", hint="take a new key")
        if row.answer is None:
            raise Problem(409, "this was done already, and its answer is told only once")
        headers = [(name.encode(), value.encode()) for name, value in msgspec.json.decode(row.headers)]
        return _Known(row.status, [*headers, (b"idempotent-replay", b"true")], row.answer)

    async def _end(self, key: str, recorder: _Recorder) -> None:
        """Keep an answer that says that something was done; forget the key of what was not."""
        async with self._site.database.begin() as connection:
            if not 200 <= recorder.status < 300:
                await connection.execute(delete(answers).where(answers.c.key == key))
                return
            kept = None if recorder.private else bytes(recorder.body)
            headers = msgspec.json.encode(
                [(name.decode("latin-1"), value.decode("latin-1")) for name, value in recorder.kept]
            )
            values: dict[str, Any] = {"status": recorder.status, "headers": headers, "answer": kept}
            await connection.execute(update(answers).where(answers.c.key == key).values(values))


class _Known(msgspec.Struct, frozen=True):
    """An answer that was given before."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class _Recorder:
    """Passes an answer on and remembers it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.kept: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.private = False
        """What must not be kept: a new token, or what is too long."""

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", [])]
            self.kept = [one for one in headers if one[0] in {b"content-type", b"location", b"content-length"}]
            self.private = any(name == b"cache-control" and b"no-store" in value for name, value in headers)
        elif message["type"] == "http.response.body":
            if len(self.body) + len(message.get("body", b"")) > LONGEST_ANSWER:
                self.private = True
            if not self.private:
                self.body += message.get("body", b"")
        await self._send(message)


def _replayed(body: bytes) -> Receive:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _who(request: Request) -> str:
    """Return what tells clients apart; the hash of it is kept, never the credentials."""
    return request.headers.get("authorization", "") + "\n" + request.headers.get("cookie", "")


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
