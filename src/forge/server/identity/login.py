"""Coming in and going out: one-time links, tokens typed into a form, and ending a session."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from forge.server.identity.guard import site_of
from forge.server.identity.identity import COOKIE, address_of
from forge.server.pages.rendering import render
from forge.server.problems import Problem
from forge.server.site import Site

router = APIRouter(include_in_schema=False)
_HERE = re.compile(r"/(?![/\\])[\x21-\x7e]*")


@router.get("/login")
async def login_page(
    request: Request, link: Annotated[str, Query(max_length=200)] = "", next: Annotated[str, Query(max_length=2000)] = "/"  # noqa: A002
) -> Response:  # fmt: skip
    """Show how to log in; a link asks for one click first, so that whatever previews links does not use it up."""
    return await _page(request, link=link, target=next)


@router.post("/login")
async def log_in(
    request: Request,
    link: Annotated[str, Form(max_length=200)] = "",
    token: Annotated[str, Form(max_length=500)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
) -> Response:
    """Begin a session by a link or a token."""
    site, now, address = site_of(request), site_of(request).clock(), address_of(request)
    if wait := await site.identity.attempts.wait(address, now):
        raise Problem(429, "too many attempts to log in", headers={"Retry-After": str(int(wait) + 1)})
    groups: tuple[str, ...] = ()
    if link:
        owner = await site.identity.sessions.use_link(link, now)
        wrong = "this link was used already, or is older than ten minutes: start `forge serve` again for another"
    else:
        found = await site.identity.tokens.find(token.strip(), now)
        owner, groups = (found.owner, found.groups) if found and not found.scopes else ("", ())
        wrong = "this token lets nobody in: it is unknown, expired, revoked, or made for less than all that you may"
    user = await site.identity.people.find(owner) if owner else None
    if user is None or user.disabled:
        await site.identity.attempts.failed(address, now)
        await site.identity.audit.note("login_failed", f"somebody at {address} was not let in", address=address)
        return await _page(request, problem=wrong, target=next, status=401)
    return await begin(request, site, user.name, groups, next, by="link" if link else "token")


async def begin(
    request: Request, site: Site, owner: str, groups: tuple[str, ...], target: str, *, by: str
) -> Response:  # fmt: skip
    """Begin a session for somebody who proved who he is, and send the browser on."""
    address = address_of(request)
    secret = await site.identity.sessions.begin(owner, now=site.clock(), address=address, groups=groups)
    await site.identity.audit.note("login", f"{owner} logged in by {by}", actor=owner, address=address, by=by)
    answer = RedirectResponse(safe_target(target), status_code=303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, secret, httponly=True, samesite="lax", secure=secure, path="/")
    return answer


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """End the session. Needs no right: a form of another site could only log somebody out."""
    site, cookie = site_of(request), request.cookies.get(COOKIE, "")
    session = await site.identity.sessions.find(cookie, site.clock()) if cookie else None
    if session is not None:
        await site.identity.sessions.end(session.id, session.owner)
        await site.identity.audit.note("logout", f"{session.owner} logged out", actor=session.owner)
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(COOKIE, path="/")
    return answer


def safe_target(target: str) -> str:
    """Return a path of this site, whatever was asked for."""
    return target if _HERE.fullmatch(target) and not target.startswith(("/login", "/logout")) else "/"


def login_address(request: Request) -> str:
    """Return where somebody who is not logged in is sent."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"/login?next={quote(here, safe='/')}"


async def _page(
    request: Request, *, link: str = "", target: str = "/", problem: str = "", status: int = 200
) -> Response:  # fmt: skip
    site = site_of(request)
    oidc = site.settings.oidc.title if site.settings.oidc is not None else ""
    return render(
        request, None, "login.html", status=status, link=link, target=safe_target(target), problem=problem, oidc=oidc
    )
