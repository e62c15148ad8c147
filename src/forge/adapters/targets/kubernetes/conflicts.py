"""What somebody changed while it was read is read again: controllers write to the same objects all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from forge.adapters.kubernetes.errors import Conflict

ATTEMPTS = 6
PAUSE = 0.05


async def past_conflicts(change: Callable[[], Awaitable[None]]) -> None:
    """Do `change` again while objects changed under it; it must read anew each time.

    A field that another manager owns stays a Conflict: reading again would not help.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await change()
            return
        except Conflict as conflict:
            if attempt == ATTEMPTS or conflict.managers:
                raise
        await asyncio.sleep(PAUSE * attempt)
