"""People by the API: oneself, tokens, users, grants, sessions, and the trail of what was done."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from forge.server.api.answers import ERRORS, PREFIX, WRITE_ERRORS, Json, gives, gives_page
from forge.server.identity import login
from forge.server.identity.guard import SITE, needs, signed_in
from forge.server.identity.identity import scopes_within
from forge.server.identity.people import HeldGrant, User
from forge.server.identity.permissions import Grant, Permission, Principal, Role
from forge.server.identity.tokens import Token
from forge.server.paging import Cursor, Limit, number_of, page
from forge.server.problems import answered_with
from forge.server.site import Site
from forge.store.contract import StoredEvent

router = APIRouter(prefix=PREFIX, tags=["people"])
Anybody = Annotated[Principal, Depends(signed_in)]
Admin = Annotated[Principal, Depends(needs(Permission.ADMIN))]
TheSite = Annotated[Site, SITE]
Name = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$", examples=["ann"])]
Where = Annotated[str, Field(max_length=250, min_length=1)]
ONE_DAY = 86400.0


class Body(BaseModel):
    """A JSON object; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Scope(Body):
    """A role on a project and an environment; `*` is all."""

    role: Role
    project: Where = "*"
    environment: Where = "*"

    def grant(self) -> Grant:
        """Return the grant that it stands for."""
        return Grant(self.role, self.project, self.environment)


class NewToken(Body):
    """A token to make. `scopes`: it may do no more than these; empty: all that you may."""

    label: Annotated[str, Field(min_length=1, max_length=200, examples=["laptop"])]
    days: Annotated[float, Field(gt=0, le=3660, description="How long it is good for.")] = 90
    scopes: Annotated[list[Scope], Field(max_length=100)] = []


class NewUser(Body):
    """A user to add, or what is to be changed of one."""

    name: Name
    display: Annotated[str, Field(max_length=200)] = ""
    email: Annotated[str, Field(max_length=320)] = ""
    disabled: bool = False


class NewGrant(Scope):
    """A role to give to a user, or to a group of the OpenID provider."""

    subject: Annotated[str, Field(min_length=1, max_length=250, examples=["ann"])]
    kind: Annotated[str, Field(pattern="^(user|group)$")] = "user"


@router.get("/me", summary="Who you are, and what you may do", operation_id="me",
            responses={**ERRORS, **gives(Principal, "You.")}, response_class=Json)  # fmt: skip
async def me(principal: Anybody) -> Json:
    """Return who asks."""
    return Json({"name": principal.name, "kind": principal.kind, "display": principal.display,
                 "grants": principal.grants, "groups": principal.groups})  # fmt: skip


@router.get("/tokens", summary="List your tokens; an admin's list has everybody's", operation_id="list_tokens",
            responses={**ERRORS, **gives_page(Token, "Tokens, without their secrets.")}, response_class=Json)  # fmt: skip
async def list_tokens(site: TheSite, principal: Anybody) -> Json:
    """Return tokens."""
    owner = "" if principal.may(Permission.ADMIN) else principal.name
    return Json(page(tuple(await site.identity.tokens.of(owner)), ""))


@router.post("/tokens", status_code=201, summary="Make a token for yourself", operation_id="make_token",
             responses={**WRITE_ERRORS, **gives(dict[str, Any], "The token; its secret is shown this once.", status=201)},
             response_class=Json)  # fmt: skip
async def make_token(site: TheSite, principal: Anybody, body: NewToken) -> Json:
    """Make a token."""
    now = site.clock()
    scopes = scopes_within(principal, tuple(scope.grant() for scope in body.scopes))
    token, secret = await site.identity.tokens.make(
        principal.name, body.label, now=now, scopes=scopes, groups=principal.groups,
        expires_at=now + body.days * ONE_DAY,
    )  # fmt: skip
    await site.identity.audit.note("token_made", f"{principal.name} made the token {token.id} ({token.label})",
                                   actor=principal.name, token=token.id)  # fmt: skip
    return Json({"token": token, "secret": secret}, 201, {"Cache-Control": "no-store"})


@router.delete("/tokens/{token}", status_code=204, summary="Revoke a token", operation_id="revoke_token",
               responses=WRITE_ERRORS, response_class=Response)  # fmt: skip
