"""Logs of steps: a piece, the whole file, or lines as they come."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from forge.model.errors import ForgeError
from forge.server.api.answers import ERRORS, PREFIX, ProjectName, RunId, gives_content
from forge.server.identity.guard import SITE, needs
from forge.server.identity.permissions import Permission, Principal
from forge.server.problems import Problem, answered_with
from forge.server.site import Site
from forge.server.streaming import ServerSentEvent, last_event_id, stream, wants_stream
from forge.service.base import LogPart, Runs

router = APIRouter(prefix=f"{PREFIX}/projects/{{project}}/runs/{{run}}", tags=["runs"])
Reader = Annotated[Principal, Depends(needs(Permission.READ))]
TheSite = Annotated[Site, SITE]
JobName = Annotated[str, Path(description="A job.", max_length=300)]
Attempt = Annotated[int, Path(ge=1, le=100_000, description="Which attempt of the job.", examples=[1])]
StepId = Annotated[str, Path(description="A step, by id.", max_length=300)]
PART = 262_144
LOOK_SECONDS = (0.1, 0.2, 0.4, 0.8)
"""How long to wait for more of a log: longer, the longer nothing came."""


class LogMessage(msgspec.Struct, frozen=True):
    """A piece of a log in a stream. `offset` is where it begins, in bytes."""

    offset: int
    text: str


@router.get(
    "/jobs/{job}/attempts/{attempt}/steps/{step}/log",
    summary="The log of a step",
    operation_id="get_log",
    responses={**ERRORS, **gives_content("The log, or a piece of it.", "text/plain")},
    response_class=Response,
)
async def get_log(
    request: Request,
    site: TheSite,
    _reader: Reader,
    project: ProjectName,
    run: RunId,
    job: JobName,
    attempt: Attempt,
    step: StepId,
    offset: Annotated[
        int, Query(ge=-(2**53), le=2**53, description="Where to begin, in bytes; negative: from the end.")
    ] = 0,
    limit: Annotated[
        int, Query(ge=0, le=1_048_576, description="How many bytes at most; 0: all that there are.", examples=[0])
    ] = 0,
) -> Response:
    """Return the log as plain text. `X-Forge-Log-Offset` is where it begins, `X-Forge-Log-Size` how many bytes
    there are by now, `X-Forge-Log-Ended` whether nothing is added any more.

    With `Accept: text/event-stream` it is a stream of the log as it grows, until the step is over: each message has an `offset`
    and a `text`, its id is the offset to go on at; the last one is the event `end`."""
    runs = site.project(project).runs
    with answered_with(404):
        first = await runs.log(run, job, attempt, step, offset=offset, limit=limit or PART)
    if wants_stream(request):
        resumed = last_event_id(request)
        begin = first.offset if resumed is None else resumed
        return stream(site, follow_log(runs, run, job, attempt, step, begin))
    headers = {
        "X-Forge-Log-Offset": str(first.offset),
        "X-Forge-Log-Size": str(first.size),
        "X-Forge-Log-Ended": "true" if first.ended else "false",
        "X-Content-Type-Options": "nosniff",
    }
    if limit or first.offset + len(first.data) >= first.size:
        return Response(first.data, headers=headers, media_type="text/plain; charset=utf-8")
    name = f"{run}-{job}-{attempt}-{step}.log".replace('"', "").encode("ascii", "replace").decode().replace("?", "_")
    return StreamingResponse(
        _rest(runs, run, job, attempt, step, first),
        headers={**headers, "Content-Disposition": f'inline; filename="{name}"'},
        media_type="text/plain; charset=utf-8",
    )


async def _rest(runs: Runs, run: str, job: str, attempt: int, step: str, first: LogPart) -> AsyncGenerator[bytes, None]:
    """Yield a log up to the size that it had at first."""
    part = first
    yield part.data
    while part.data and (place := part.offset + len(part.data)) < first.size:
        part = await runs.log(run, job, attempt, step, offset=place, limit=min(PART, first.size - place))
        yield part.data


async def follow_log(
    runs: Runs, run: str, job: str, attempt: int, step: str, offset: int
) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield a log from an offset on as it grows, until the step is over; letters are never cut in two.

    A log that cannot be read any more ends it: the viewer comes back and is told why.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    silent = 0
    while True:
        try:
            part = await runs.log(run, job, attempt, step, offset=offset, limit=PART)
        except (ForgeError, Problem):
            return
        text = decoder.decode(part.data, final=part.ended and part.offset + len(part.data) >= part.size)
        begin, offset = offset, part.offset + len(part.data)
        held = len(decoder.getstate()[0])  # bytes of a letter that is not whole yet
        if text:
            message = LogMessage(begin, text)
            yield ServerSentEvent(msgspec.json.encode(message).decode(), id=str(offset - held))
        if part.ended and offset >= part.size:
            yield ServerSentEvent(msgspec.json.encode({"size": part.size}).decode(), id=str(offset), event="end")
            return
        silent = 0 if part.data else silent + 1
        if not part.data:
            await asyncio.sleep(LOOK_SECONDS[min(silent - 1, len(LOOK_SECONDS) - 1)])
