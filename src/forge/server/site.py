"""Everything that a server or a worker has open: the site's database, and each project with its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType

from forge.engine.engine import Engine
from forge.engine.project import Project
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError
from forge.server.database import SiteDatabase, open_database
from forge.server.identity.identity import Identity, open_identity
from forge.server.problems import NotThere
from forge.server.settings import Settings
from forge.server.streaming import Live
from forge.server.workers import Workers
from forge.service.base import Service
from forge.service.local import LocalService


class Site:
    """One site. Made by `open_site`."""

    def __init__(self, settings: Settings, database: SiteDatabase, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.database = database
        self.clock = clock
        self.closing = asyncio.Event()
        """Set when the server is about to end: streams of events end too."""
        self.identity: Identity
        """Users, tokens, sessions and grants."""
        self.workers = Workers(self)
        self.url = settings.public_url
        """How people reach the site; the address that it listens on where nothing else is configured."""
        self.viewers = 0
        """How many streams of events are open."""
        self._live: dict[str, Live] = {}
        self._services: dict[str, Service] = {}
        self._engines: dict[str, Engine] = {}
        self._stacks: dict[str, AsyncExitStack] = {}

    @property
    def projects(self) -> Mapping[str, Service]:
        """The projects by name, in the order of the settings; then those that were added since."""
        return MappingProxyType(self._services)

    def project(self, name: str) -> Service:
        """Return a project. Raises NotThere, with a suggestion, when there is none of that name."""
        if (service := self._services.get(name)) is None:
            raise NotThere(f"there is no project `{name}`", hint=did_you_mean(name, tuple(self._services)))
        return service

    def engine(self, name: str) -> Engine:
        """Return what works on a project. Raises UsageError for an unknown name."""
        self.project(name)
        return self._engines[name]

    def live(self, name: str) -> Live:
        """Return what gives a project's events to all who watch. Raises UsageError for an unknown name."""
        self.project(name)
        return self._live[name]

    async def add(self, name: str, project: Project) -> Service:
        """Open a project under a name, and work on it if this process works. Raises UsageError for a name that is
        taken, DependencyFailed when its database is away."""
        if name in self._services:
            raise UsageError(f"there is a project `{name}` already")
        stack = AsyncExitStack()
        engine = await stack.enter_async_context(
            Engine.open(project, max_parallel=self.settings.max_parallel, lease_seconds=self.settings.lease_seconds)
        )
        self._stacks[name], self._engines[name] = stack, engine
        self._services[name] = LocalService(engine, name)
        self._live[name] = Live(engine)
        self.workers.tend(name, engine)
        return self._services[name]

    async def remove(self, name: str) -> None:
        """Close a project; its database stays as it is. Raises UsageError for an unknown name."""
        self.project(name)
        await self.workers.leave(name)
        await self._live.pop(name).close()
        del self._services[name], self._engines[name]
        await self._stacks.pop(name).aclose()

    async def close(self) -> None:
        """End streams, leave all machines, close all projects."""
        self.closing.set()
        await self.workers.stop()
        for name in tuple(self._services):
            await self.remove(name)


def check(settings: Settings) -> None:
    """Raise UsageError for settings under which projects would share what each must have of its own."""
    if len(settings.projects) > 1 and os.environ.get("FORGE_DATABASE") and not settings.shared:
        own = [name for name in settings.projects if not settings.projects[name].database]
        if len(own) > 1:
            raise UsageError(
                f"FORGE_DATABASE would be the database of {' and '.join(own)} at once",
                hint="unset it, and give FORGE_SERVER_DATABASE: each project gets a schema of its own there",
            )


@asynccontextmanager
async def open_site(settings: Settings, *, clock: Callable[[], float] = time.time) -> AsyncIterator[Site]:
    """Open the site's database and all projects. Raises UsageError, DependencyFailed."""
    check(settings)
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with open_database(settings.site_database) as database:
        site = Site(settings, database, clock)
        async with open_identity(site) as site.identity:
            try:
                for name in settings.projects:
                    await create_schema(database, settings, name)
                    await site.add(name, settings.project(name))
                yield site
            finally:
                await site.close()


async def create_schema(database: SiteDatabase, settings: Settings, name: str) -> None:
    """Create the schema that a project's tables go into, where it has one in the site's PostgreSQL."""
    if settings.shared and not (name in settings.projects and settings.projects[name].database):
        await database.create_schema(f"forge_{name}")
