"""The description of the API (OpenAPI 3.1): what FastAPI knows, and what it does not."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from forge.server.api.answers import PREFIX, components

TAGS = (
    ("projects", "What there is, and which version is where."),
    ("runs", "Runs of a project's pipeline: start, look, logs, artifacts, words to them."),
    ("environments", "Where versions run, and words to their releases."),
    ("releases", "Why a release went as it did."),
    ("records", "Events, decisions, and the proof that nobody changed them."),
    ("velocity", "How fast and how safely projects are released."),
    ("people", "Who you are, users, tokens and grants."),
    ("health", "For those who operate the server."),
)
ABOUT = """Everything that the command line does, for programs.

Log in with `Authorization: Bearer forge_…`. Lists are pages: `{"items": […], "next": "cursor"}`. Writes take an
`Idempotency-Key`: sent twice, they are done once and answered the same. Errors are problem documents (RFC 9457).
Commands to runs and releases are answered with 202 once they are on disk; `GET …/commands/{machine}/{id}` tells what
became of one."""
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text of your own. The same key with the same body is done once, for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_SECURITY: dict[str, Any] = {
    "token": {"type": "http", "scheme": "bearer", "description": "A personal token: `forge token add`."},
    "session": {"type": "apiKey", "in": "cookie", "name": "forge_session", "description": "As browsers log in."},
}
_OPEN = frozenset({"/healthz", "/readyz", "/metrics"})


def complete(app: FastAPI) -> None:
    """Make the app describe itself with the schemas of views, the keys of writes and the ways to log in."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        schema = made()
        schema["info"]["description"] = ABOUT
        schema["tags"] = [{"name": name, "description": words} for name, words in TAGS]
        parts = schema.setdefault("components", {})
        parts.setdefault("schemas", {}).update(components())
        for unused in ("HTTPValidationError", "ValidationError"):
            if unused not in _references(schema):
                parts["schemas"].pop(unused, None)
        parts["securitySchemes"] = _SECURITY
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                _complete(operation, path, method)
        app.openapi_schema = schema
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], path: str, method: str) -> None:
    if path not in _OPEN and not path.startswith("/hooks/"):
        operation.setdefault("security", [{"token": []}, {"session": []}])
    if path.startswith(PREFIX) and method in {"post", "put", "patch", "delete"}:
        operation.setdefault("parameters", []).append(_KEY)


def _references(schema: Any) -> set[str]:
    """Return the names of all schemas that are referred to from paths."""
    found: set[str] = set()
    waiting: list[Any] = [schema["paths"]]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(reference := one.get("$ref"), str):
                found.add(reference.rpartition("/")[2])
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return found
