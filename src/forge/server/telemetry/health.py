"""Whether the server is up, and whether it can do its work: for load balancers and for Kubernetes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from forge.model.errors import DependencyFailed

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process answers", operation_id="health")
async def health() -> dict[str, str]:
    """Answer as long as the process is not stuck; nothing else is looked at."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="Whether requests can be served and runs go on",
    operation_id="readiness",
    responses={503: {"description": "Something is away; the body says what."}},
)
async def readiness(request: Request) -> JSONResponse:
    """Look at the site's database, at each project's, and at when a worker was heard of last."""
    site = request.app.state.site
    checks: dict[str, Any] = {}
    try:
        await site.database.check()
        checks["database"] = "ok"
        alive = await site.workers.alive()
        checks["workers"] = "ok" if alive else "no worker was heard of lately"
    except DependencyFailed as error:
        checks["database"] = error.message
    for name in site.projects:
        try:
            await site.engine(name).store.log.count()
            checks[f"project {name}"] = "ok"
        except DependencyFailed as error:
            checks[f"project {name}"] = error.message
    ready = not site.closing.is_set() and all(one == "ok" for one in checks.values())
    return JSONResponse({"status": "ok" if ready else "not ready", "checks": checks}, status_code=200 if ready else 503)
