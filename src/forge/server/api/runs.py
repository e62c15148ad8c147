"""Runs: start, list, look, plans, artifacts, and words to them."""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

from forge.core.pipeline.state import RunStatus
from forge.engine.engine import Engine
from forge.engine.planning import load
from forge.model.plan import Plan
from forge.server.api.answers import (
    ERRORS,
    PREFIX,
    WRITE_ERRORS,
    Json,
    ProjectName,
    RunId,
    gives,
    gives_content,
    gives_page,
    known_answer,
)
from forge.server.api.bodies import Cancel, Nothing, Refusal, StartRun, Vote
from forge.server.api.rights import check_environments, check_gate, check_run, environments_of_plan, somewhere
from forge.server.idempotency import key_of
from forge.server.identity.guard import SITE, needs
from forge.server.identity.permissions import Permission, Principal
from forge.server.paging import Cursor, Limit, page, place_of
from forge.server.problems import answered_with
from forge.server.site import Site
from forge.service.base import Accepted
from forge.views.listing import ArtifactRow, RunRow
from forge.views.run import RunView

router = APIRouter(prefix=f"{PREFIX}/projects/{{project}}/runs", tags=["runs"])
Reader = Annotated[Principal, Depends(needs(Permission.READ))]
Runner = Annotated[Principal, Depends(somewhere(Permission.RUN))]
Approver = Annotated[Principal, Depends(somewhere(Permission.APPROVE))]
TheSite = Annotated[Site, SITE]


