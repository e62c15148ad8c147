"""Reaching what runs in an environment: its address, its logs, bringing it up, taking it down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.cli.session import tell
from forge.model.errors import ExitCode

if TYPE_CHECKING:
    from forge.adapters.targets.base import Target
    from forge.cli.session import Session
    from forge.engine.engine import Engine
    from forge.model.plan import EnvironmentPlan


async def open_target(engine: Engine, plan: EnvironmentPlan) -> Target:
    """Return the target of an environment."""
    raise NotImplementedError(engine, plan)


async def address_of(engine: Engine, environment: str) -> str:
    """Return where clients reach an environment, empty when nothing runs there."""
    raise NotImplementedError(engine, environment)


async def bring_up(engine: Engine, session: Session, environment: str) -> int:
    """Bring the environment up."""
    raise NotImplementedError(engine, session, environment)


async def take_down(engine: Engine, environment: str) -> int:
    """Take the environment down."""
    tell(f"{environment} {engine}")
    return ExitCode.SUCCEEDED