async def revoke_token(site: TheSite, principal: Anybody, token: Annotated[str, Path(max_length=100)]) -> Response:
    """End a token of yours; an admin ends anybody's."""
    owner = "" if principal.may(Permission.ADMIN) else principal.name
    with answered_with(404):
        gone = await site.identity.tokens.revoke(token, owner=owner)
    await site.identity.audit.note("token_revoked", f"{principal.name} revoked {gone.owner}'s token {gone.id}",
                                   actor=principal.name, token=gone.id, owner=gone.owner)  # fmt: skip
    return Response(status_code=204)


@router.get("/users", summary="List users", operation_id="list_users",
            responses={**ERRORS, **gives_page(User, "Users, by name.")}, response_class=Json)  # fmt: skip
async def list_users(site: TheSite, _admin: Admin) -> Json:
    """Return everybody."""
    return Json(page(tuple(await site.identity.people.users()), ""))


@router.post("/users", status_code=201, summary="Add a user, or change one", operation_id="add_user",
             responses={**WRITE_ERRORS, **gives(User, "The user.", status=201)}, response_class=Json)  # fmt: skip
async def add_user(site: TheSite, admin: Admin, body: NewUser) -> Json:
    """Add a user; one that is there is changed."""
    user = User(body.name, body.display, body.email, body.disabled, site.clock())
    await site.identity.people.add(user)
    state = "disabled" if user.disabled else "is a user"
    await site.identity.audit.note("user", f"{admin.name}: {user.name} {state}", actor=admin.name, user=user.name,
                                   disabled=user.disabled)  # fmt: skip
    return Json(user, 201)


@router.get("/grants", summary="List grants", operation_id="list_grants",
            responses={**ERRORS, **gives_page(HeldGrant, "Grants.")}, response_class=Json)  # fmt: skip
async def list_grants(site: TheSite, _admin: Admin) -> Json:
    """Return who may do what."""
    return Json(page(tuple(await site.identity.people.grants()), ""))


@router.post("/grants", status_code=201, summary="Give a role", operation_id="give_role",
             responses={**WRITE_ERRORS, **gives(dict[str, int], "The number of the grant.", status=201)},
             response_class=Json)  # fmt: skip
async def give_role(site: TheSite, admin: Admin, body: NewGrant) -> Json:
    """Grant a role to a user or a group."""
    with answered_with(404):
        number = await site.identity.people.grant(body.kind, body.subject, body.grant())
    words = f"{admin.name} made {body.kind} {body.subject} {body.role.value} of {body.project}/{body.environment}"
    await site.identity.audit.note("granted", words, actor=admin.name, grant=number, subject=body.subject,
                                   role=body.role.value, project=body.project, environment=body.environment)  # fmt: skip
    return Json({"id": number}, 201)


@router.delete("/grants/{grant}", status_code=204, summary="Take a role back", operation_id="take_role",
               responses=WRITE_ERRORS, response_class=Response)  # fmt: skip
async def take_role(site: TheSite, admin: Admin, grant: Annotated[int, Path(ge=1, le=2**31)]) -> Response:
    """Revoke a grant."""
    with answered_with(404):
        held = await site.identity.people.revoke(grant)
    await site.identity.audit.note("revoked", f"{admin.name} took {held.grant.role.value} from {held.subject}",
                                   actor=admin.name, grant=grant, subject=held.subject)  # fmt: skip
    return Response(status_code=204)


@router.get("/audit", summary="What people did to the site", operation_id="read_audit",
            responses={**ERRORS, **gives_page(StoredEvent, "Acts, oldest first, with the hashes of their chain.")},
            response_class=Json)  # fmt: skip
async def read_audit(site: TheSite, _admin: Admin, limit: Limit = 100, cursor: Cursor = "") -> Json:
    """Return a page of the trail."""
    acts = await site.identity.audit.read(after=number_of(cursor), limit=limit)
    return Json(page(tuple(acts), str(acts[-1].seq) if len(acts) == limit else ""))


@router.get("/audit/verify", summary="Check the trail's chain", operation_id="verify_audit",
            responses={**ERRORS, **gives(dict[str, Any], "The first record that does not fit, or null.")},
            response_class=Json)  # fmt: skip
async def verify_audit(site: TheSite, _admin: Admin) -> Json:
    """Walk the chain."""
    return Json({"first_wrong": await site.identity.audit.verify()})


routers: list[APIRouter] = [router, login.router]
"""The routers of this part of the server."""
