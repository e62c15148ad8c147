"""Environments and their releases: look, explain, and words to them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from forge.model.plan import EnvironmentPlan
from forge.server.api.answers import (
    ERRORS,
    PREFIX,
    WRITE_ERRORS,
    EnvironmentName,
    Json,
    ProjectName,
    ReleaseId,
    gives,
    gives_page,
    known_answer,
)
from forge.server.api.bodies import Body, Promote, Rollback, Steer
from forge.server.idempotency import key_of
from forge.server.identity.guard import SITE, needs
from forge.server.identity.permissions import Permission, Principal
from forge.server.paging import page
from forge.server.problems import answered_with
from forge.server.site import Site
from forge.service.base import Accepted, Service
from forge.views.environment import EnvironmentView
from forge.views.explanation import Explanation
from forge.views.history import ReleaseHistory

router = APIRouter(prefix=f"{PREFIX}/projects/{{project}}", tags=["environments"])
Reader = Annotated[Principal, Depends(needs(Permission.READ))]
Runner = Annotated[Principal, Depends(needs(Permission.RUN))]
Approver = Annotated[Principal, Depends(needs(Permission.APPROVE))]
TheSite = Annotated[Site, SITE]


@router.get(
    "/environments",
    summary="List environments",
    operation_id="list_environments",
    responses={**ERRORS, **gives_page(EnvironmentView, "Environments, in the pipeline's order; there is one page.")},
    response_class=Json,
)
async def list_environments(site: TheSite, _reader: Reader, project: ProjectName) -> Json:
    """Return all environments as their last ticks saw them."""
    service = site.project(project)
    return Json(page([await service.environments.get(name) for name in await service.environments.names()], ""))


@router.get(
    "/environments/{environment}",
    summary="Look at an environment",
    operation_id="get_environment",
    responses={**ERRORS, **gives(EnvironmentView, "The environment.")},
    response_class=Json,
)
async def get_environment(
    request: Request,
    site: TheSite,
    _reader: Reader,
    project: ProjectName,
    environment: EnvironmentName,
    closely: Annotated[bool, Query(description="As it is this very moment, not as its last tick saw it.")] = False,
) -> Response:
    """Return which version is where, with how much traffic, and how each fares."""
    with answered_with(404):
        view = await site.project(project).environments.get(environment, closely=closely)
    return known_answer(request, view)


@router.get(
    "/environments/{environment}/plan",
    summary="The plan that an environment runs by",
    operation_id="get_environment_plan",
    responses={**ERRORS, **gives(EnvironmentPlan, "The plan.")},
    response_class=Json,
)
async def get_environment_plan(
    request: Request, site: TheSite, _reader: Reader, project: ProjectName, environment: EnvironmentName
) -> Response:
    """Return the stored plan, else that of the pipeline file."""
    with answered_with(404):
        return known_answer(request, await site.project(project).environments.plan(environment))


@router.get(
    "/releases/{release}",
    tags=["releases"],
    summary="Why a release went as it did",
    operation_id="get_release",
    responses={**ERRORS, **gives(Explanation, "The explanation.")},
    response_class=Json,
)
async def get_release(
    request: Request, site: TheSite, _reader: Reader, project: ProjectName, release: ReleaseId
) -> Response:
    """Return who, when, what was seen, what followed from it, and what it cost, from the decisions on record."""
    with answered_with(404):
        return known_answer(request, await site.project(project).environments.explanation(release))


@router.get(
    "/releases/{release}/history",
    tags=["releases"],
    summary="A release over time",
    operation_id="get_release_history",
    responses={**ERRORS, **gives(ReleaseHistory, "Its points, at most a few hundred, and what was said.")},
    response_class=Json,
)
async def get_history(
    request: Request, site: TheSite, _reader: Reader, project: ProjectName, release: ReleaseId
) -> Response:
    """Return weights, errors, latencies, evidence and cost over time, from the decisions on record."""
    with answered_with(404):
        return known_answer(request, await site.project(project).environments.history(release))


def _word(kind: str, summary: str, words: str) -> dict[str, Any]:
    """Return the description of a command to an environment."""
    return {
        "path": f"/environments/{{environment}}/{kind}",
        "status_code": 202,
        "summary": summary,
        "description": words,
        "operation_id": f"{kind}_release",
        "responses": {
            **WRITE_ERRORS,
            **gives(Accepted, "It is on disk; the environment takes it in next.", status=202),
        },
        "response_class": Json,
    }


def _steering(kind: str, summary: str, words: str, body_type: type[Body], who: Any) -> None:
    """Add the endpoint of a command: they differ in words, bodies and the permission only."""

    async def steer(
        request: Request,
        site: TheSite,
        actor: who,
        project: ProjectName,
        environment: EnvironmentName,
        body: body_type | None = None,  # type: ignore[valid-type]
    ) -> Json:
        service = site.project(project)
        await check_environment(service, environment)
        payload = (body or body_type()).model_dump()
        with answered_with(409):
            accepted = await service.environments.command(
                environment, kind, payload, actor=actor.name, key=key_of(request)
            )
        return Json(accepted, status_code=202)

    steer.__annotations__ |= {"actor": who, "body": body_type | None}
    router.post(**_word(kind, summary, words))(steer)


async def check_environment(service: Service, environment: str) -> None:
    """Raise Problem (404) when the project has no such environment."""
    with answered_with(404):
        await service.environments.plan(environment)


_steering("promote", "Go one step further", "Or, with `full`, all the way at once.", Promote, Runner)
_steering("approve", "Say yes where a release waits for it", "Counts once for each person.", Steer, Approver)
_steering("pause", "Hold a release where it is", "Nothing but harm moves it then.", Steer, Runner)
_steering("resume", "Let a paused release go on", "From where it was held.", Steer, Runner)
_steering("abort", "Stop a release and go back", "Traffic goes back to the stable version at once.", Steer, Runner)
_steering("retry", "Release again what was rolled back", "With the same version and plan.", Steer, Runner)
_steering("undo", "Undo the last release", "Goes back to the version before it.", Steer, Runner)
_steering("rollback", "Go back to an earlier version", "To the one before, or to `to`.", Rollback, Runner)
