"""Velocity: how fast and how safely each service is released, over time; as a page, CSV and JSON."""

from __future__ import annotations

import csv
import io
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response

from forge.server.api.answers import ERRORS, PREFIX, Json, ProjectName, gives, gives_content
from forge.server.identity.guard import SITE, needs, signed_in, site_of
from forge.server.identity.permissions import Permission, Principal
from forge.server.pages.page_route import PageRoute
from forge.server.pages.rendering import render
from forge.server.site import Site
from forge.service.pace import velocity_of
from forge.views.velocity import Velocity, csv_rows

router = APIRouter(include_in_schema=False, route_class=PageRoute)
api = APIRouter(prefix=f"{PREFIX}/projects/{{project}}", tags=["velocity"])
Days = Annotated[int, Query(ge=1, le=3660, description="How many days back.")]
Reader = Annotated[Principal, Depends(needs(Permission.READ))]
TheSite = Annotated[Site, SITE]


@router.get("/velocity")
async def velocity_page(
    request: Request, principal: Annotated[Principal, Depends(signed_in)], days: Days = 56
) -> HTMLResponse:
    """Show every service that one may look at."""
    site = site_of(request)
    names = [name for name in site.projects if principal.may(Permission.READ, name)]
    found = [one for name in names for one in await _of(site, name, days)]
    return render(request, principal, "velocity.html", found=found, days=days, names=names)


class Measured(msgspec.Struct, frozen=True):
    """The measures of a project's environments."""

    items: tuple[Velocity, ...]


@api.get("/velocity", summary="How fast and how safely a project is released", operation_id="get_velocity",
         responses={**ERRORS, **gives(Measured, "Each environment, in all and by week.")}, response_class=Json)  # fmt: skip
async def get_velocity(site: TheSite, _reader: Reader, project: ProjectName, days: Days = 56) -> Json:
    """Return DORA's measures, the size of batches, and what releases cost."""
    site.project(project)
    return Json(Measured(tuple(await _of(site, project, days))))


@api.get("/velocity.csv", summary="The same as a table", operation_id="get_velocity_table",
         responses=ERRORS | gives_content("A row for each environment and week.", "text/csv"),
         response_class=Response)  # fmt: skip
async def get_velocity_table(site: TheSite, _reader: Reader, project: ProjectName, days: Days = 56) -> Response:
    """Return the weeks as CSV."""
    site.project(project)
    text = io.StringIO()
    csv.writer(text).writerows(csv_rows(await _of(site, project, days)))
    headers = {"Content-Disposition": 'attachment; filename="velocity.csv"', "X-Content-Type-Options": "nosniff"}
    return Response(text.getvalue(), headers=headers, media_type="text/csv; charset=utf-8")


async def _of(site: Site, project: str, days: int) -> list[Velocity]:
    now = site.clock()
    return await velocity_of(site.engine(project), project, now - days * 86400.0, now)
