"""Every route and every role: who is let in is what the route declares. A new route that declares nothing fails here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from forge.server.app import _assemble
from forge.server.identity.permissions import Grant, Role

OPEN = {
    "/healthz", "/readyz", "/metrics", "/login", "/logout", "/static/{digest}/{name:path}", "/login/oidc", "/login/oidc/back",
}  # fmt: skip
"""What nobody has to be known for."""
CONTENT = {"/api/v1/projects/{project}/runs/{run}/{kind}", "/projects/{project}/runs/{run}/{kind}",
           "/projects/{project}/environments/{environment}/{kind}"}  # fmt: skip
WRITES = {"POST", "PUT", "PATCH", "DELETE"}
ROLES: dict[str, tuple[Grant, ...]] = {
    "nothing": (),
    "viewer": (Grant(Role.VIEWER, "shop"),),
    "runner": (Grant(Role.RUNNER, "shop"),),
    "approver": (Grant(Role.APPROVER, "shop"),),
    "admin": (Grant(Role.ADMIN),),
    "admin of another project": (Grant(Role.ADMIN, "other"),),
}


def routes() -> Iterator[tuple[str, str]]:
    included = [one.original_router for one in _assemble().routes if hasattr(one, "original_router")]
    for route in (route for router in included for route in router.routes):
        if isinstance(route, APIRoute) and route.path not in OPEN and not route.path.startswith("/hooks/"):
            for method in sorted(route.methods - {"HEAD"}):
                yield method, route.path


def address(path: str) -> str:
    names = {"project": "shop", "run": "run-1", "environment": "production", "release": "production-1", "kind": "cancel",
             "job": "build", "attempt": "1", "step": "compile", "name": "shop.txt", "token": "tok-1", "grant": "1"}  # fmt: skip
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: names.get(match[1], "1"), path)


async def let_in_no_more(house: Any) -> dict[str, Any]:
    """Return clients of admins whose tokens were good once."""
    expired = await house.client("late", Grant(Role.ADMIN), expires_at=house.now)
    revoked = await house.client("gone", Grant(Role.ADMIN))
    (token,) = await house.site.identity.tokens.of("gone")
    await house.site.identity.tokens.revoke(token.id)
    disabled = await house.client("off", Grant(Role.ADMIN))
    await house.person("off", disabled=True)
    return {"expired": expired, "revoked": revoked, "disabled": disabled}


ALL = sorted(set(routes()))


@pytest.mark.parametrize(("method", "path"), ALL, ids=[f"{method} {path}" for method, path in ALL])
@pytest.mark.timeout(60)
async def test_who_is_let_in(house: Any, method: str, path: str) -> None:
    where = address(path)
    if path in CONTENT:
        await house.site.project("shop").runs.start({}, actor="somebody")
        where = where.replace("production/cancel", "production/abort")
    api = path.startswith("/api/")
    stranger = await house.browser().request(method, where, headers={"Accept": "application/json"})
    if api or method in WRITES:
        assert stranger.status_code in {401, 405}, stranger.text[:300]
    else:
        assert stranger.status_code in {303, 401}
    forged = house.browser(Authorization="Bearer forge_" + "x" * 43)
    assert (await forged.request(method, where)).status_code in {401, 303, 405}
    for kind, client in (await let_in_no_more(house)).items():
        assert (await client.request(method, where)).status_code in {401, 303, 405}, kind
    seen = {}
    for number, (role, grants) in enumerate(ROLES.items()):
        client = await house.client(f"p{number}", *grants)
        if path.endswith(("/live", "/events")) or path == "/live":
            continue  # streams; their guard is that of the stranger above, and the events' own tests
        answer = await client.request(method, where, json={} if api and method in WRITES else None)
        seen[role] = answer.status_code
        assert answer.status_code != 401
        assert answer.status_code < 500, answer.text[:500]
    if "{project}" in path and seen:
        assert seen["nothing"] == seen["admin of another project"] == 403, seen
        assert seen["admin"] != 403 or path in CONTENT, seen
        if method in WRITES:
            assert seen["viewer"] == 403, seen
            if path.rpartition("/")[2] in {"approve", "reject"}:
                assert seen["runner"] == 403, seen
            elif path not in CONTENT:
                assert seen["approver"] == 403, seen
        else:
            assert seen["viewer"] != 403, seen


def test_there_is_something_to_ask() -> None:
    assert len(ALL) > 30
