"""Notifiers: who is told of an environment's releases while they go on."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Step(msgspec.Struct, frozen=True):
    """One step of one release, as it is told. Times are seconds since the epoch; `ended` None: it still lasts."""

    environment: str
    service: str
    release: str
    version: str
    step: str
    text: str
    began: float
    ended: float | None = None


class Refused(Exception):
    """The place will never take it as it is: trying again is of no use."""


class Notifier(Protocol):
    """A place that is told. Raises Refused, or DependencyFailed for what may work later."""

    async def open(self, step: Step) -> str:
        """Tell that a step began (and ended, if it has); return what the place calls it. Told twice, it is there
        once."""

    async def close(self, identity: str, step: Step) -> None:
        """Tell that it ended. Idempotent."""

    async def aclose(self) -> None:
        """Close connections."""
