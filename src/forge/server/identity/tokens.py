"""Personal tokens: what programs show instead of logging in."""

from __future__ import annotations

import hashlib
import json
import secrets

import msgspec
from sqlalchemy import delete, insert, select, update

from forge.model.errors import UsageError
from forge.server.database import SiteDatabase
from forge.server.identity import tables as t
from forge.server.identity.people import decode_grants, encode_grants
from forge.server.identity.permissions import Grant

PREFIX = "forge_"
"""So that a token is recognised where it should not be, by people and by scanners."""
USED_EVERY = 60.0
"""Seconds between two notes of when a token was last used: every request would be a write."""


class Token(msgspec.Struct, frozen=True):
    """A token on record. `scopes`: it may do no more than these; empty: all that its owner may."""

    id: str
    label: str
    owner: str
    scopes: tuple[Grant, ...]
    created_at: float
    expires_at: float | None = None
    used_at: float | None = None
    groups: tuple[str, ...] = ()
    """The groups that its owner was in when it was made."""

    def expired(self, now: float) -> bool:
        """Whether it lets nobody in any more."""
        return self.expires_at is not None and now >= self.expires_at


def digest(secret: str) -> str:
    """Return what is kept of something that lets somebody in."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Tokens:
    """Tokens in the site's database."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    async def make(
        self, owner: str, label: str, *, now: float, scopes: tuple[Grant, ...] = (), groups: tuple[str, ...] = (),
        expires_at: float | None = None,
    ) -> tuple[Token, str]:  # fmt: skip
        """Make a token; return it and the secret, which nobody can learn a second time."""
        secret = PREFIX + secrets.token_urlsafe(32)
        token = Token(f"tok-{secrets.token_hex(6)}", label, owner, scopes, now, expires_at, None, groups)
        async with self._database.begin() as connection:
            await connection.execute(
                insert(t.tokens).values(
                    id=token.id, hash=digest(secret), label=label, owner=owner, scopes=encode_grants(scopes),
                    groups=json.dumps(groups), created_at=now, expires_at=expires_at, used_at=None,
                )
            )  # fmt: skip
        return token, secret

    async def find(self, secret: str, now: float) -> Token | None:
        """Return the token of a secret, unless it has expired; note that it was used."""
        if not secret.startswith(PREFIX):
            return None
        async with self._database.read() as connection:
            row = (await connection.execute(select(t.tokens).where(t.tokens.c.hash == digest(secret)))).first()
        token = _token(row) if row is not None else None
        if token is None or token.expired(now):
            return None
        if token.used_at is None or now - token.used_at >= USED_EVERY:
            async with self._database.begin() as connection:
                await connection.execute(update(t.tokens).where(t.tokens.c.id == token.id).values(used_at=now))
        return token

    async def of(self, owner: str = "") -> list[Token]:
        """Return somebody's tokens, or all, oldest first."""
        query = select(t.tokens).order_by(t.tokens.c.created_at, t.tokens.c.id)
        async with self._database.read() as connection:
            rows = await connection.execute(query.where(t.tokens.c.owner == owner) if owner else query)
            return [_token(row) for row in rows]

    async def revoke(self, token: str, *, owner: str = "") -> Token:
        """End a token, of this owner if one is named. Raises UsageError when there is none."""
        mine = t.tokens.c.id == token
        if owner:
            mine &= t.tokens.c.owner == owner
        async with self._database.begin() as connection:
            row = (await connection.execute(select(t.tokens).where(mine))).first()
            if row is None:
                raise UsageError(f"there is no token `{token}`", hint="`forge token list` shows yours")
            await connection.execute(delete(t.tokens).where(mine))
        return _token(row)


def _token(row: object) -> Token:
    values = row._mapping  # type: ignore[attr-defined]  # noqa: SLF001
    return Token(
        values["id"], values["label"], values["owner"], decode_grants(values["scopes"]), values["created_at"],
        values["expires_at"], values["used_at"], tuple(json.loads(values["groups"])),
    )  # fmt: skip
