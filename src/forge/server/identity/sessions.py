"""Sessions of browsers, and the links of which each opens one once."""

from __future__ import annotations

import hashlib
import json
import secrets

import msgspec
from sqlalchemy import delete, insert, select, update

from forge.server.database import SiteDatabase
from forge.server.identity import tables as t
from forge.server.identity.tokens import digest

IDLE = 12 * 3600.0
"""Seconds after which a session that nobody used is over."""
LONGEST = 7 * 86400.0
"""Seconds after which a session is over in any case."""
SEEN_EVERY = 60.0
LINK_SECONDS = 600.0


class Session(msgspec.Struct, frozen=True):
    """Somebody's browser. `csrf` is what its writes have to carry."""

    id: str
    owner: str
    groups: tuple[str, ...]
    csrf: str
    address: str = ""
    created_at: float = 0.0
    seen_at: float = 0.0


class Sessions:
    """Sessions in the site's database."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    async def begin(self, owner: str, *, now: float, address: str = "", groups: tuple[str, ...] = ()) -> str:
        """Begin a session; return the secret for the cookie. What is long over is forgotten."""
        secret = secrets.token_urlsafe(32)
        async with self._database.begin() as connection:
            await connection.execute(delete(t.sessions).where(t.sessions.c.seen_at < now - LONGEST))
            await connection.execute(
                insert(t.sessions).values(
                    hash=digest(secret), id=f"ses-{secrets.token_hex(6)}", owner=owner, groups=json.dumps(groups),
                    address=address, created_at=now, seen_at=now,
                )
            )  # fmt: skip
        return secret

    async def find(self, secret: str, now: float) -> Session | None:
        """Return the session of a cookie, unless it is over; note that it was seen."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(t.sessions).where(t.sessions.c.hash == digest(secret)))).first()
        if row is None or now - row.seen_at > IDLE or now - row.created_at > LONGEST:
            return None
        if now - row.seen_at >= SEEN_EVERY:
            async with self._database.begin() as connection:
                await connection.execute(update(t.sessions).where(t.sessions.c.id == row.id).values(seen_at=now))
        csrf = hashlib.sha256(f"csrf {secret}".encode()).hexdigest()
        return Session(row.id, row.owner, tuple(json.loads(row.groups)), csrf, row.address, row.created_at, row.seen_at)

    async def of(self, owner: str) -> list[Session]:
        """Return somebody's sessions, newest first; without what their writes carry."""
        query = select(t.sessions).where(t.sessions.c.owner == owner).order_by(t.sessions.c.seen_at.desc())
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [Session(row.id, row.owner, (), "", row.address, row.created_at, row.seen_at) for row in rows]

    async def end(self, session: str, owner: str) -> bool:
        """End somebody's session; return whether there was one of that id."""
        mine = (t.sessions.c.id == session) & (t.sessions.c.owner == owner)
        async with self._database.begin() as connection:
            return bool((await connection.execute(delete(t.sessions).where(mine))).rowcount)

    async def make_link(self, owner: str, now: float) -> str:
        """Make the secret of a link that logs somebody in once, within LINK_SECONDS."""
        secret = secrets.token_urlsafe(32)
        async with self._database.begin() as connection:
            await connection.execute(delete(t.links).where(t.links.c.expires_at < now))
            values = {"hash": digest(secret), "owner": owner, "expires_at": now + LINK_SECONDS}
            await connection.execute(insert(t.links).values(**values))
        return secret

    async def use_link(self, secret: str, now: float) -> str:
        """Use a link up and return whose it is; empty: it is none, was used, or has expired."""
        async with self._database.begin() as connection:
            gone = (
                delete(t.links).where(t.links.c.hash == digest(secret)).returning(t.links.c.owner, t.links.c.expires_at)
            )
            row = (await connection.execute(gone)).first()
        return "" if row is None or row.expires_at < now else str(row.owner)
