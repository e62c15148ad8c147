"""A person's word at a gate: approve, reject."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Comment, Inputs, RunId, pairs, run_id
from forge.cli.session import actor, session_of, tell
from forge.model.diagnostics import did_you_mean
from forge.model.errors import ExitCode, Rejected, UsageError

if TYPE_CHECKING:
    from forge.engine.engine import Engine
    from forge.views.run import JobView

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
        from forge.cli.subjects import RunSubject, find_run

        chosen = await find_run(engine, run_id(run))
        view = await RunSubject(engine, chosen).look()
        gate = waiting_job(chosen, job, view.jobs)
        payload: dict[str, object] = {"job": gate.name, "comment": comment}
        if yes:
            payload["inputs"] = check_inputs(gate, inputs)
        refused = await refusal(engine, chosen, "approve" if yes else "reject", payload)
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


async def refusal(engine: Engine, run: str, kind: str, payload: dict[str, object]) -> str:
    """Return why the run would not take this command now, after those that wait already; empty: it takes it.

    Asks the very function that will decide, so that a person is told at once, even when no worker is there.
    """
    from forge.core.pipeline.decide import decide
    from forge.model.decision import Command

    state, plan = await engine.run_state(run)
    now = await engine.store.now()
    waiting = await engine.store.inbox.of(run)
    mine = Command(max((one.id for one in waiting), default=0) + 1, kind, actor(), now, payload)
    decision = decide(plan, state, (*waiting, mine), (), now)
    for event in decision.events:
        if event.kind == "command_refused" and event.data.get("id") == mine.id:
            return str(event.data.get("reason", event.message))
    return ""


def waiting_job(run: str, job: str, jobs: tuple[JobView, ...]) -> JobView:
    """Return the job at a gate that is meant. Raises UsageError when it is unknown, not at a gate, or unclear."""
    waiting = [one for one in jobs if one.state == "waiting_approval"]
    if job:
        named = next((one for one in jobs if one.name == job), None)
        if named is None:
            raise UsageError(f"there is no job `{job}` in {run}", hint=did_you_mean(job, [one.name for one in jobs]))
        if named.state != "waiting_approval":
            hint = f"waiting now: {', '.join(one.name for one in waiting) or 'none'}"
            raise UsageError(f"{job} of {run} does not wait for approval; it is {named.state}", hint=hint)
        return named
    if len(waiting) != 1:
        names = ", ".join(one.name for one in waiting) or "none"
        raise UsageError(f"name the job of {run} that is meant", hint=f"waiting for approval: {names}")
    return waiting[0]


def check_inputs(job: JobView, given: dict[str, str]) -> dict[str, str]:
    """Return the gate's fields as given, with defaults. Raises UsageError for unknown, missing or unfit ones."""
    from forge.cli.gates import check_field

    fields = {field.name: field for field in (job.gate.inputs if job.gate else ())}
    for name in given:
        if name not in fields:
            hint = did_you_mean(name, list(fields)) or "the gate has no fields"
            raise UsageError(f"the gate of {job.name} has no field `{name}`", hint=hint)
    values = {name: check_field(fields[name], value) for name, value in given.items()}
    for name, field in fields.items():
        if name not in values and field.default is not None:
            values[name] = str(field.default)
        if name not in values and field.required:
            raise UsageError(f"the gate of {job.name} needs `{name}`", hint=f"`-i {name}=…`: {field.description}")
    return values
