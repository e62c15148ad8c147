"""`/metrics`: Forge itself, for Prometheus. Labels are names that somebody configured, and a few fixed words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from forge.model.errors import ForgeError
from forge.server.site import Site
from forge.server.workers import WorkerSeen
from forge.service.base import Service
from forge.store.contract import Store

router = APIRouter(tags=["health"])
FRESH_SECONDS = 5.0
"""How long what was counted is told again: several Prometheus may ask, and a database is not asked more often."""
RUN_STATES = ("queued", "running", "waiting", "succeeded", "failed", "cancelled", "rejected", "error")
_log = structlog.get_logger("forge.server")


class ProjectCounts(msgspec.Struct, frozen=True):
    """What was counted in a project. `oldest_due`: for how many seconds a machine has been due that nobody tends."""

    runs: dict[str, int]
    releases: dict[tuple[str, str], int]
    """(environment, state) -> how many of those that the environment remembers."""
    machines: int
    waiting: int
    oldest_due: float
    events: int


class Counted(msgspec.Struct, frozen=True):
    """What a scrape tells."""

    at: float
    projects: dict[str, ProjectCounts]
    workers: tuple[WorkerSeen, ...]
    up: bool


class SiteMetrics(Collector):
    """Counts a site, at most every few seconds, and tells it to Prometheus."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = asyncio.Lock()
        self._counted: Counted | None = None

    async def refresh(self) -> None:
        """Count anew, unless it was done just now."""
        async with self._lock:
            if self._counted is None or time.monotonic() - self._counted.at > FRESH_SECONDS:
                self._counted = await count_site(self._site)

    def collect(self) -> Iterator[Any]:
        """Yield what was counted last."""
        counted = self._counted
        viewers = GaugeMetricFamily("forge_stream_viewers", "Streams of events that are open.")
        viewers.add_metric([], self._site.viewers)
        yield viewers
        restarts = CounterMetricFamily("forge_worker_restarts", "How often work began anew after an error.")
        restarts.add_metric([], self._site.workers.restarts)
        yield restarts
        if counted is None:
            return
        up = GaugeMetricFamily("forge_database_up", "Whether all databases could be counted in.")
        up.add_metric([], int(counted.up))
        yield up
        yield from _of_projects(counted.projects)
        yield from _of_workers(counted.workers, self._site.clock())


def _of_projects(projects: dict[str, ProjectCounts]) -> Iterator[Any]:
    runs = GaugeMetricFamily("forge_runs", "Runs by state.", labels=("project", "state"))
    releases = GaugeMetricFamily(
        "forge_releases", "Releases that are remembered, by state.", labels=("project", "environment", "state")
    )
    rollbacks = GaugeMetricFamily(
        "forge_rollbacks", "Releases that are remembered and went back.", labels=("project", "environment")
    )
    depth = GaugeMetricFamily("forge_queue_depth", "Machines that are due and wait for a worker.", labels=("project",))
    oldest = GaugeMetricFamily(
        "forge_oldest_due_seconds", "How long the oldest machine has been due that nobody tends.", labels=("project",)
    )
    events = CounterMetricFamily("forge_events", "Events in the log.", labels=("project",))
    for name, counts in projects.items():
        for state in RUN_STATES:
            runs.add_metric([name, state], counts.runs.get(state, 0))
        for (environment, state), number in sorted(counts.releases.items()):
            releases.add_metric([name, environment, state], number)
        for environment in sorted({environment for environment, _ in counts.releases}):
            back = sum(counts.releases.get((environment, state), 0) for state in ("rolling_back", "rolled_back"))
            rollbacks.add_metric([name, environment], back)
        depth.add_metric([name], counts.waiting)
        oldest.add_metric([name], counts.oldest_due)
        events.add_metric([name], counts.events)
    yield from (runs, releases, rollbacks, depth, oldest, events)


def _of_workers(workers: tuple[WorkerSeen, ...], now: float) -> Iterator[Any]:
    number = GaugeMetricFamily("forge_workers", "Workers that were heard of lately.")
    number.add_metric([], sum(one.seen_at > now - 20 for one in workers))
    age = GaugeMetricFamily("forge_worker_heartbeat_age_seconds", "Since the newest heartbeat of any worker.")
    if workers:
        age.add_metric([], max(0.0, now - max(one.seen_at for one in workers)))
    yield from (number, age)


async def count_site(site: Site) -> Counted:
    """Return what there is now; a database that is away is told by `up`, not by an error."""
    up = True
    workers: tuple[WorkerSeen, ...] = ()
    projects = {}
    try:
        workers = tuple(await site.workers.seen())
    except ForgeError:
        up = False
    for name, service in site.projects.items():
        try:
            projects[name] = await count_project(service, site.engine(name).store)
        except ForgeError as error:
            _log.warning("a project could not be counted", project=name, error=error.message)
            up = False
    return Counted(time.monotonic(), projects, workers, up)


async def count_project(service: Service, store: Store) -> ProjectCounts:
    """Count one project. Raises DependencyFailed."""
    counts = await store.machines.count()
    runs = {status: number for (kind, status), number in counts.by_status.items() if kind == "run"}
    releases: dict[tuple[str, str], int] = {}
    for environment in await service.environments.names():
        for release in (await service.environments.get(environment)).releases:
            key = (environment, release.state)
            releases[key] = releases.get(key, 0) + 1
    return ProjectCounts(
        runs, releases, sum(counts.by_status.values()), counts.waiting, counts.oldest_due, await store.log.count()
    )


@router.get("/metrics", summary="Metrics for Prometheus", operation_id="metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return the metrics of this process and of the site, in Prometheus' text format."""
    await request.app.state.site_metrics.refresh()
    registry: CollectorRegistry = request.app.state.registry
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
