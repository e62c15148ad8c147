"""Asking a server: one connection pool, bounded times, errors as the exceptions that they were on the other side."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
import msgspec
import stamina

from forge import __version__
from forge.model.diagnostics import Diagnostic
from forge.model.errors import (
    DependencyFailed,
    ForgeError,
    InvalidConfiguration,
    NotAllowed,
    Rejected,
    StillRunning,
    UsageError,
)

T = TypeVar("T")
TIMES = httpx2.Timeout(30.0, connect=5.0, pool=10.0)
PATIENT = httpx2.Timeout(300.0, connect=5.0, pool=10.0)
"""For what takes longer the more there is, such as proving that nobody changed the record."""
STREAM = httpx2.Timeout(60.0, connect=5.0, pool=10.0)
"""A stream that is silent for longer has no server any more: that says every 15 s that it is there."""
ATTEMPTS = 5
LONGEST_DETAIL = 2000
_PASSING = frozenset({429, 502, 503, 504})


class _Again(Exception):
    """What may go better the next time; `error` is what to raise when it does not."""

    def __init__(self, error: ForgeError, wait: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait = wait


class Problem(msgspec.Struct, frozen=True):
    """What every error is answered with (RFC 9457)."""

    detail: str = ""
    hint: str = ""
    kind: str = ""
    diagnostics: tuple[Diagnostic, ...] = ()
    errors: tuple[dict[str, Any], ...] = ()


class Api:
    """The API of one server. `close` ends its connections."""

    def __init__(self, server: str, token: str, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.server = check_server(server)
        headers = {"User-Agent": f"forge/{__version__}", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx2.AsyncClient(
            base_url=f"{self.server}/api/v1/",
            headers=headers,
            timeout=TIMES,
            follow_redirects=False,  # the token must go nowhere else
            transport=transport,
        )

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    async def get(
        self, path: str, type_: type[T], params: Mapping[str, Any] | None = None, *, patient: bool = False
    ) -> T:
        """Return what is there. Raises what the server's problem stands for."""
        return self._decode((await self.read(path, params, patient=patient)).content, type_)

    async def read(
        self, path: str, params: Mapping[str, Any] | None = None, *, patient: bool = False
    ) -> httpx2.Response:
        """Return a whole answer, asked for again while the server is away for a moment."""
        return await self._send("GET", path, params=dict(params or {}), timeout=PATIENT if patient else TIMES)

    async def post(self, path: str, type_: type[T], body: Mapping[str, Any], *, key: str = "") -> T:
        """Write, once: also when it has to be sent again, since it always has an Idempotency-Key."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex, "Content-Type": "application/json"}
        answer = await self._send("POST", path, content=msgspec.json.encode(body), headers=headers)
        return self._decode(answer.content, type_)

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[httpx2.Response]:
        """Open a long answer. Raises what the server's problem stands for."""
        try:
            async with self._client.stream("GET", path) as answer:
                await self._check(answer)
                yield answer
        except httpx2.HTTPError as error:
            raise self._away(error) from error

    @asynccontextmanager
    async def events(self, path: str, params: Mapping[str, Any], after: int) -> AsyncIterator[httpx2.EventSource]:
        """Open a stream of events that resumes after a number."""
        headers = {"Last-Event-ID": str(after)}
        try:
            async with self._client.sse(path, params=dict(params), headers=headers, timeout=STREAM) as source:
                await self._check(source.response)
                yield source
        except httpx2.HTTPError as error:
            raise self._away(error) from error

    async def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        try:
            async for attempt in stamina.retry_context(
                on=_when, attempts=ATTEMPTS, timeout=30.0, wait_initial=0.2, wait_max=2.0, wait_jitter=0.2
            ):
                with attempt:
                    return await self._send_once(method, path, request)
        except _Again as again:
            raise again.error from again.__cause__
        raise AssertionError("the last attempt returns or raises")

    async def _send_once(self, method: str, path: str, request: dict[str, Any]) -> httpx2.Response:
        try:
            answer = await self._client.request(method, path, **request)
        except httpx2.TransportError as error:
            raise _Again(self._away(error)) from error
        except httpx2.HTTPError as error:
            raise self._away(error) from error
        wait = answer.headers.get("retry-after", "")
        try:
            await self._check(answer)
        except ForgeError as error:
            if answer.status_code in _PASSING or (answer.status_code == 409 and wait):
                raise _Again(error, min(float(wait), 5.0) if wait.isdigit() else None) from error
            raise
        return answer

    async def _check(self, answer: httpx2.Response) -> None:
        if answer.is_success:
            return
        if answer.is_redirect:
            raise UsageError(
                f"{self.server} sends on to {_plain(answer.headers.get('location', 'nowhere'))[:200]}",
                hint="the token goes to no other place than FORGE_SERVER; correct that",
            )
        await answer.aread()
        self._raise_problem(answer)

    def _raise_problem(self, answer: httpx2.Response) -> NoReturn:
        """Raise the exception that the server's answer stands for."""
        try:
            problem = msgspec.json.decode(answer.content, type=Problem)
        except msgspec.MsgspecError:
            problem = Problem()
        status = answer.status_code
        words = _plain(problem.detail) or f"{self.server} answered with {status} {_plain(answer.reason_phrase)}"
        hint = _plain(problem.hint) or None
        if status == 401:
            raise NotAllowed(words, hint=hint or "`forge login` keeps a token, or set FORGE_TOKEN")
        if status == 403:
            raise (Rejected if problem.kind == "rejected" else NotAllowed)(words, hint=hint)
        if status == 422 and problem.diagnostics:
            raise InvalidConfiguration(problem.diagnostics)
        if status == 504 and problem.detail:
            raise StillRunning(words, hint=hint)
        if 400 <= status < 500 and status != 429:
            if not problem.detail:
                hint = f"is there a Forge at {self.server}?"
            fields = "; ".join(f"{one.get('at', '')}: {one.get('message', '')}" for one in problem.errors)
            raise UsageError(f"{words}: {_plain(fields)}" if fields else words, hint=hint)
        raise DependencyFailed(words, hint=hint or f"see the log of {self.server}")

    def _away(self, error: Exception) -> DependencyFailed:
        words = str(error) or type(error).__name__
        return DependencyFailed(f"{self.server} does not answer: {words}", hint="is it FORGE_SERVER that you mean?")

    def _decode(self, content: bytes, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=type_)
        except msgspec.MsgspecError as error:
            raise DependencyFailed(
                f"what {self.server} answers is not what this Forge ({__version__}) understands: {error}",
                hint="the server may be of another version, or something else",
            ) from error


