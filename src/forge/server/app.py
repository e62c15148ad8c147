"""The application: API, pages, triggers and telemetry over one site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from forge import __version__
from forge.server import problems
from forge.server.api import routers as api_routers
from forge.server.api.description import complete
from forge.server.idempotency import Idempotency
from forge.server.identity.audit import Trail
from forge.server.identity.routes import routers as identity_routers
from forge.server.limits import BodyLimit
from forge.server.pages.routes import routers as page_routers
from forge.server.site import Site
from forge.server.telemetry.health import router as health_router
from forge.server.telemetry.metrics import SiteMetrics
from forge.server.telemetry.metrics import router as metrics_router
from forge.server.telemetry.observing import Observed, RequestMetrics
from forge.server.triggers.routes import routers as trigger_routers

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

API = "/api/"


def make_app(site: Site, tracer_provider: TracerProvider | None = None) -> FastAPI:
    """Return the application of a site. `request.app.state.site` is the site."""
    app = _assemble(
        telemetry={
            "tracer_provider": tracer_provider,
            "tracing": tracer_provider is not None,
            "metrics": False,
            "logs": False,  # they would hold what a client sent, which may be a secret
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    app.state.site = site
    app.state.registry = registry
    app.state.site_metrics = SiteMetrics(site)
    registry.register(app.state.site_metrics)
    site.workers.ticks.register(registry)
    app.add_middleware(Trail)
    app.add_middleware(Idempotency, site=site, prefix=API)
    app.add_middleware(BodyLimit, most=site.settings.max_body_bytes)
    app.add_middleware(Observed, metrics=RequestMetrics(registry))
    return app


def describe() -> dict[str, Any]:
    """Return the description of the API (OpenAPI 3.1), for which no site is needed."""
    return _assemble().openapi()


def _assemble(**options: Any) -> FastAPI:
    app = FastAPI(
        title="Forge",
        version=__version__,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        **options,
    )
    problems.install(app)
    routers = (health_router, metrics_router, *api_routers, *identity_routers, *trigger_routers, *page_routers)
    for router in routers:
        app.include_router(router)
    app.state.known_routes = [route for router in routers for route in router.routes]
    complete(app)
    return app
