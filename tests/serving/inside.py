"""A site inside the test's own process: its application, asked without a socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
from fastapi import Request

from forge.server.app import make_app
from forge.server.identity.permissions import Grant, Principal, Role
from forge.server.settings import Settings, read_settings
from forge.server.site import Site, open_site


class Asked:
    """An application and a client of it."""

    def __init__(self, site: Site, client: httpx2.AsyncClient) -> None:
        self.site = site
        self.client = client

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        """Ask for something of the project `shop`."""
        return await self.client.get(f"/api/v1/projects/shop{path}", **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        """Send something to the project `shop`."""
        return await self.client.post(f"/api/v1/projects/shop{path}", json=body, **options)


class FixedIdentity:
    """Lets everybody in as whom the header `X-Test-Name` says, with the grants of the test: for what is not about
    logging in."""

    def __init__(self) -> None:
        self.grants: tuple[Grant, ...] = (Grant(Role.ADMIN),)

    async def authenticate(self, request: Request) -> Principal | None:
        """Return who asks."""
        name = request.headers.get("x-test-name", "ann")
        return Principal(name, "user", name, self.grants) if name else None

    async def configured(self) -> bool:
        """Nobody needs to."""
        return False


@contextlib.asynccontextmanager
async def asked(
    folder: Path, settings: Settings | None = None, tracer_provider: Any = None, **given: Any
) -> AsyncIterator[Asked]:
    """Open a site of the project in a folder and ask its application."""
    chosen = settings or read_settings(None, folder, environ={}, **given)
    async with open_site(chosen) as site:
        site.identity = FixedIdentity()
        transport = httpx2.ASGITransport(app=make_app(site, tracer_provider))
        async with httpx2.AsyncClient(transport=transport, base_url="http://forge.test", timeout=20) as client:
            yield Asked(site, client)
