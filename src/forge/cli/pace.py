"""How long a watcher rests between two looks: at a database at hand a moment, at a server until it tells of something."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from forge.model.errors import DependencyFailed

if TYPE_CHECKING:
    from forge.service.base import Service

LOOK_EVERY = 0.1
LOGS_EVERY = 0.5
QUIET = 5.0
"""Seconds without an event after which a server is asked all the same."""
SHORTEST = 0.05
"""Seconds for events to gather, so that ten of them cost one look."""


class Pace:
    """Looks take at most a tenth of the time."""

    def begin(self, after: int) -> None:
        """Take everything up to that event as known."""

    async def rest(self, stop: asyncio.Event, *, looked: float, busy: bool) -> None:
        """Return when it is time for the next look, or `stop` is set. `looked`: seconds that the last look took."""
        del busy
        await _wait({stop}, max(LOOK_EVERY, 9 * looked))

    async def close(self) -> None:
        """Nothing is left behind."""


class EventPace(Pace):
    """Looks when a server tells of an event, and a little more often while logs are written."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._told = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    def begin(self, after: int) -> None:
        """Listen for what comes after that event."""
        self._listener = asyncio.create_task(self._listen(after))

    async def rest(self, stop: asyncio.Event, *, looked: float, busy: bool) -> None:
        """Return when it is time for the next look, or `stop` is set."""
        await _wait({stop, self._told}, LOGS_EVERY if busy else QUIET)
        if self._told.is_set():
            await _wait({stop}, max(SHORTEST, looked))
        self._told.clear()

    async def close(self) -> None:
        """Stop to listen."""
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError, DependencyFailed):
                await self._listener

    async def _listen(self, after: int) -> None:
        async for _ in self._service.records.follow("", after=after):
            self._told.set()


def pace_of(service: Service) -> Pace:
    """Return the pace for a project at hand, or for one on a server."""
    from forge.service.local import LocalService

    return Pace() if isinstance(service, LocalService) else EventPace(service)


async def _wait(events: set[asyncio.Event], seconds: float) -> None:
    """Return when one of the events is set, at the latest after that many seconds."""
    waits = {asyncio.create_task(event.wait()) for event in events}
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
