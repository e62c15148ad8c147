"""The trail of what people did: in a hash-chained log of the site, as tamper-evident as that of a project.

What is done to runs and releases is in their project's own log too, with who did it; here it is with the address that
it came from, and beside it stands what no project knows: logins, tokens, grants, secrets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forge.model.decision import Event
from forge.model.errors import DependencyFailed
from forge.server.database import SiteDatabase
from forge.server.settings import Settings, in_schema
from forge.store.contract import Store, StoredEvent
from forge.store.database import open_store

MACHINE = "site"
SCHEMA = "forge_audit"
READS = frozenset({"GET", "HEAD", "OPTIONS"})
_log = structlog.get_logger("forge.server")


class Audit:
    """The site's own log. Made by `open_audit`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note(self, kind: str, message: str, **data: Any) -> None:
        """Put an act on record. Raises DependencyFailed: what cannot be recorded is not done."""
        await self._store.log.append(MACHINE, (Event(kind, message, data),))

    async def read(self, *, after: int = 0, limit: int = 200) -> list[StoredEvent]:
        """Return acts after that number, oldest first."""
        return await self._store.log.read(MACHINE, after=after, limit=limit)

    async def last(self) -> int:
        """Return the number of the newest act, 0 when there is none."""
        return await self._store.log.last(MACHINE)

    async def verify(self) -> int | None:
        """Return the number of the first record that does not fit the chain, or None when all do."""
        return await self._store.log.verify()


@asynccontextmanager
async def open_audit(settings: Settings, database: SiteDatabase) -> AsyncIterator[Audit]:
    """Open the log: a file beside the site's database, or a schema in the same PostgreSQL."""
    if settings.shared:
        await database.create_schema(SCHEMA)
        store = await open_store(in_schema(settings.database, SCHEMA))
    else:
        store = await open_store(f"sqlite:///{settings.state / 'audit.db'}")
    try:
        yield Audit(store)
    finally:
        await store.close()


class Trail:
    """Puts every write on record that got as far as somebody who is known, whatever came of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, and note who did what."""
        if scope["type"] != "http" or scope["method"] in READS:
            await self._app(scope, receive, send)
            return
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                await _note(scope, status)
            await send(message)

        await self._app(scope, receive, noted)


async def _note(scope: Scope, status: int) -> None:
    name = scope.get("state", {}).get("principal_name", "")
    site = scope["app"].state.site
    audit = getattr(getattr(site, "identity", None), "audit", None)
    if not name or audit is None:
        return
    data = {
        "actor": name, "method": scope["method"], "path": scope["path"], "status": status,
        "address": (scope.get("client") or ("",))[0], "request": Headers(scope=scope).get("x-request-id", ""),
    }  # fmt: skip
    try:
        await audit.note("request", f"{name}: {scope['method']} {scope['path']}: {status}", **data)
    except DependencyFailed as error:  # it is done already: what remains is to say so loudly
        _log.error("act_not_on_record", error=str(error), **data)
