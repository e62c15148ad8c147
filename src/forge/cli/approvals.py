"""A person's word at a gate: approve, reject."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Comment, Inputs, RunId, pairs, run_id
from forge.cli.session import actor_of, is_local, session_of, tell
from forge.model.errors import ExitCode, Rejected

if TYPE_CHECKING:
    from forge.service.base import Accepted, Service

PATIENCE = 10.0
LOOK_EVERY = 0.1
Job = Annotated[
    str, typer.Argument(metavar="[JOB]", show_default=False, help="The job that waits; may be left out when one does.")
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("approve")(approve)
    app.command("reject")(reject)


def approve(
    context: typer.Context,
    run: RunId,
    job: Job = "",
    comment: Comment = "",
    inputs: Inputs = [],  # noqa: B006
) -> None:
    """Let a job that waits for approval go on. A worker carries it on at once, else `forge resume` does."""
    _vote(context, run, job, comment=comment, inputs=pairs(inputs, "-i"), yes=True)


def reject(context: typer.Context, run: RunId, job: Job = "", comment: Comment = "") -> None:
    """Refuse a job that waits for approval; what depends on it does not run."""
    _vote(context, run, job, comment=comment, inputs={}, yes=False)


def _vote(context: typer.Context, run: str, job: str, *, comment: str, inputs: dict[str, str], yes: bool) -> None:
    session = session_of(context)

    async def work(service: Service) -> int:
        from forge.service.gates import waiting_job

        chosen = run_id(run)
        payload: dict[str, object] = {"job": job, "comment": comment, **({"inputs": inputs} if yes else {})}
        who = await actor_of(service)
        gate = waiting_job(chosen, job, (await service.runs.get(chosen)).jobs)
        accepted = await service.runs.command(chosen, "approve" if yes else "reject", payload, actor=who)
        word = "approved" if yes else "rejected"
        if is_local(service):
            later = f"; `forge resume {chosen}` carries it on if no worker does"
        else:
            later = await _taken_in(service, accepted)
        tell(f"{gate.name} of {chosen} {word} by {who}{later}")
        return ExitCode.SUCCEEDED

    session.run(work)


async def _taken_in(service: Service, accepted: Accepted) -> str:
    """Wait a moment until a worker of the server took the word in; return what to say if none did yet.

    Raises Rejected when the run refused it after all: somebody else was faster.
    """
    import asyncio

    end = time.monotonic() + PATIENCE
    while (refused := await service.records.refusal(accepted)) is None:
        if time.monotonic() > end:
            return "; no worker of the server has taken it in yet"
        await asyncio.sleep(LOOK_EVERY)
    if refused:
        raise Rejected(f"{accepted.machine}: {refused}")
    return ""
