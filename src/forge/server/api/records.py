"""What happened, and what was decided on what: pages, streams, and the proof that nobody changed the record."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from forge.engine.engine import Engine
from forge.engine.recording import read
from forge.model.decision import Command
from forge.server.api.answers import ERRORS, PREFIX, Json, ProjectName, gives, gives_page
from forge.server.identity.guard import SITE, needs
from forge.server.identity.permissions import Permission, Principal
from forge.server.paging import Cursor, Limit, number_of, page
from forge.server.problems import answered_with
from forge.server.site import Site
from forge.server.streaming import Live, ServerSentEvent, event_message, last_event_id, stream, wants_stream
from forge.service.base import Accepted
from forge.store.contract import StoredEvent

router = APIRouter(prefix=f"{PREFIX}/projects/{{project}}", tags=["records"])
Reader = Annotated[Principal, Depends(needs(Permission.READ))]
TheSite = Annotated[Site, SITE]
Machine = Annotated[
    str,
    Query(max_length=200, description="Only of this run or machine, such as `run-7`; empty: of all.", examples=[""]),
]
AfterEvent = Annotated[
    int, Query(ge=0, le=2**53, description="Only what came after the event of this number.", examples=[0])
]


class DecisionRecord(msgspec.Struct, frozen=True):
    """A record of what was decided on what. `body` is the record as it is stored, in Base64: what `hash`, which
    chains it to the one before, is made of; `record` is the same to be read."""

    seq: int
    machine: str
    at: float
    record: Any
    body: bytes
    previous: str
    hash: str


class ChainView(msgspec.Struct, frozen=True):
    """How many records a chain has, and the first that does not fit; None: all do."""

    records: int
    first_wrong: int | None


class AuditView(msgspec.Struct, frozen=True):
    """Both chains."""

    events: ChainView
    decisions: ChainView


class LastEvent(msgspec.Struct, frozen=True):
    """Where the log ends."""

    seq: int


class CommandView(msgspec.Struct, frozen=True):
    """What became of a command: `waiting` (not taken in yet), `taken`, or `refused`, with the reason."""

    state: str
    reason: str = ""


@router.get(
    "/events",
    summary="Events, as a page or as they come",
    operation_id="list_events",
    responses={**ERRORS, **gives_page(StoredEvent, "Events, oldest first.")},
    response_class=Json,
)
async def list_events(
    request: Request,
    site: TheSite,
    _reader: Reader,
    project: ProjectName,
    machine: Machine = "",
    environment: Annotated[
        str, Query(max_length=200, description="Only of this environment; empty: of all.", examples=[""])
    ] = "",
    after: AfterEvent = 0,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Response:
    """Return a page of the hash-chained log.

    With `Accept: text/event-stream` the answer is a stream that does not end: each event as a message as it comes,
    from now on, or after the number in `Last-Event-ID` (or `after`); the id of a message is its event's number."""
    service = site.project(project)
    wanted = environment or machine
    if wants_stream(request):
        with answered_with(404):
            await service.records.events(wanted, limit=1)  # which says whether there is such a thing
        return stream(site, _messages(site.live(project), site.engine(project), wanted, last_event_id(request)))
    with answered_with(404):
        found = await service.records.events(wanted, after=number_of(cursor) or after, limit=limit)
    return Json(page(found, str(found[-1].seq) if len(found) == limit else ""))


@router.get(
    "/decisions",
    summary="Records of decisions",
    operation_id="list_decisions",
    responses={**ERRORS, **gives_page(DecisionRecord, "Records, oldest first.")},
    response_class=Json,
)
async def list_decisions(
    site: TheSite,
    _reader: Reader,
    project: ProjectName,
    machine: Machine = "",
    after: AfterEvent = 0,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> Json:
    """Return a page of the hash-chained log of what was decided, with all that it was decided on."""
    with answered_with(404):
        found = await site.project(project).records.decisions(machine, after=number_of(cursor) or after, limit=limit)
    rows = [
        {
            "seq": one.seq,
            "machine": one.machine,
            "at": one.at,
            "record": read(one.body, one.seq),
            "body": one.body,
            "previous": one.previous,
            "hash": one.hash,
        }
        for one in found
    ]
    return Json(page(rows, str(found[-1].seq) if len(found) == limit else ""))


@router.get(
    "/audit/verify",
    summary="Check that nobody changed the record",
    operation_id="verify_records",
    responses={**ERRORS, **gives(AuditView, "Both chains.")},
    response_class=Json,
)
async def verify_audit(site: TheSite, _reader: Reader, project: ProjectName) -> Json:
    """Compute both hash chains anew. Takes longer the more there is."""
    return Json(await site.project(project).records.verify())


@router.get(
    "/events/last",
    summary="The number of the newest event",
    operation_id="get_last_event",
    responses={**ERRORS, **gives(LastEvent, "Its number, 0 when there is none.")},
    response_class=Json,
)
async def get_last_event(site: TheSite, _reader: Reader, project: ProjectName) -> Json:
    """Return where the log ends now: what comes later has a higher number."""
    return Json(LastEvent(await site.project(project).records.last()))


@router.get(
    "/commands/{machine}",
    summary="Commands that are not taken in yet",
    operation_id="list_commands",
    responses={**ERRORS, **gives_page(Command, "Commands, oldest first; there is one page.")},
    response_class=Json,
)
async def list_commands(
    site: TheSite,
    _reader: Reader,
    project: ProjectName,
    machine: Annotated[str, Path(max_length=200, description="A run or machine.", examples=["run-1"])],
) -> Json:
    """Return the commands that a run or an environment has not taken in yet."""
    with answered_with(404):
        return Json(page(await site.project(project).records.waiting(machine), ""))


@router.get(
    "/commands/{machine}/{command}",
    summary="What became of a command",
    operation_id="get_command",
    responses={**ERRORS, **gives(CommandView, "What became of it.")},
    response_class=Json,
)
async def get_command(
    site: TheSite,
    _reader: Reader,
    project: ProjectName,
    machine: Annotated[str, Path(max_length=200, description="As the command was answered with.")],
    command: Annotated[int, Path(ge=0, le=2**53, description="The `id` that it was answered with.")],
    after: AfterEvent = 0,
) -> Json:
    """Tell whether a command was taken in, and in the machine's words why it had no effect."""
    with answered_with(404):
        refusal = await site.project(project).records.refusal(Accepted(machine, command, after))
    if refusal is None:
        return Json(CommandView("waiting"))
    return Json(CommandView("refused", refusal) if refusal else CommandView("taken"))


async def _messages(
    live: Live, engine: Engine, wanted: str, after: int | None
) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield the events of a run or environment (empty: of all). An environment has no machine, and so no events,
    before something is released to it."""
    machine = await _machine(engine, wanted)
    events = live.events(machine or "", after=after)
    try:
        async for stored in events:
            if machine is None:
                machine = await _machine(engine, wanted)
            if machine in {"", stored.machine}:
                yield event_message(stored)
    finally:
        await events.aclose()


async def _machine(engine: Engine, wanted: str) -> str | None:
    """Return the machine of a run's id or an environment's name; empty for all, None while there is none."""
    if not wanted or await engine.store.machines.load(wanted) is not None:
        return wanted
    return await engine.store.machines.find("environment", wanted)
