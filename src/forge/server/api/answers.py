"""How the API answers: JSON of views, with schemas that are made from their types."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec
from fastapi import Path, Request
from fastapi.responses import JSONResponse, Response

from forge.server import problems

PREFIX = "/api/v1"
_REFERENCE = "#/components/schemas/{name}"
_known: dict[str, Any] = {}
"""The types that answers are made of, by name of their schema."""

ProjectName = Annotated[str, Path(description="A project.", examples=["shop"], max_length=63)]
RunId = Annotated[str, Path(description="A run.", examples=["run-1"], max_length=100)]
EnvironmentName = Annotated[str, Path(description="An environment.", examples=["production"], max_length=200)]
ReleaseId = Annotated[str, Path(description="A release.", examples=["production-1"], max_length=250)]


class ProblemDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every error is answered with (RFC 9457). `detail` says what is wrong, `hint` what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    hint: str = ""
    request_id: str = ""


class Json(JSONResponse):
    """A view as JSON."""

    def render(self, content: Any) -> bytes:
        """Return the bytes."""
        return msgspec.json.encode(content)


def known_answer(request: Request, content: Any) -> Response:
    """Answer with a view, or with 304 when the client has just this one (`If-None-Match`)."""
    body = msgspec.json.encode(content)
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    given = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in given:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def reference(type_: Any) -> dict[str, Any]:
    """Return the schema of a type for the API's description; Structs are described once, by name."""
    (schema,), _ = msgspec.json.schema_components([type_], ref_template=_REFERENCE)
    _known[str(type_)] = type_
    return schema


def gives(type_: Any, words: str, *, status: int = 200, example: Any = None) -> dict[int | str, dict[str, Any]]:
    """Return the description of an answer, for `responses=`."""
    media: dict[str, Any] = {"schema": reference(type_)}
    if example is not None:
        media["example"] = example
    return {status: {"description": words, "content": {"application/json": media}}}


def gives_page(type_: Any, words: str) -> dict[int | str, dict[str, Any]]:
    """Return the description of a page of items."""
    schema = {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": reference(type_)},
            "next": {"type": "string", "description": "The cursor of the next page; empty: this is the last."},
        },
        "required": ["items", "next"],
    }
    return {200: {"description": words, "content": {"application/json": {"schema": schema}}}}


def gives_content(words: str, *media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return the description of an answer that is no JSON."""
    return {200: {"description": words, "content": {one: {"schema": {"type": "string"}} for one in media_types}}}


def _problem(words: str) -> dict[str, Any]:
    return {"description": words, "content": {problems.MEDIA_TYPE: {"schema": reference(ProblemDocument)}}}


ERRORS: dict[int | str, dict[str, Any]] = {
    400: _problem("The request makes no sense."),
    401: _problem("Nobody is logged in, or the token is not valid."),
    403: _problem("Not allowed; `detail` says why."),
    404: _problem("There is no such thing; `hint` names the nearest one."),
    422: _problem("The request does not fit; `errors` or `diagnostics` say where."),
    429: _problem("Too many requests."),
    503: _problem("A database or a tool that Forge needs is away."),
}
"""What any request may be answered with."""
WRITE_ERRORS: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    409: _problem("It cannot be now, or the Idempotency-Key was used for something else."),
    413: _problem("The body is too long."),
}
"""What any write may be answered with."""


def components() -> dict[str, Any]:
    """Return the schemas of all types that answers are made of."""
    _, schemas = msgspec.json.schema_components(list(_known.values()), ref_template=_REFERENCE)
    return schemas
