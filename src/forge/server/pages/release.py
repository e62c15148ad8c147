"""One release: its traffic, errors, latency and evidence over time, what it cost, and why it went as it did."""

from __future__ import annotations

import uuid
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from forge.server.api.rights import environment_of_release
from forge.server.identity.guard import needs, site_of
from forge.server.identity.permissions import Permission, Principal
from forge.server.pages.environment import buttons
from forge.server.pages.live import live_address
from forge.server.pages.page_route import PageRoute
from forge.server.pages.rendering import render
from forge.server.problems import Problem, answered_with

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/projects/{project}/releases/{release}")
async def release_page(
    request: Request, project: str, release: str, principal: Annotated[Principal, Depends(needs(Permission.READ))]
) -> HTMLResponse:
    """Show a release."""
    site = site_of(request)
    environments, live = site.project(project).environments, await live_address(site, project)
    with answered_with(404):
        environment = await environments.get(environment_of_release(release))
        shown = next((one for one in environment.releases if one.id == release), None)
        story = await environments.explanation(release)
    if shown is None:
        raise Problem(404, f"{release} is too long ago: only its log is left", hint=f"forge explain {release}")
    return render(
        request, principal, "release.html", project=project, view=environment, release=shown, story=story,
        buttons=buttons(principal, project, environment, shown), key=uuid.uuid4().hex,
        data=f"/api/v1/projects/{quote(project, safe='')}/releases/{quote(release, safe='')}/history",
        live="" if shown.final else live,
    )  # fmt: skip
