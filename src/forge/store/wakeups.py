"""Counting wake-ups, so that nobody who waits sleeps through one."""

from __future__ import annotations

import asyncio
import contextlib


class Bell:
    """Rings for everyone who waits; a count lets a waiter notice what rang before it began to wait.

    Belongs to one event loop; other threads ring by `loop.call_soon_threadsafe`.
    """

    def __init__(self) -> None:
        self.count = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake everyone who waits."""
        self.count += 1
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait(self, timeout: float, since: int | None = None) -> bool:
        """Return True as soon as it rang after `since` (default: after now), False after `timeout` seconds."""
        if since is not None and since != self.count:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout)):
                await self._rung.wait()
                return True
        return False
