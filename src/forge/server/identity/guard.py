"""Who asks, and whether it is allowed: what every endpoint depends on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Depends, Request

from forge.server.identity.permissions import Permission, Principal
from forge.server.problems import Problem
from forge.server.site import Site


def site_of(request: Request) -> Site:
    """Return the site that a request is to."""
    site: Site = request.app.state.site
    return site


SITE = Depends(site_of)


async def signed_in(request: Request) -> Principal:
    """Return who asks. Raises Problem (401) when nobody is logged in."""
    identity = getattr(site_of(request), "identity", None)
    principal: Principal | None = await identity.authenticate(request) if identity is not None else None
    if principal is None:
        raise Problem(401, "nobody is logged in", headers={"WWW-Authenticate": "Bearer"})
    request.state.principal_name = principal.name
    return principal


def needs(permission: Permission) -> Callable[[Request], Awaitable[Principal]]:
    """Return a dependency that gives who asks, when he has the permission on what the path names. Raises Problem."""

    async def allowed(request: Request) -> Principal:
        principal = await signed_in(request)
        project = request.path_params.get("project", "*")
        environment = request.path_params.get("environment", "*")
        if release := request.path_params.get("release"):
            environment = release.rpartition("-")[0] or "*"
        if not principal.may(permission, project, environment):
            where = f" on {environment}" if environment != "*" else ""
            raise Problem(403, f"{principal.name} may not {permission.value} in {project}{where}")
        return principal

    return allowed
