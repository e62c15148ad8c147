"""What pages do when something is wrong: a page that says so, or the way to the login."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from forge.server.identity.guard import signed_in
from forge.server.identity.permissions import Principal
from forge.server.pages.rendering import render
from forge.server.problems import Problem, problem_of

_log = structlog.get_logger("forge.server")


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, guarded."""
        inner = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await inner(request)
            except Exception as error:
                problem = problem_of(error)
                if problem.status == 401 and request.method == "GET":
                    from forge.server.identity.login import login_address

                    return RedirectResponse(login_address(request), status_code=303)
                if problem.status >= 500:
                    _log.error("page failed", path=request.url.path, status=problem.status, exc_info=error)
                return await _error_page(request, problem)

        return guarded


async def _error_page(request: Request, problem: Problem) -> Response:
    principal: Principal | None = None
    if problem.status not in {401, 500, 503}:
        try:
            principal = await signed_in(request)
        except Exception:  # whoever it is, the first error is the one to tell
            principal = None
    diagnostics: list[dict[str, Any]] = problem.more.get("diagnostics", [])
    back = request.headers.get("referer", "") if request.method != "GET" else ""
    page = render(
        request, principal, "error.html", status=problem.status, detail=problem.detail, hint=problem.hint,
        diagnostics=diagnostics, back=back if back.startswith(str(request.base_url)) else "/",
    )  # fmt: skip
    for name, value in problem.headers.items():
        page.headers[name] = value
    return page
