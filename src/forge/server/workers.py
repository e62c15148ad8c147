"""The worker of this process: one task for each project, and a heartbeat that other processes can see."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
import structlog
from sqlalchemy import Column, Double, Table, Text, delete, select

from forge.model.errors import DependencyFailed
from forge.server.database import metadata
from forge.server.telemetry.ticks import TickMetrics

if TYPE_CHECKING:
    from forge.engine.engine import Engine
    from forge.server.site import Site

HEARTBEAT_SECONDS = 5.0
LATE_SECONDS = 20.0
"""A worker that was not heard of for so long is not counted on."""
FORGET_SECONDS = 3600.0
RESTART_SECONDS = 2.0

heartbeats = Table(
    "worker_heartbeats",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)
_log = structlog.get_logger("forge.worker")


class WorkerSeen(msgspec.Struct, frozen=True):
    """A worker's process. Times are seconds since the epoch, by the clock of the worker's host."""

    id: str
    host: str
    started_at: float
    seen_at: float


class Workers:
    """Works on the projects of a site once `start` was called."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._chore_tasks: list[asyncio.Task[None]] = []
        self._heart: asyncio.Task[None] | None = None
        self._engines: dict[str, Engine] = {}
        self._chores: dict[str, Callable[[], Awaitable[None]]] = {}
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.ticks = TickMetrics()
        self.restarts = 0
        """How often work on a project ended by an error and began anew."""

    @property
    def working(self) -> bool:
        """Whether this process works."""
        return self._heart is not None

    async def start(self) -> None:
        """Begin to work on all projects, and on those that are added later. Raises DependencyFailed."""
        if self._heart is None:
            await self._beat(self._site.clock())
            self._heart = asyncio.create_task(self._beat_on(), name="forge-heartbeat")
            for name in self._engines:
                self._begin(name)
            for name in self._chores:
                self._begin_chore(name)

    def also(self, name: str, chore: Callable[[], Awaitable[None]]) -> None:
        """Do something for ever beside the projects, as schedules are kept, wherever this process works. Every worker
        of a site does it, so it must stand others that do the same; after an error it begins anew."""
        self._chores[name] = chore
        if self._heart is not None:
            self._begin_chore(name)

    def tend(self, name: str, engine: Engine) -> None:
        """Take a project in."""
        self._engines[name] = engine
        if self._heart is not None:
            self._begin(name)

    async def leave(self, name: str) -> None:
        """Leave a project's machines: what is under way is stopped, and goes on with the next worker."""
        self._engines.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def stop(self) -> None:
        """Leave all projects."""
        for task in self._chore_tasks:
            task.cancel()
        await asyncio.gather(*self._chore_tasks, return_exceptions=True)
        self._chore_tasks.clear()
        await asyncio.gather(*(self.leave(name) for name in tuple(self._engines)))
        if self._heart is not None:
            self._heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._heart
            self._heart = None
            with contextlib.suppress(DependencyFailed):
                async with self._site.database.begin() as connection:
                    await connection.execute(delete(heartbeats).where(heartbeats.c.id == self.id))

    async def seen(self) -> list[WorkerSeen]:
        """Return the workers of the last hour, the newest heartbeat first. Raises DependencyFailed."""
        columns = (heartbeats.c.id, heartbeats.c.host, heartbeats.c.started_at, heartbeats.c.seen_at)
        async with self._site.database.read() as connection:
            rows = await connection.execute(select(*columns).order_by(heartbeats.c.seen_at.desc()))
            return [WorkerSeen(*row) for row in rows.all()]

    async def alive(self) -> list[WorkerSeen]:
        """Return the workers that can be counted on. Raises DependencyFailed."""
        oldest = self._site.clock() - LATE_SECONDS
        return [one for one in await self.seen() if one.seen_at >= oldest]

    def _begin(self, name: str) -> None:
        engine = self._engines[name]

        async def work() -> None:
            await engine.work(kinds=self.ticks.timed(engine.kinds()))

        self._tasks[name] = asyncio.create_task(self._go_on(f"project {name}", work), name=f"forge-work {name}")

    def _begin_chore(self, name: str) -> None:
        chore = self._go_on(name, self._chores[name])
        self._chore_tasks.append(asyncio.create_task(chore, name=f"forge-chore {name}"))

    async def _go_on(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Work until cancelled; an error that nobody expected ends one try only."""
        while True:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except Exception:
                self.restarts += 1
                _log.exception("work failed, and begins anew", work=name)
            await asyncio.sleep(RESTART_SECONDS)

    async def _beat_on(self) -> None:
        started = self._site.clock()
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self._beat(started)
            except DependencyFailed as error:
                _log.warning("heartbeat failed", error=error.message)

    async def _beat(self, started: float) -> None:
        now = self._site.clock()
        row = {"id": self.id, "host": socket.gethostname(), "started_at": started, "seen_at": now}
        async with self._site.database.begin() as connection:
            await connection.execute(
                delete(heartbeats).where((heartbeats.c.id == self.id) | (heartbeats.c.seen_at < now - FORGET_SECONDS))
            )
            await connection.execute(heartbeats.insert().values(row))