@router.get(
    "",
    summary="List runs, newest first",
    operation_id="list_runs",
    responses={**ERRORS, **gives_page(RunRow, "Runs.")},
    response_class=Json,
)
async def list_runs(
    site: TheSite,
    _reader: Reader,
    project: ProjectName,
    state: Annotated[list[RunStatus] | None, Query(description="Only runs in one of these states.")] = None,
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Json:
    """Return a page of the project's runs."""
    service = site.project(project)
    with answered_with(400):
        found = await service.runs.page(statuses=tuple(state or ()), limit=limit, cursor=place_of(cursor))
    return Json(page(found.items, found.next))


@router.post(
    "",
    status_code=201,
    summary="Start a run",
    operation_id="start_run",
    responses={**WRITE_ERRORS, **gives(RunView, "The run, as it is right after its start.", status=201)},
    response_class=Json,
)
async def start_run(
    request: Request, site: TheSite, runner: Runner, project: ProjectName, body: StartRun | None = None
) -> Json:
    """Start a run of the project's pipeline on its source as it is now. Needs the permission to run on every
    environment that the pipeline deploys to."""
    wanted = body or StartRun()
    service, engine = site.project(project), site.engine(project)
    parameters = wanted.given()
    await _check_start(runner, engine, project, parameters)
    run = await service.runs.start(parameters, actor=runner.name, key=key_of(request), ref=wanted.ref)
    location = f"{PREFIX}/projects/{project}/runs/{run}"
    return Json(await service.runs.get(run), status_code=201, headers={"Location": location})


@router.get(
    "/{run}",
    summary="Look at a run",
    operation_id="get_run",
    responses={**ERRORS, **gives(RunView, "The run.")},
    response_class=Json,
)
async def get_run(request: Request, site: TheSite, _reader: Reader, project: ProjectName, run: RunId) -> Response:
    """Return a run with its jobs, steps and gates, and in words what it waits for."""
    with answered_with(404):
        return known_answer(request, await site.project(project).runs.get(run))


@router.get(
    "/{run}/plan",
    summary="The plan that a run is pinned to",
    operation_id="get_run_plan",
    responses={**ERRORS, **gives(Plan, "The plan.")},
    response_class=Json,
)
async def get_plan(request: Request, site: TheSite, _reader: Reader, project: ProjectName, run: RunId) -> Response:
    """Return the whole plan: what was in the files when the run began, with parameters filled in."""
    with answered_with(404):
        return known_answer(request, await site.project(project).runs.plan(run))


@router.get(
    "/{run}/artifacts",
    summary="What a run published",
    operation_id="list_artifacts",
    responses={**ERRORS, **gives_page(ArtifactRow, "Artifacts, oldest first; there is one page.")},
    response_class=Json,
)
async def list_artifacts(site: TheSite, _reader: Reader, project: ProjectName, run: RunId) -> Json:
    """Return what a run published, oldest first."""
    with answered_with(404):
        return Json(page(await site.project(project).runs.artifacts(run), ""))


@router.get(
    "/{run}/artifacts/{name:path}",
    summary="Fetch an artifact",
    operation_id="get_artifact",
    responses={**ERRORS, **gives_content("Its bytes.", "application/octet-stream")},
    response_class=Response,
)
async def get_artifact(site: TheSite, _reader: Reader, project: ProjectName, run: RunId, name: str) -> Response:
    """Return the bytes of an artifact, checked against their digest on the way out of the store."""
    folder = site.settings.state / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / uuid.uuid4().hex
    with answered_with(404):
        digest = await site.project(project).runs.fetch(run, name, copy)
    return FileResponse(
        copy,
        media_type="application/octet-stream",
        filename=name.rpartition("/")[2],
        headers={"ETag": f'"{digest}"', "X-Content-Type-Options": "nosniff"},
        background=BackgroundTask(copy.unlink, missing_ok=True),
    )


def _word(kind: str, summary: str, words: str) -> dict[str, Any]:
    """Return the description of a command to a run."""
    return {
        "path": f"/{{run}}/{kind}",
        "status_code": 202,
        "summary": summary,
        "description": words,
        "operation_id": f"{kind}_run",
        "responses": {**WRITE_ERRORS, **gives(Accepted, "It is on disk; the run takes it in next.", status=202)},
        "response_class": Json,
    }


@router.post(**_word("approve", "Say yes at a gate", "Needs the permission to approve on what is behind the gate."))
async def approve_run(
    request: Request, site: TheSite, approver: Approver, project: ProjectName, run: RunId, body: Vote | None = None
) -> Json:
    """Say yes at a gate."""
    wanted = body or Vote()
    await _check_vote(site, approver, project, run, wanted.job)
    payload = {"job": wanted.job, "comment": wanted.comment, "inputs": wanted.inputs}
    return await _send(request, site, approver, project, run, "approve", payload)


@router.post(**_word("reject", "Say no at a gate", "The job ends as rejected."))
async def reject_run(
    request: Request, site: TheSite, approver: Approver, project: ProjectName, run: RunId, body: Refusal | None = None
) -> Json:
    """Say no at a gate."""
    wanted = body or Refusal()
    await _check_vote(site, approver, project, run, wanted.job)
    payload = {"job": wanted.job, "comment": wanted.comment}
    return await _send(request, site, approver, project, run, "reject", payload)


@router.post(**_word("cancel", "Stop a run, or one of its jobs", "Processes get TERM, a grace period, then KILL."))
async def cancel_run(
    request: Request, site: TheSite, runner: Runner, project: ProjectName, run: RunId, body: Cancel | None = None
) -> Json:
    """Stop a run."""
    wanted = body or Cancel()
    await _check_run(site, runner, project, run)
    payload = {"job": wanted.job, "comment": wanted.comment, "force": wanted.force}
    return await _send(request, site, runner, project, run, "cancel", payload)


@router.post(**_word("retry", "Do again what failed", "And what depends on it; what succeeded is kept."))
async def retry_run(
    request: Request, site: TheSite, runner: Runner, project: ProjectName, run: RunId, body: Nothing | None = None
) -> Json:
    """Do again what failed."""
    del body
    await _check_run(site, runner, project, run)
    return await _send(request, site, runner, project, run, "retry", {})


async def _send(
    request: Request, site: Site, actor: Principal, project: str, run: str, kind: str, payload: dict[str, Any]
) -> Json:
    with answered_with(409):
        accepted = await site.project(project).runs.command(run, kind, payload, actor=actor.name, key=key_of(request))
    return Json(accepted, status_code=202)


async def _check_start(runner: Principal, engine: Engine, project: str, parameters: dict[str, str]) -> None:
    """Raise Problem unless the runner may run on all environments that the run would change."""
    plan = await asyncio.to_thread(load, engine.project, parameters)
    check_environments(runner, Permission.RUN, project, environments_of_plan(plan), f"a run of {project}")


async def _check_run(site: Site, runner: Principal, project: str, run: str) -> None:
    with answered_with(404):
        await check_run(runner, Permission.RUN, site.engine(project), project, run)


async def _check_vote(site: Site, approver: Principal, project: str, run: str, job: str) -> None:
    with answered_with(404):
        view = await site.project(project).runs.get(run)
        await check_gate(approver, site.engine(project), project, view, job)
