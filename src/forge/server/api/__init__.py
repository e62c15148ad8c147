"""The JSON API, one router for each resource."""

from __future__ import annotations

from fastapi import APIRouter

from forge.server.api import environments, logs, projects, records, runs

routers: list[APIRouter] = [
    projects.router,
    runs.router,
    logs.router,
    environments.router,
    records.router,
]
