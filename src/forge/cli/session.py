"""One invocation of the command: where it works, as whom, on which terminal, and how it leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from forge.cli.render.paint import Paint
from forge.cli.terminal import Terminal
from forge.engine.project import Project
from forge.model.errors import UsageError

if TYPE_CHECKING:
    from forge.engine.engine import Engine
    from forge.service.base import Service


@dataclass(frozen=True, slots=True)
class Session:
    """What every command knows. Made by the root callback, kept as the context's object.

    `server`: the URL of the server that is asked, empty to work here. `project_name`: which of its projects.
    """

    directory: Path
    terminal: Terminal
    debug: bool = False
    server: str = ""
    project_name: str = ""

    @property
    def out(self) -> Paint:
        """Colours for stdout."""
        return Paint(self.terminal.colour_out)

    @property
    def err(self) -> Paint:
        """Colours for stderr."""
        return Paint(self.terminal.colour_err)

    @property
    def project(self) -> Project:
        """The project of the working directory. Raises UsageError where there is none."""
        return Project.find(self.directory)

    def run(self, work: Callable[[Service], Awaitable[int]]) -> NoReturn:
        """Open the project, here or on the server, await `work`, and leave with the exit code that it returns."""
        import asyncio

        async def inside() -> int:
            async with self._service() as service:
                return await work(service)

        leave(asyncio.run(inside()))

    def run_here(self, work: Callable[[Engine], Awaitable[int]]) -> NoReturn:
        """As `run`, for what needs the project's own folder and database. Raises UsageError when a server is named."""
        import asyncio

        if self.server:
            raise UsageError(
                "this works on the project's own machine only, and FORGE_SERVER names a server",
                hint="unset FORGE_SERVER to work on the project of this folder",
            )
        project = self.project

        async def inside() -> int:
            from forge.engine.engine import Engine

            async with Engine.open(project) as engine:
                return await work(engine)

        leave(asyncio.run(inside()))

    @asynccontextmanager
    async def _service(self) -> AsyncIterator[Service]:
        if self.server:
            from forge.cli.servers import open_remote

            async with open_remote(self.server, self.project_name) as service:
                yield service
            return
        if self.project_name:
            raise UsageError(
                "`-P` names a project of a server, and there is none", hint="set FORGE_SERVER, or use `-C FOLDER`"
            )
        from forge.engine.engine import Engine
        from forge.service.local import LocalService

        async with Engine.open(self.project) as engine:
            yield LocalService(engine)


def session_of(context: typer.Context) -> Session:
    """Return the session of a command's context."""
    session = context.find_root().obj
    if not isinstance(session, Session):  # a command called without the root, as in completion
        session = Session(Path.cwd(), Terminal())
    return session


def leave(code: int) -> NoReturn:
    """End the command with an exit code."""
    raise typer.Exit(int(code))


def actor() -> str:
    """Return who is acting: FORGE_ACTOR, else the user of the operating system."""
    named = os.environ.get("FORGE_ACTOR", "").strip()
    if named:
        return named
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return f"uid-{os.getuid()}"


async def actor_of(service: Service) -> str:
    """Return as whom a service is used: a server knows by the token."""
    if is_local(service):
        return actor()
    from forge.service.remote import RemoteService

    assert isinstance(service, RemoteService)
    return await service.who()


def is_local(service: Service) -> bool:
    """Tell whether this process works on the project itself, so that what it starts must go on here."""
    from forge.service.local import LocalService

    return isinstance(service, LocalService)


def say(text: str = "") -> None:
    """Print data to stdout."""
    sys.stdout.write(text + "\n")


def tell(text: str = "") -> None:
    """Print progress and messages to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
