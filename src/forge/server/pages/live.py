"""Telling open pages that something changed: they fetch what it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from forge.server.identity.guard import needs, signed_in, site_of
from forge.server.identity.permissions import Permission, Principal
from forge.server.site import Site
from forge.server.streaming import ServerSentEvent, last_event_id, stream

router = APIRouter(include_in_schema=False)


@router.get("/projects/{project}/live")
async def project_live(
    request: Request, project: str, _reader: Annotated[Principal, Depends(needs(Permission.READ))],
    machine: Annotated[str, Query(max_length=250)] = "",
) -> StreamingResponse:  # fmt: skip
    """Say `changed` for every event of the project, or of one run or environment of it by its machine's id."""
    site = site_of(request)
    site.project(project)
    return stream(site, _changes(site, project, machine, last_event_id(request)))


@router.get("/live")
async def all_live(request: Request, reader: Annotated[Principal, Depends(signed_in)]) -> StreamingResponse:
    """Say `changed` for every event of all projects that one may look at."""
    site = site_of(request)
    names = [name for name in site.projects if reader.may(Permission.READ, name)]
    return stream(site, _merged(site, names))


async def live_address(site: Site, project: str, machine: str = "") -> str:
    """Return where a page hears of changes from now on. Ask for it before reading what the page shows: then nothing
    that happens between the two is missed."""
    after = await site.engine(project).store.log.count()
    return f"/projects/{quote(project)}/live?{urlencode({'machine': machine, 'after': after})}"


async def _changes(
    site: Site, project: str, machine: str, after: int | None
) -> AsyncGenerator[ServerSentEvent, None]:  # fmt: skip
    events = site.live(project).events(machine, after=after)
    async with contextlib.aclosing(events):
        async for stored in events:
            yield ServerSentEvent(f"{project} {stored.machine} {stored.event.kind}", str(stored.seq), "changed")


async def _merged(site: Site, names: list[str]) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield what comes first; not to be resumed: whoever comes back loads the page anew."""
    queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue(100)

    async def pass_on(name: str) -> None:
        async for message in _changes(site, name, "", None):
            if not queue.full():  # one `changed` is as good as many
                queue.put_nowait(ServerSentEvent(message.data, event="changed"))

    tasks = [asyncio.create_task(pass_on(name)) for name in names]
    try:
        while True:
            yield await queue.get()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
