"""Users and what they were granted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forge.model.errors import UsageError
from forge.server.database import SiteDatabase
from forge.server.identity import tables as t
from forge.server.identity.permissions import Grant, Role

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")


class User(msgspec.Struct, frozen=True):
    """Somebody. `name` is what goes on record for what they do; times are seconds since the epoch."""

    name: str
    display: str = ""
    email: str = ""
    disabled: bool = False
    created_at: float = 0.0


class HeldGrant(msgspec.Struct, frozen=True):
    """A grant on record. `kind`: `user` or `group`."""

    id: int
    kind: str
    subject: str
    grant: Grant


class People:
    """Users and grants in the site's database."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    async def users(self) -> list[User]:
        """Return everybody, by name."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(t.users).order_by(t.users.c.name))
            return [User(row.name, row.display, row.email, bool(row.disabled), row.created_at) for row in rows]

    async def find(self, name: str) -> User | None:
        """Return a user, or None."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(t.users).where(t.users.c.name == name))).first()
        return None if row is None else User(row.name, row.display, row.email, bool(row.disabled), row.created_at)

    async def add(self, user: User) -> User:
        """Add a user, or change what is said of one. Raises UsageError for a name that cannot be one."""
        if not NAME.fullmatch(user.name):
            raise UsageError(
                f"`{user.name}` is no name for a user",
                hint="letters, digits and . _ @ + -, at most 100, a letter first",
            )
        said = {"display": user.display, "email": user.email, "disabled": int(user.disabled)}
        async with self._database.begin() as connection:
            changed = await connection.execute(update(t.users).where(t.users.c.name == user.name).values(**said))
            if not changed.rowcount:
                await connection.execute(insert(t.users).values(name=user.name, created_at=user.created_at, **said))
        return user

    async def grant(self, kind: str, subject: str, grant: Grant) -> int:
        """Put a grant on record and return its number; the same one twice is one. Raises UsageError for a user that
        there is not."""
        if kind not in {"user", "group"}:
            raise UsageError(f"a grant is a user's or a group's, not a {kind}'s")
        values = {
            "kind": kind, "subject": subject, "role": grant.role.value,
            "project": grant.project, "environment": grant.environment,
        }  # fmt: skip
        async with self._database.begin() as connection:
            if kind == "user" and not await _exists(connection, subject):
                raise UsageError(f"there is no user `{subject}`", hint=f"`forge user add {subject}`")
            same = select(t.grants.c.id).where(*(t.grants.c[name] == value for name, value in values.items()))
            if (row := (await connection.execute(same)).first()) is not None:
                return int(row.id)
            added = await connection.execute(insert(t.grants).values(**values).returning(t.grants.c.id))
            return int(added.scalar_one())

    async def revoke(self, number: int) -> HeldGrant:
        """Take a grant off the record. Raises UsageError when there is none of that number."""
        async with self._database.begin() as connection:
            row = (await connection.execute(select(t.grants).where(t.grants.c.id == number))).first()
            if row is None:
                raise UsageError(f"there is no grant {number}")
            await connection.execute(delete(t.grants).where(t.grants.c.id == number))
        return _held(row)

    async def grants(self) -> list[HeldGrant]:
        """Return every grant."""
        async with self._database.read() as connection:
            return [_held(row) for row in await connection.execute(select(t.grants).order_by(t.grants.c.id))]

    async def grants_of(self, user: str, groups: Iterable[str]) -> tuple[Grant, ...]:
        """Return what a user may do, by name and by group."""
        mine = (t.grants.c.kind == "user") & (t.grants.c.subject == user)
        theirs = (t.grants.c.kind == "group") & t.grants.c.subject.in_(list(groups))
        async with self._database.read() as connection:
            rows = await connection.execute(select(t.grants).where(mine | theirs).order_by(t.grants.c.id))
            return tuple(_held(row).grant for row in rows)

    async def any(self) -> bool:
        """Tell whether there is anybody."""
        async with self._database.read() as connection:
            return bool((await connection.execute(select(func.count()).select_from(t.users))).scalar_one())


async def _exists(connection: AsyncConnection, name: str) -> bool:
    return (await connection.execute(select(t.users.c.name).where(t.users.c.name == name))).first() is not None


def _held(row: object) -> HeldGrant:
    values = row._mapping  # type: ignore[attr-defined]  # noqa: SLF001
    grant = Grant(Role(values["role"]), values["project"], values["environment"])
    return HeldGrant(values["id"], values["kind"], values["subject"], grant)


def encode_grants(grants: Iterable[Grant]) -> str:
    """Return grants as they are kept beside a token."""
    return json.dumps([[one.role.value, one.project, one.environment] for one in grants])


def decode_grants(text: str) -> tuple[Grant, ...]:
    """Return grants that were kept beside a token."""
    return tuple(Grant(Role(role), project, environment) for role, project, environment in json.loads(text))
