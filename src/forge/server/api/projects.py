"""Projects: what there is, and which version is where."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from forge.server.api.answers import ERRORS, PREFIX, Json, ProjectName, gives, gives_page, known_answer
from forge.server.identity.guard import SITE, needs, signed_in
from forge.server.identity.permissions import Permission, Principal
from forge.server.paging import page
from forge.server.site import Site
from forge.service.base import Service
from forge.views.environment import EnvironmentView
from forge.views.listing import RunRow

router = APIRouter(prefix=f"{PREFIX}/projects", tags=["projects"])
Reader = Annotated[Principal, Depends(needs(Permission.READ))]
Known = Annotated[Principal, Depends(signed_in)]
TheSite = Annotated[Site, SITE]


class ProjectRow(msgspec.Struct, frozen=True):
    """A project in a list."""

    name: str
    environments: tuple[str, ...]


class ProjectView(msgspec.Struct, frozen=True):
    """A project: which version is where, and what ran last."""

    name: str
    environments: tuple[EnvironmentView, ...]
    runs: tuple[RunRow, ...]


@router.get(
    "",
    summary="List projects",
    operation_id="list_projects",
    responses={**ERRORS, **gives_page(ProjectRow, "The projects that one may see; there is one page.")},
    response_class=Json,
)
async def list_projects(site: TheSite, reader: Known) -> Json:
    """Return the projects that whoever asks may look at."""
    rows = [
        ProjectRow(name, await service.environments.names())
        for name, service in site.projects.items()
        if reader.may(Permission.READ, name)
    ]
    return Json(page(rows, ""))


@router.get(
    "/{project}",
    summary="Look at a project",
    operation_id="get_project",
    responses={**ERRORS, **gives(ProjectView, "The project.")},
    response_class=Json,
)
async def get_project(request: Request, site: TheSite, _reader: Reader, project: ProjectName) -> Response:
    """Return its environments and its newest runs."""
    return known_answer(request, await project_view(site.project(project)))


async def project_view(service: Service, *, runs: int = 10) -> ProjectView:
    """Return a project with its environments and newest runs."""
    names = await service.environments.names()
    environments = tuple([await service.environments.get(name) for name in names])
    return ProjectView(service.name, environments, (await service.runs.page(limit=runs)).items)