def check_server(server: str) -> str:
    """Return a server's URL without a slash at its end. Raises UsageError for one that is none or is not safe."""
    try:
        url = httpx2.URL(server.strip().rstrip("/"))
        urlsplit(server.strip())  # which knows more of what is wrong with a host
    except (httpx2.InvalidURL, ValueError):
        raise UsageError(f"`{server}` is no URL", hint="such as https://forge.example.org") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise UsageError(f"`{server}` is no URL of a server", hint="such as https://forge.example.org")
    if url.userinfo or url.query or url.fragment:
        raise UsageError("a server's URL has no name, password or query in it", hint="the token goes into FORGE_TOKEN")
    if url.scheme == "http" and url.host not in {"localhost", "127.0.0.1", "::1"}:
        raise UsageError(f"{server} would get the token in the clear", hint=f"https://{url.netloc.decode()} does not")
    return str(url)


def _plain(text: str) -> str:
    """Return words of a server without what would steer the terminal that they are shown on."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text[:LONGEST_DETAIL])


def segment(name: str, *, safe: str = "") -> str:
    """Return a name as one part of a path. Raises UsageError for what a path cannot hold."""
    if name in {"", ".", ".."} or (not safe and "/" in name):
        raise UsageError(f"`{name}` is no name")
    return quote(name, safe=safe)


def _when(error: Exception) -> bool | float:
    """Tell stamina whether to try again, and when."""
    if not isinstance(error, _Again):
        return False
    return True if error.wait is None else error.wait
