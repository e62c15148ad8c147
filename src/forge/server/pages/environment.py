"""One environment: its versions, its releases, and the buttons that steer them."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from forge.model.errors import UsageError
from forge.server.identity.guard import needs, site_of
from forge.server.identity.permissions import Permission, Principal
from forge.server.pages.live import live_address
from forge.server.pages.page_route import PageRoute
from forge.server.pages.rendering import render
from forge.server.problems import Problem, answered_with
from forge.service.commands import RELEASE_COMMANDS
from forge.service.steering import check_possible
from forge.views.environment import EnvironmentView
from forge.views.release import ReleaseView

router = APIRouter(include_in_schema=False, route_class=PageRoute)
LABELS = {
    "pause": "Pause", "resume": "Resume", "promote": "Promote", "approve": "Approve", "abort": "Abort",
    "rollback": "Roll back", "undo": "Undo", "retry": "Retry",
}  # fmt: skip


class Button(NamedTuple):
    """A button that steers. `why`: why it is off; `confirm`: asked first; `type`: what has to be typed, too."""

    kind: str
    label: str
    why: str
    confirm: str
    type: str
    fields: dict[str, str]
    style: str


@router.get("/projects/{project}/environments/{environment}")
async def environment_page(
    request: Request, project: str, environment: str,
    principal: Annotated[Principal, Depends(needs(Permission.READ))],
) -> HTMLResponse:  # fmt: skip
    """Show an environment as it is this very moment."""
    site = site_of(request)
    live = await live_address(site, project)
    with answered_with(404):
        view = await site.project(project).environments.get(environment, closely=True)
    return render(
        request, principal, "environment.html", project=project, view=view,
        buttons=buttons(principal, project, view, view.current), key=uuid.uuid4().hex,
        live=live,
    )  # fmt: skip


@router.post("/projects/{project}/environments/{environment}/{kind}")
async def environment_command(
    request: Request, project: str, environment: str, kind: str,
    principal: Annotated[Principal, Depends(needs(Permission.READ))],
) -> RedirectResponse:  # fmt: skip
    """Tell the environment what a button says, and show where it was pressed."""
    if kind not in RELEASE_COMMANDS:
        raise Problem(404, f"a release knows no `{kind}`")
    needed = _needed(kind)
    if not principal.may(needed, project, environment):
        raise Problem(403, f"{principal.name} may not {needed.value} in {project} on {environment}")
    site, form = site_of(request), await request.form()
    payload: dict[str, Any] = {
        name: str(form[name]) for name in ("release", "to", "override", "comment") if form.get(name)
    }
    if form.get("full"):
        payload["full"] = True
    key = f"page {principal.name} {form['key']}" if form.get("key") else ""
    with answered_with(409):
        await site.project(project).environments.command(environment, kind, payload, actor=principal.name, key=key)
    shown = str(form.get("shown", ""))
    where = f"releases/{quote(shown)}" if shown else f"environments/{quote(environment)}"
    return RedirectResponse(f"/projects/{quote(project)}/{where}", status_code=303)


def buttons(
    principal: Principal, project: str, view: EnvironmentView, release: ReleaseView | None
) -> list[Button]:  # fmt: skip
    """Return what can be told to an environment about a release, with the reason where it cannot be now."""
    found = []
    for kind in ("pause", "resume", "promote", "approve", "abort", "rollback", "retry"):
        about_one = kind not in {"rollback", "retry"}
        payload = {"release": release.id} if release is not None and about_one else {}
        why = _why(principal, project, view, release, kind, payload)
        found.append(
            Button(kind, LABELS[kind], why, _question(kind, view, release), _typed(kind, view), payload, _style(kind))
        )
    return found


def _needed(kind: str) -> Permission:
    return Permission.APPROVE if kind == "approve" else Permission.RUN


def _why(
    principal: Principal, project: str, view: EnvironmentView, release: ReleaseView | None, kind: str,
    payload: dict[str, Any],
) -> str:  # fmt: skip
    if not principal.may(_needed(kind), project, view.name):
        return f"you may not {_needed(kind).value} on {view.name}"
    try:
        check_possible(view, kind, payload)
    except UsageError as error:
        return error.message
    state = release.state if release is not None else ""
    if kind in {"pause", "resume", "promote", "approve", "abort"} and release is not None and release.final:
        return f"it is over: {state.replace('_', ' ')}"
    if kind == "resume" and state != "paused":
        return "it is not paused"
    if kind == "pause" and state in {"paused", "rolling_back"}:
        return f"it is {state.replace('_', ' ')}"
    if kind == "approve" and state != "waiting_approval" and not (release and "approval" in release.held_by):
        return "it waits for no approval"
    if kind == "retry" and (release is None or release.state not in {"aborted", "rolled_back", "failed"}):
        return "the last release did not fail"
    return ""


def _question(kind: str, view: EnvironmentView, release: ReleaseView | None) -> str:
    about = f"{release.id} ({release.version})" if release is not None else view.name
    return {
        "pause": f"Hold {about} where it is?",
        "resume": f"Let {about} go on?",
        "promote": f"Let {about} take its next step now?",
        "approve": f"Say yes to {about}?",
        "abort": f"End {about} and send its traffic back to {view.stable or 'nothing'}?",
        "rollback": f"Roll {view.name} back from {view.stable or 'what is there'} to the version before?",
        "retry": f"Start {about} once more?",
    }[kind]


def _typed(kind: str, view: EnvironmentView) -> str:
    """What cannot be taken back quickly wants the environment's name."""
    return view.name if kind == "rollback" else ""


def _style(kind: str) -> str:
    return {"abort": "danger", "rollback": "danger", "approve": "primary"}.get(kind, "")
