"""Which version is where: every environment of every project on one page."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from forge.model.errors import ForgeError
from forge.server.identity.guard import signed_in, site_of
from forge.server.identity.permissions import Permission, Principal
from forge.server.pages.page_route import PageRoute
from forge.server.pages.rendering import render
from forge.views.environment import EnvironmentView
from forge.views.listing import RunRow
from forge.views.release import ReleaseView

router = APIRouter(include_in_schema=False, route_class=PageRoute)
WAITING_RUNS = 20
TROUBLE = frozenset({"rolling_back"})
NEEDS_A_PERSON = frozenset({"waiting_approval", "paused"})


class Tile(NamedTuple):
    """One environment. `look`: `attention` when a person is waited for, `trouble` when something is wrong."""

    project: str
    view: EnvironmentView
    look: str
    last: ReleaseView | None


class Section(NamedTuple):
    """A project: its environments, and the runs that stand at a gate. `problem`: why it cannot be shown."""

    project: str
    tiles: tuple[Tile, ...]
    waiting: tuple[RunRow, ...]
    empty: bool
    problem: str = ""


@router.get("/")
async def home(request: Request, principal: Annotated[Principal, Depends(signed_in)]) -> HTMLResponse:
    """Show every environment that one may look at."""
    site = site_of(request)
    names = [name for name in site.projects if principal.may(Permission.READ, name)]
    sections = [await _section(request, name) for name in names]
    return render(request, principal, "home.html", sections=sections, live="/live", folder=str(site.settings.state))


async def _section(request: Request, project: str) -> Section:
    service = site_of(request).project(project)
    try:
        views = [await service.environments.get(name) for name in await service.environments.names()]
        waiting = await service.runs.page(statuses=("waiting",), limit=WAITING_RUNS)
        newest = await service.runs.page(limit=1)
    except ForgeError as error:  # one project that cannot be read must not hide the others
        return Section(project, (), (), empty=False, problem=error.message)
    tiles = tuple(Tile(project, view, _look(view), view.current) for view in views)
    return Section(project, tiles, waiting.items, empty=not newest.items)


def _look(view: EnvironmentView) -> str:
    states = {release.state for release in view.under_way}
    if states & TROUBLE or view.problem:
        return "trouble"
    return "attention" if states & NEEDS_A_PERSON else ""
