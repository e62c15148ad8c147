"""One invocation of the command: where it works, as whom, on which terminal, and how it leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from forge.cli.render.paint import Paint
from forge.cli.terminal import Terminal
from forge.engine.project import Project

if TYPE_CHECKING:
    from forge.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Session:
    """What every command knows. Made by the root callback, kept as the context's object."""

    directory: Path
    terminal: Terminal
    debug: bool = False

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

    def run(self, work: Callable[[Engine], Awaitable[int]]) -> NoReturn:
        """Open the engine, await `work`, and leave with the exit code that it returns."""
        import asyncio

        project = self.project

        async def inside() -> int:
            from forge.engine.engine import Engine

            async with Engine.open(project) as engine:
                return await work(engine)

        leave(asyncio.run(inside()))


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


def say(text: str = "") -> None:
    """Print data to stdout."""
    sys.stdout.write(text + "\n")


def tell(text: str = "") -> None:
    """Print progress and messages to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
