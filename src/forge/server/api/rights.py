"""Rights that only the content of a request tells: which environments a run deploys to, which one a gate opens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from fastapi import Depends, Request

from forge.engine.engine import Engine
from forge.model.plan import JobPlan, Plan
from forge.server.identity.guard import needs
from forge.server.identity.permissions import Permission, Principal
from forge.server.problems import Problem
from forge.views.run import RunView

_DEPLOYS = frozenset({"deploy", "rollback", "verify"})


def somewhere(permission: Permission) -> Callable[..., Any]:
    """Return a dependency that lets in who may look at a project and has the permission on some environment of it.

    On which ones it must be only the content of the request tells; see below.
    """

    async def principal(request: Request, reader: Annotated[Principal, Depends(needs(Permission.READ))]) -> Principal:
        project = request.path_params.get("project", "*")
        if not any(
            grant.project in {"*", project}
            and Principal("", "user", "", (grant,)).may(permission, project, grant.environment)
            for grant in reader.grants
        ):
            raise Problem(403, f"{reader.name} has no permission to {permission.value} in {project}")
        return reader

    return principal


def environments_of_job(job: JobPlan) -> frozenset[str]:
    """Return the environments that a job changes, or may change."""
    named = {str(step.config.get("environment", "")) for step in job.steps if step.kind in _DEPLOYS}
    return frozenset({job.environment, *named} - {""})


def environments_of_plan(plan: Plan) -> frozenset[str]:
    """Return the environments that a run of the plan changes, or may change."""
    return frozenset().union(*(environments_of_job(job) for job in plan.jobs))


def check_environments(
    principal: Principal, permission: Permission, project: str, environments: Iterable[str], what: str
) -> None:
    """Raise Problem unless the principal has the permission on every one of the environments.

    Without any, it is needed on the project as a whole.
    """
    named = sorted(environments)
    if not named and not principal.may(permission, project):
        raise Problem(403, f"{what} needs the permission to {permission.value} in {project}")
    for environment in named:
        if not principal.may(permission, project, environment):
            raise Problem(403, f"{what} needs the permission to {permission.value} on {environment} of {project}")


async def check_run(principal: Principal, permission: Permission, engine: Engine, project: str, run: str) -> None:
    """Raise Problem unless the principal may do something with a whole run."""
    _, plan = await engine.run_state(run)
    check_environments(principal, permission, project, environments_of_plan(plan), f"{run}")


async def check_gate(principal: Principal, engine: Engine, project: str, view: RunView, job: str) -> None:
    """Raise Problem unless the principal may say yes or no at the gate of a job (empty: of any that waits)."""
    _, plan = await engine.run_state(view.id)
    waiting = {one.name for one in view.waiting_jobs()} or {one.name for one in plan.jobs}
    wanted = {job} if job else waiting
    behind = behind_gates(plan, wanted)
    check_environments(principal, Permission.APPROVE, project, behind, f"the gate of {view.id}")


def behind_gates(plan: Plan, jobs: Iterable[str]) -> frozenset[str]:
    """Return the environments that jobs change once their gates are open."""
    return frozenset().union(*(environments_of_job(job) for job in plan.jobs if job.name in set(jobs)))


_RELEASE = re.compile(r"(.+)-\d+")


def environment_of_release(release: str) -> str:
    """Return the environment of a release's id: `production` of `production-7`; empty when it has no such form."""
    match = _RELEASE.fullmatch(release)
    return match[1] if match else ""
