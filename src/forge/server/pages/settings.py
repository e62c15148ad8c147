"""Settings: one's tokens and sessions; for admins users, what they were granted, and the trail of acts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from forge.server.identity.guard import needs, signed_in, site_of
from forge.server.identity.identity import scopes_within
from forge.server.identity.people import User
from forge.server.identity.permissions import Grant, Permission, Principal, Role
from forge.server.pages.page_route import PageRoute
from forge.server.pages.rendering import render
from forge.server.problems import Problem, answered_with

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Anybody = Annotated[Principal, Depends(signed_in)]
Admin = Annotated[Principal, Depends(needs(Permission.ADMIN))]
ONE_DAY = 86400.0
SHOWN_ACTS = 50


@router.get("/settings")
async def settings_page(request: Request, principal: Anybody) -> Response:
    """Show what one may set."""
    return await _page(request, principal)


@router.post("/settings/tokens")
async def make_token(request: Request, principal: Anybody) -> Response:
    """Make a token, and show its secret this once."""
    site, form = site_of(request), await request.form()
    label, days = str(form.get("label", "")).strip()[:200], str(form.get("days", "90"))
    if not label:
        raise Problem(400, "a token needs a name, so that you know later which one it is")
    if not days.isdigit() or not 1 <= int(days) <= 3660:
        raise Problem(400, "a token is good for 1 to 3660 days")
    role = str(form.get("role", ""))
    scopes = scopes_within(principal, (Grant(Role(role)),) if role in set(Role) else ())
    now = site.clock()
    token, secret = await site.identity.tokens.make(
        principal.name, label, now=now, scopes=scopes, groups=principal.groups, expires_at=now + int(days) * ONE_DAY
    )
    await site.identity.audit.note(
        "token_made", f"{principal.name} made the token {token.id} ({label})", actor=principal.name, token=token.id
    )
    return await _page(request, principal, secret=secret)


@router.post("/settings/tokens/{token}/revoke")
async def revoke_token(request: Request, principal: Anybody, token: str) -> Response:
    """End a token."""
    owner = "" if principal.may(Permission.ADMIN) else principal.name
    with answered_with(404):
        gone = await site_of(request).identity.tokens.revoke(token, owner=owner)
    await site_of(request).identity.audit.note(
        "token_revoked", f"{principal.name} revoked {gone.owner}'s token {gone.id}", actor=principal.name, token=gone.id
    )
    return RedirectResponse("/settings", status_code=303)


@router.post("/settings/users")
async def add_user(request: Request, admin: Admin) -> Response:
    """Add a user with a role."""
    site, form = site_of(request), await request.form()
    name, role = str(form.get("name", "")).strip(), str(form.get("role", ""))
    if role not in set(Role):
        raise Problem(400, f"there is no role `{role}`", hint=f"there are {', '.join(Role)}")
    project = str(form.get("project", "") or "*")
    environment = str(form.get("environment", "") or "*")
    with answered_with(400):
        if await site.identity.people.find(name) is None:
            await site.identity.people.add(User(name, name, created_at=site.clock()))
        number = await site.identity.people.grant("user", name, Grant(Role(role), project, environment))
    await site.identity.audit.note(
        "granted", f"{admin.name} made user {name} {role} of {project}/{environment}", actor=admin.name, grant=number
    )
    return RedirectResponse("/settings", status_code=303)


@router.post("/settings/grants/{grant}/revoke")
async def revoke_grant(request: Request, admin: Admin, grant: int) -> Response:
    """Take a role back."""
    with answered_with(404):
        held = await site_of(request).identity.people.revoke(grant)
    await site_of(request).identity.audit.note(
        "revoked", f"{admin.name} took {held.grant.role.value} from {held.subject}", actor=admin.name, grant=grant
    )
    return RedirectResponse("/settings", status_code=303)


async def _page(request: Request, principal: Principal, *, secret: str = "") -> Response:
    identity, admin = site_of(request).identity, principal.may(Permission.ADMIN)
    last = await identity.audit.last() if admin else 0
    acts = await identity.audit.read(after=max(0, last - SHOWN_ACTS), limit=SHOWN_ACTS) if admin else []
    return render(
        request, principal, "settings.html", secret=secret, roles=tuple(Role), admin=admin,
        tokens=await identity.tokens.of("" if admin else principal.name),
        sessions=await identity.sessions.of(principal.name),
        users=await identity.people.users() if admin else [], grants=await identity.people.grants() if admin else [],
        acts=list(reversed(acts)),
    )  # fmt: skip
