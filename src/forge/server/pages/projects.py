"""A project's runs: a list that is paged, and the form that starts one."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from forge.core.pipeline.state import RunStatus
from forge.engine.engine import Engine
from forge.engine.planning import declared_parameters, load
from forge.model.errors import ForgeError, InvalidConfiguration
from forge.server.api.rights import check_environments, environments_of_plan, somewhere
from forge.server.identity.guard import needs, site_of
from forge.server.identity.permissions import Permission, Principal
from forge.server.pages.live import live_address
from forge.server.pages.page_route import PageRoute
from forge.server.pages.rendering import render
from forge.server.paging import cursor_after, place_of
from forge.server.problems import answered_with

router = APIRouter(include_in_schema=False, route_class=PageRoute)
STATES = tuple(RunStatus.__args__)  # type: ignore[attr-defined]
PAGE = 30


@router.get("/projects/{project}")
async def project_page(
    request: Request, project: str, principal: Annotated[Principal, Depends(needs(Permission.READ))],
    state: Annotated[str, Query(max_length=50)] = "", cursor: Annotated[str, Query(max_length=500)] = "",
) -> HTMLResponse:  # fmt: skip
    """List runs, newest first, and offer to start one."""
    site = site_of(request)
    service = site.project(project)
    live = await live_address(site, project)
    with answered_with(400):
        statuses = (state,) if state in STATES else ()
        found = await service.runs.page(statuses=statuses, limit=PAGE, cursor=place_of(cursor))
    parameters, diagnostics, problem = _form(site.engine(project))
    return render(
        request, principal, "project.html", project=project, rows=found.items, state=state, states=STATES,
        next=cursor_after(found.next), first=not cursor, parameters=parameters,
        diagnostics=diagnostics, problem=problem, key=uuid.uuid4().hex, why=_why(principal, project),
        live="" if cursor else live,
    )  # fmt: skip


@router.post("/projects/{project}/runs")
async def start_run(
    request: Request, project: str, principal: Annotated[Principal, Depends(somewhere(Permission.RUN))]
) -> RedirectResponse:
    """Start a run of what is there now, and show it."""
    site, form = site_of(request), await request.form()
    given = {name.removeprefix("p."): str(value) for name, value in form.items() if name.startswith("p.") and value}
    plan = load(site.engine(project).project, given)
    check_environments(principal, Permission.RUN, project, environments_of_plan(plan), "this pipeline")
    key = f"page {principal.name} {form['key']}" if form.get("key") else ""
    with answered_with(400):
        run = await site.project(project).runs.start(given, actor=principal.name, key=key, ref=str(form.get("ref", "")))
    return RedirectResponse(f"/projects/{project}/runs/{run}", status_code=303)


def _form(engine: Engine) -> tuple[tuple[Any, ...], list[Any], str]:
    """Return the fields to fill in, or what is wrong with the pipeline."""
    try:
        return declared_parameters(engine.project), [], ""
    except InvalidConfiguration as error:
        return (), list(error.diagnostics), error.message
    except ForgeError as error:
        return (), [], error.message


def _why(principal: Principal, project: str) -> str:
    """Return why somebody may start nothing; empty: he may, somewhere."""
    if any(
        principal.may(Permission.RUN, project, grant.environment)
        for grant in principal.grants
        if grant.project in {"*", project}
    ):
        return ""
    return "you have no role here that may run anything"
