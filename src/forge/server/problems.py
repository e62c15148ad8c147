"""Every error that the server answers with, as a problem document (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from forge.model.errors import (
    DependencyFailed,
    ForgeError,
    InvalidConfiguration,
    NotAllowed,
    Rejected,
    StillRunning,
    UsageError,
)

MEDIA_TYPE = "application/problem+json"
_log = structlog.get_logger("forge.server")


class Problem(Exception):
    """An error with a status, raised anywhere under a request.

    `detail` says what is wrong, `hint` what to do about it; `more` are members of the document for programs.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})
        self.more = dict(more or {})


class NotThere(UsageError):
    """What a path names does not exist: 404."""


@contextmanager
def answered_with(status: int) -> Iterator[None]:
    """Answer a UsageError of what is inside with this status: 404 for what is named, 409 for what cannot be now."""
    try:
        yield
    except (InvalidConfiguration, NotThere):
        raise
    except UsageError as error:
        raise Problem(status, error.message, hint=error.hint or "") from error


def status_of(error: ForgeError) -> int:
    """Return the status that an error of Forge is answered with."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return 500


_STATUSES: tuple[tuple[type[ForgeError], int], ...] = (
    (InvalidConfiguration, 422),
    (NotThere, 404),
    (UsageError, 400),
    (Rejected, 403),
    (NotAllowed, 403),
    (DependencyFailed, 503),
    (StillRunning, 504),
)


def problem_of(error: Exception) -> Problem:
    """Return the problem that an exception is told as; one that nobody raised on purpose is told without its words."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidConfiguration):
        found = [msgspec.to_builtins(one) for one in error.diagnostics]
        return Problem(422, error.message, more={"diagnostics": found})
    if isinstance(error, ForgeError):
        headers = {"Retry-After": "1"} if isinstance(error, DependencyFailed) else {}
        more = {"kind": "rejected"} if isinstance(error, Rejected) else {}
        return Problem(status_of(error), error.message, hint=error.hint or "", headers=headers, more=more)
    if isinstance(error, RequestValidationError):
        return Problem(422, "the request does not fit", more={"errors": [_field(one) for one in error.errors()]})
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), headers=error.headers)
    return Problem(500, "the server failed", hint="its log tells more, under this request_id")


def _field(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return one error of validation: where and what, never the value, which may be a secret."""
    return {"at": ".".join(str(part) for part in error["loc"]), "message": str(error["msg"])}


def document_of(problem: Problem, request: Request) -> dict[str, Any]:
    """Return the members of the problem document."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": _title(problem.status),
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.url.path,
    }
    if problem.hint:
        document["hint"] = problem.hint
    if identity := getattr(request.state, "request_id", ""):
        document["request_id"] = identity
    return document | problem.more


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


async def answer(request: Request, error: Exception) -> Response:
    """Return the answer to a request that failed."""
    problem = problem_of(error)
    if problem.status >= 500:
        _log.error("request failed", path=request.url.path, status=problem.status, exc_info=error)
    content = msgspec.json.encode(document_of(problem, request))
    headers = dict(problem.headers)
    if problem.status == 405:
        headers["Allow"] = ", ".join(allowed_methods(request))
    if identity := getattr(request.state, "request_id", ""):
        headers["X-Request-ID"] = identity  # an error that nobody expected is answered outside of all middleware
    return Response(content, status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


def allowed_methods(request: Request) -> list[str]:
    """Return every method that the path of a request has: each is a route of its own, and knows only itself."""
    routes = getattr(request.app.state, "known_routes", [])
    path = request.scope["path"]
    matching = [route for route in routes if isinstance(route, Route) and route.path_regex.match(path)]
    return sorted({method for route in matching for method in route.methods or ()})


def install(app: FastAPI) -> None:
    """Answer every error of the app in this form."""
    for kind in (Problem, ForgeError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
