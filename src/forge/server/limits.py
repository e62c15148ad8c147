"""Requests that are too long are refused before they are read."""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forge.server.problems import Problem, answer


class BodyLimit:
    """Middleware: no body of a request is longer than this many bytes, whatever its headers say."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        if told.isascii() and told.isdigit() and int(told[:19]) > self._most:
            refused = await answer(Request(scope), Problem(413, self._words()))
            refused.headers["Connection"] = "close"  # what is not read must not be taken for the next request
            await refused(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most:
                raise HTTPException(413, self._words())
            return message

        await self._app(scope, counted, send)

    def _words(self) -> str:
        return f"the body is longer than {self._most:,} bytes"
