"""The routers of this part of the server."""

from __future__ import annotations

from fastapi import APIRouter

from forge.server.pages import environment, home, live, projects, release, run, settings, static, velocity

routers: list[APIRouter] = [
    static.router, live.router, home.router, projects.router, run.router, environment.router, release.router,
    velocity.router, velocity.api, settings.router,
]  # fmt: skip
