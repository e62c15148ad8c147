"""Who somebody is: from a token or a session to a principal with everything that was granted."""

from __future__ import annotations

import getpass
import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import Request

from forge.model.errors import UsageError
from forge.server.identity.attempts import Attempts
from forge.server.identity.audit import Audit, open_audit
from forge.server.identity.people import People, User
from forge.server.identity.permissions import Grant, Principal, Role
from forge.server.identity.sessions import Session, Sessions
from forge.server.identity.tokens import Token, Tokens
from forge.server.problems import Problem

if TYPE_CHECKING:
    from forge.server.site import Site

COOKIE = "forge_session"
CSRF_HEADER = "x-forge-csrf"
CSRF_FIELD = "csrf"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Identity:
    """Everything that a site knows of people. Made by `open_identity`."""

    def __init__(self, site: Site, audit: Audit) -> None:
        self.people = People(site.database)
        self.tokens = Tokens(site.database)
        self.sessions = Sessions(site.database)
        self.attempts = Attempts(site.database)
        self.audit = audit
        self._site = site

    async def configured(self) -> bool:
        """Whether anybody could log in without a link from this machine."""
        return await self.people.any() or bool(await self.tokens.of())

    async def one_time_link(self) -> str:
        """Return the path of a link that makes whoever opens it first, within ten minutes, the admin of this machine."""
        name = local_name()
        if await self.people.find(name) is None:
            await self.people.add(User(name, f"{name} of this machine", created_at=self._site.clock()))
        await self.people.grant("user", name, Grant(Role.ADMIN))
        return f"/login?link={await self.sessions.make_link(name, self._site.clock())}"

    async def authenticate(self, request: Request) -> Principal | None:
        """Return who asks, None for nobody. Raises Problem: 401 for a token that is none, 429 for too many of those,
        403 for a write of a browser that does not come from a page of ours."""
        authorization = request.headers.get("authorization", "")
        if authorization:
            return await self._by_token(request, authorization)
        cookie = request.cookies.get(COOKIE, "")
        session = await self.sessions.find(cookie, self._site.clock()) if cookie else None
        if session is None:
            return None
        user = await self.people.find(session.owner)
        if user is None or user.disabled:
            return None
        if request.method not in _SAFE:
            await _check_own_page(request, session)
        return await self.principal(user, session=session)

    async def principal(
        self, user: User, *, session: Session | None = None, token: Token | None = None
    ) -> Principal:  # fmt: skip
        """Return a user with what was granted to it and its groups; a token has at most its scopes of that."""
        groups = session.groups if session else token.groups if token else ()
        granted = await self.people.grants_of(user.name, groups)
        if token is not None and token.scopes:
            granted = narrowed(granted, token.scopes)
        return Principal(
            user.name, "token" if token else "user", user.display or user.name, granted,
            session.csrf if session else "", tuple(groups),
        )  # fmt: skip

    async def _by_token(self, request: Request, authorization: str) -> Principal:
        scheme, _, secret = authorization.partition(" ")
        now, address = self._site.clock(), address_of(request)
        token = await self.tokens.find(secret.strip(), now) if scheme.lower() == "bearer" else None
        user = await self.people.find(token.owner) if token else None
        if token is None or user is None or user.disabled:
            if wait := await self.attempts.wait(address, now):
                raise Problem(
                    429, "too many tokens that are none came from this address",
                    headers={"Retry-After": str(int(wait) + 1)},
                )  # fmt: skip
            await self.attempts.failed(address, now)
            raise Problem(
                401, "this token lets nobody in: it is unknown, expired or revoked",
                hint="`forge token add` makes a new one", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )  # fmt: skip
        return await self.principal(user, token=token)


def scopes_within(principal: Principal, asked: tuple[Grant, ...]) -> tuple[Grant, ...]:
    """Return the scopes of a token that somebody makes: a token makes none that may do more than itself, whatever it
    asks for. Raises Problem (403) when nothing is left, as no scopes stand for everything that the owner may."""
    if principal.kind != "token":
        return asked
    scopes = narrowed(principal.grants, asked) if asked else principal.grants
    if not scopes:
        raise Problem(403, "this token may do nothing of what the new one is to do")
    return scopes


def narrowed(granted: tuple[Grant, ...], scopes: tuple[Grant, ...]) -> tuple[Grant, ...]:
    """Return what both give: of every grant and scope the narrower place, with the roles whose permissions both have."""
    both: list[Grant] = []
    for grant in granted:
        for scope in scopes:
            place = _meet((grant.project, grant.environment), (scope.project, scope.environment))
            common = grant.role.permissions & scope.role.permissions
            roles = [role for role in Role if role.permissions <= common]
            if place is not None:
                both.extend(Grant(role, *place) for role in _largest(roles))
    return tuple(dict.fromkeys(both))


def _meet(one: tuple[str, str], other: tuple[str, str]) -> tuple[str, str] | None:
    parts = []
    for a, b in zip(one, other, strict=True):
        if a != b and "*" not in {a, b}:
            return None
        parts.append(b if a == "*" else a)
    return parts[0], parts[1]


def _largest(roles: list[Role]) -> list[Role]:
    return [role for role in roles if not any(role.permissions < other.permissions for other in roles)]


async def _check_own_page(request: Request, session: Session) -> None:
    """Raise Problem (403) for a write that some other site had the browser send."""
    origin = request.headers.get("origin", "")
    if origin and urlsplit(origin).netloc != request.headers.get("host", ""):
        raise Problem(403, f"this request comes from a page of {origin}")
    given = request.headers.get(CSRF_HEADER, "")
    kind = request.headers.get("content-type", "").partition(";")[0]
    if not given and kind in {"application/x-www-form-urlencoded", "multipart/form-data"}:
        given = str((await request.form()).get(CSRF_FIELD, ""))
    if not hmac.compare_digest(given.encode(), session.csrf.encode()):
        raise Problem(403, "this form is not from your session any more", hint="load the page again, and send it anew")


def address_of(request: Request) -> str:
    """Return the address that a request came from."""
    return request.client.host if request.client else ""


def csrf_of(principal: Principal) -> str:
    """Return what a form of this session has to carry."""
    return principal.session


def local_name() -> str:
    """Return how the command calls whoever works on this machine, so that both ways in are one person."""
    named = os.environ.get("FORGE_ACTOR", "").strip()
    if named:
        return named
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid-{os.getuid()}"


@asynccontextmanager
async def open_identity(site: Site) -> AsyncIterator[Identity]:
    """Open the site's knowledge of people. Raises UsageError for `oidc:`, which this version cannot do: a login page
    with a way in that leads nowhere would be worse than none."""
    if site.settings.oidc is not None:
        raise UsageError(
            "`oidc:` is set, but this version cannot log anybody in by an OpenID provider yet",
            hint="take `oidc:` out of forge-server.yaml; people log in by tokens (docs/server-access.md)",
        )
    async with open_audit(site.settings, site.database) as audit:
        yield Identity(site, audit)
