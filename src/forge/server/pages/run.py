"""One run: the picture of its jobs, what waits, its logs, and what can be done about it."""

from __future__ import annotations

import hashlib
import uuid
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from forge.engine.engine import Engine
from forge.server.api.rights import check_gate, check_run, somewhere
from forge.server.identity.guard import needs, site_of
from forge.server.identity.permissions import Permission, Principal
from forge.server.pages.live import live_address
from forge.server.pages.page_route import PageRoute
from forge.server.pages.rendering import render
from forge.server.problems import Problem, answered_with
from forge.views.graph import layout
from forge.views.run import JobView, RunView, StepView

router = APIRouter(include_in_schema=False, route_class=PageRoute)
TAIL = 16_384
"""Bytes of a log that the page has without script."""
TROUBLE = frozenset({"failed", "error"})


class Reasons(NamedTuple):
    """Why each button is off; empty: it is on."""

    cancel: str
    retry: str
    votes: dict[str, str]
    """By the name of each job at a gate."""


class ShownLog(NamedTuple):
    """The log that is looked at. `url` gives pieces of it."""

    job: JobView
    attempt: int
    step: StepView
    url: str
    ended: bool
    tail: str
    key: str
    """Another one for each log, so that a live page changes over when another step begins."""


@router.get("/projects/{project}/runs/{run}")
async def run_page(
    request: Request, project: str, run: str, principal: Annotated[Principal, Depends(needs(Permission.READ))],
    job: Annotated[str, Query(max_length=300)] = "", step: Annotated[str, Query(max_length=300)] = "",
    attempt: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> HTMLResponse:  # fmt: skip
    """Show a run."""
    site = site_of(request)
    service = site.project(project)
    live = await live_address(site, project, run)
    with answered_with(404):
        view = await service.runs.get(run)
    graph = layout({one.name: one.depends_on for one in view.jobs})
    shown = await _log(request, project, view, job, step, attempt)
    with answered_with(404):
        artifacts = await service.runs.artifacts(run)
    return render(
        request, principal, "run.html", project=project, run=view, graph=graph, shown=shown, artifacts=artifacts,
        jobs={one.name: one for one in view.jobs}, why=await _reasons(request, principal, project, view),
        trouble=TROUBLE, key=uuid.uuid4().hex, live="" if view.final else live,
    )  # fmt: skip


@router.post("/projects/{project}/runs/{run}/{kind}")
async def run_command(
    request: Request, project: str, run: str, kind: str,
    principal: Annotated[Principal, Depends(somewhere(Permission.READ))],
) -> RedirectResponse:  # fmt: skip
    """Approve, reject, cancel or retry, as a form says, and show the run again."""
    site, form = site_of(request), await request.form()
    service, engine = site.project(project), site.engine(project)
    job = str(form.get("job", ""))
    with answered_with(404):
        view = await service.runs.get(run)
    payload: dict[str, Any] = {"comment": str(form.get("comment", ""))[:4000]}
    if kind in {"approve", "reject"}:
        await check_gate(principal, engine, project, view, job)
        payload["job"] = job
        if kind == "approve":
            payload["inputs"] = {
                name.removeprefix("i."): str(value) for name, value in form.items() if name.startswith("i.") and value
            }
    elif kind in {"cancel", "retry"}:
        await check_run(principal, Permission.RUN, engine, project, run)
    else:
        raise Problem(404, f"a run knows no `{kind}`")
    key = f"page {principal.name} {form['key']}" if form.get("key") else ""
    with answered_with(409):
        await service.runs.command(run, kind, payload, actor=principal.name, key=key)
    return RedirectResponse(f"/projects/{quote(project)}/runs/{quote(run)}", status_code=303)


async def _reasons(request: Request, principal: Principal, project: str, view: RunView) -> Reasons:
    engine = site_of(request).engine(project)
    may_run = ""
    try:
        await check_run(principal, Permission.RUN, engine, project, view.id)
    except Problem as problem:
        may_run = problem.detail
    votes = {job.name: await _why_no_vote(principal, engine, project, view, job) for job in view.waiting_jobs()}
    over = f"it is over: {view.state}" if view.final else ""
    retry = "" if view.final else "it is not over yet"
    if view.state == "succeeded":
        retry = "every job succeeded"
    return Reasons(over or may_run, retry or may_run, votes)


async def _why_no_vote(principal: Principal, engine: Engine, project: str, view: RunView, job: JobView) -> str:
    try:
        await check_gate(principal, engine, project, view, job.name)
    except Problem as problem:
        return problem.detail
    gate = job.gate
    if gate is not None and not gate.allow_self and view.actor == principal.name:
        return "you started it: somebody else has to say yes"
    if gate is not None and gate.approvers and principal.name not in gate.approvers:
        return f"asked are {', '.join(gate.approvers)}"
    if gate is not None and principal.name in gate.given:
        return "you said yes already"
    return ""


async def _log(request: Request, project: str, view: RunView, job: str, step: str, attempt: int) -> ShownLog | None:
    """Return the log that was asked for, or the one that a person would look at first."""
    chosen = _chosen(view, job, step)
    if chosen is None:
        return None
    its_job, its_step = chosen
    number = attempt or max(1, its_job.attempt)
    with answered_with(404):
        part = await site_of(request).project(project).runs.log(
            view.id, its_job.name, number, its_step.id, offset=-TAIL, limit=TAIL
        )  # fmt: skip
    where = "/".join(quote(name, safe="") for name in ("projects", project, "runs", view.id, "jobs", its_job.name))
    url = f"/api/v1/{where}/attempts/{number}/steps/{quote(its_step.id, safe='')}/log"
    key = "log-" + hashlib.blake2b(url.encode(), digest_size=6).hexdigest()
    return ShownLog(its_job, number, its_step, url, part.ended, part.data.decode("utf-8", "replace"), key)


def _chosen(view: RunView, job: str, step: str) -> tuple[JobView, StepView] | None:
    pairs = [(one, each) for one in view.jobs for each in one.steps]
    asked = [pair for pair in pairs if (not job or pair[0].name == job) and (not step or pair[1].id == step)]
    if job or step:
        if not asked:
            raise Problem(404, f"{view.id} has no step `{step}` of a job `{job}`")
        pairs = asked
    if step:
        return pairs[0]
    for states in (TROUBLE, {"running", "retrying"}, {"succeeded"}):
        found = [pair for pair in pairs if pair[1].state in states]
        if found:
            return found[0] if states == TROUBLE else found[-1]
    return None
