"""A site whose pages are asked by a browser with a session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from forge.server.app import make_app
from forge.server.identity.people import User
from forge.server.identity.permissions import Grant, Role
from forge.server.settings import read_settings
from forge.server.site import Site, open_site


class Visitor:
    """A browser in which somebody is logged in."""

    def __init__(self, site: Site, browser: httpx2.AsyncClient, csrf: str) -> None:
        self.site, self.browser, self.csrf = site, browser, csrf

    async def see(self, path: str, status: int = 200) -> str:
        answer = await self.browser.get(path)
        assert answer.status_code == status, answer.text[:2000]
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        return answer.text

    async def send(self, path: str, **form: str) -> httpx2.Response:
        return await self.browser.post(path, data={"csrf": self.csrf, **form})


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator:
    """Return a function that opens a site of a pipeline and logs somebody in."""
    sites = []

    async def come(pipeline: str, *grants: Grant, work: bool = False) -> Visitor:
        folder = tmp_path / "shop"
        (folder / "forge").mkdir(parents=True)
        (folder / "forge" / "pipeline.yaml").write_text(pipeline)
        opened = open_site(read_settings(None, folder, environ={}, work=work))
        site = await opened.__aenter__()
        sites.append(opened)
        if work:
            await site.workers.start()
        await site.identity.people.add(User("ann", "Ann"))
        for grant in grants or (Grant(Role.ADMIN),):
            await site.identity.people.grant("user", "ann", grant)
        cookie = await site.identity.sessions.begin("ann", now=site.clock())
        csrf = (await site.identity.sessions.find(cookie, site.clock())).csrf
        browser = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=make_app(site)), base_url="http://forge.test", timeout=20,
            headers={"Cookie": f"forge_session={cookie}"},
        )  # fmt: skip
        return Visitor(site, browser, csrf)

    yield come
    for opened in sites:
        await opened.__aexit__(None, None, None)
