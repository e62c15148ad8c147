"""A site with its real knowledge of people, asked without a socket, at a time that the test sets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from forge.server.app import make_app
from forge.server.identity.people import User
from forge.server.identity.permissions import Grant, Role
from forge.server.settings import read_settings
from forge.server.site import Site, open_site
from serving.running import make_project

START = 1_800_000_000.0


class House:
    """The site, its clock, and ways in."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.folder = folder
        self.site: Site
        self.app = None

    def browser(self, **headers: str) -> httpx2.AsyncClient:
        """Return a client that nobody is logged in with."""
        transport = httpx2.ASGITransport(app=self.app, client=("10.1.2.3", 40000))
        return httpx2.AsyncClient(transport=transport, base_url="http://forge.test", headers=headers, timeout=20)

    async def person(self, name: str, *grants: Grant, disabled: bool = False) -> None:
        await self.site.identity.people.add(User(name, name, disabled=disabled, created_at=self.now))
        for grant in grants:
            await self.site.identity.people.grant("user", name, grant)

    async def token(self, name: str, **options) -> str:
        _, secret = await self.site.identity.tokens.make(name, "test", now=self.now, **options)
        return secret

    async def client(self, name: str, *grants: Grant, **options) -> httpx2.AsyncClient:
        """Return a client with a token of a new person."""
        await self.person(name, *grants)
        return self.browser(Authorization=f"Bearer {await self.token(name, **options)}")


def csrf(page: str) -> str:
    found = re.search(r'<meta name="csrf" content="([0-9a-f]+)">', page)
    assert found, page[:500]
    return found[1]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(make_project(tmp_path / "shop"))
    settings = read_settings(None, house.folder, environ={}, work=False)
    async with open_site(settings, clock=lambda: house.now) as house.site:
        house.app = make_app(house.site)
        yield house


ADMIN = Grant(Role.ADMIN)
