"""How often somebody may fail to get in: counted in the site's database, so that all servers of a site count together."""

from __future__ import annotations

from sqlalchemy import delete, func, insert, select

from forge.server.database import SiteDatabase
from forge.server.identity import tables as t

WINDOW = 300.0
MOST = 10
"""Failures of one address, or for one name, in WINDOW seconds; then it waits."""


class Attempts:
    """Failed attempts by who made them: an address, a name."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    async def wait(self, who: str, now: float) -> float:
        """Return in how many seconds `who` may try again; 0: now."""
        late = (t.attempts.c.who == who) & (t.attempts.c.at > now - WINDOW)
        async with self._database.read() as connection:
            row = (await connection.execute(select(func.count(), func.min(t.attempts.c.at)).where(late))).one()
        return max(1.0, float(row[1]) + WINDOW - now) if row[0] >= MOST else 0.0

    async def failed(self, who: str, now: float) -> None:
        """Note a failure; forget what is older than the window."""
        async with self._database.begin() as connection:
            await connection.execute(delete(t.attempts).where(t.attempts.c.at <= now - WINDOW))
            await connection.execute(insert(t.attempts).values(who=who, at=now))
