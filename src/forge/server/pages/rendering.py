"""Pages from templates: what every page knows, and how times, weights and states are written."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from forge.model.units import format_duration, format_weight
from forge.server.identity.permissions import Permission, Principal
from forge.server.pages.static import static_address

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
SYMBOLS = {
    "succeeded": "✔", "promoted": "✔", "stable": "✔", "failed": "✖", "error": "✖", "rolled_back": "↶",
    "rolling_back": "↶", "running": "◐", "progressing": "◐", "promoting": "◐", "baking": "◐", "starting": "◐",
    "retrying": "◐", "waiting": "◷", "waiting_approval": "◷", "queued": "…", "pending": "○", "paused": "॥",
    "cancelled": "⊘", "rejected": "⊘", "aborted": "⊘", "superseded": "⊘", "skipped": "-", "blocked": "-", "empty": "○",
}  # fmt: skip
"""Beside its colour every state has a sign and a word."""


@lru_cache(maxsize=1)
def templates() -> jinja2.Environment:
    """Return the templates, made once."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("forge.server.pages", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        ago=ago,
        moment=moment,
        iso=iso,
        weight=format_weight,
        duration=duration,
        words=lambda state: state.replace("_", " "),
    )
    environment.globals.update(static=static_address, symbols=SYMBOLS, Permission=Permission)
    return environment


def render(
    request: Request, principal: Principal | None, name: str, *, status: int = 200, **context: Any
) -> HTMLResponse:  # fmt: skip
    """Return a page. Every template knows `principal` (None: nobody), `csrf`, `path`, `now` and `projects`."""
    site = request.app.state.site
    seen = tuple(site.projects) if principal is not None else ()
    text = templates().get_template(name).render(
        request=request,
        principal=principal,
        csrf=principal.session if principal else "",
        path=request.url.path,
        now=time.time(),
        projects=tuple(name for name in seen if principal is not None and principal.may(Permission.READ, name)),
        **context,
    )  # fmt: skip
    headers = dict(HEADERS)
    if request.url.scheme == "https":
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return HTMLResponse(text, status_code=status, headers=headers)


def duration(seconds: float | None) -> str:
    """Return a length of time as people read it; nothing for None."""
    return "" if seconds is None else format_duration(round(seconds, 1) if seconds < 10 else round(seconds))


def ago(at: float | None, now: float) -> str:
    """Return how long ago something was: `just now`, `5 min ago`, `3 h ago`, `12 days ago`; nothing for None."""
    if at is None:
        return ""
    past = now - at
    if past < 10:
        return "just now"
    for size, word in ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if past >= size:
            count = int(past // size)
            return f"{count} {'day' if word == 'days' and count == 1 else word} ago"
    return "just now"


def moment(at: float | None) -> str:
    """Return a time as people read it, in UTC; nothing for None."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at: float | None) -> str:
    """Return a time for `<time datetime>`; nothing for None."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
