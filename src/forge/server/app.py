"""The application: API, pages, triggers and telemetry over one site."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from forge import __version__
from forge.server import problems
from forge.server.api import routers as api_routers
from forge.server.identity.routes import routers as identity_routers
from forge.server.pages.routes import routers as page_routers
from forge.server.site import Site
from forge.server.telemetry.health import router as health_router
from forge.server.triggers.routes import routers as trigger_routers


def make_app(site: Site) -> FastAPI:
    """Return the application of a site. `request.app.state.site` is the site."""
    app = _assemble(site.settings.max_body_bytes)
    app.state.site = site
    return app


def describe() -> dict[str, Any]:
    """Return the description of the API (OpenAPI 3.1), for which no site is needed."""
    return _assemble(None).openapi()


def _assemble(max_body_bytes: int | None) -> FastAPI:
    app = FastAPI(
        title="Forge",
        version=__version__,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        max_body_size=max_body_bytes,
    )
    problems.install(app)
    app.include_router(health_router)
    for router in (*api_routers, *identity_routers, *trigger_routers, *page_routers):
        app.include_router(router)
    return app
