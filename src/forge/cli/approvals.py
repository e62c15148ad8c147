"""A person's word at a gate: approve, reject."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Comment, Inputs, RunId, pairs, run_id
from forge.cli.session import actor, session_of, tell
from forge.model.errors import ExitCode, Rejected

if TYPE_CHECKING:
    from forge.engine.engine import Engine

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

    async def work(engine: Engine) -> int:
        from forge.cli.subjects import RunSubject
        from forge.service.gates import check_inputs, refusal, waiting_job
        from forge.service.locating import find_run

        chosen = await find_run(engine, run_id(run))
        view = await RunSubject(engine, chosen).look()
        gate = waiting_job(chosen, job, view.jobs)
        payload: dict[str, object] = {"job": gate.name, "comment": comment}
        if yes:
            payload["inputs"] = check_inputs(gate, inputs)
        refused = await refusal(engine, chosen, "approve" if yes else "reject", payload, actor())
        if refused:
            raise Rejected(f"{chosen}: {refused}")
        if yes:
            await engine.approve(chosen, gate.name, comment=comment, inputs=check_inputs(gate, inputs), actor=actor())
        else:
            await engine.reject(chosen, gate.name, comment=comment, actor=actor())
        word = "approved" if yes else "rejected"
        tell(f"{gate.name} of {chosen} {word} by {actor()}; `forge resume {chosen}` carries it on if no worker does")
        return ExitCode.SUCCEEDED

    session.run(work)
