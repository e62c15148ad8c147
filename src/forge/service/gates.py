"""A person's word at a gate of a run: which job is meant, whether the fields are filled in, whether it would count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

if TYPE_CHECKING:
    from forge.engine.engine import Engine
    from forge.views.run import InputView, JobView


async def refusal(engine: Engine, run: str, kind: str, payload: Mapping[str, Any], actor: str) -> str:
    """Return why the run would not take this command now, after those that wait already; empty: it takes it.

    Asks the very function that will decide, so that a person is told at once, even when no worker is there.
    """
    from forge.core.pipeline.decide import decide
    from forge.model.decision import Command

    state, plan = await engine.run_state(run)
    now = await engine.store.now()
    waiting = await engine.store.inbox.of(run)
    mine = Command(max((one.id for one in waiting), default=0) + 1, kind, actor, now, dict(payload))
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


def check_inputs(job: JobView, given: Mapping[str, object]) -> dict[str, str]:
    """Return the gate's fields as given, with defaults, as text. Raises UsageError for unknown, missing or unfit ones."""
    fields = {field.name: field for field in (job.gate.inputs if job.gate else ())}
    for name in given:
        if name not in fields:
            hint = did_you_mean(name, list(fields)) or "the gate has no fields"
            raise UsageError(f"the gate of {job.name} has no field `{name}`", hint=hint)
    values = {name: check_field(fields[name], _text(value)) for name, value in given.items()}
    for name, field in fields.items():
        if name not in values and field.default is not None:
            values[name] = _text(field.default)
        if name not in values and field.required:
            raise UsageError(f"the gate of {job.name} needs `{name}`", hint=f"`-i {name}=…`: {field.description}")
    return values


def _text(value: object) -> str:
    """Return a value as a person would type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_field(field: InputView, answer: str) -> str:
    """Return the answer if it fits the field. Raises UsageError."""
    if field.type == "choice" and answer not in field.options:
        raise UsageError(f"`{answer}` is not one of the choices", hint=did_you_mean(answer, field.options))
    if field.type == "number":
        try:
            float(answer)
        except ValueError:
            raise UsageError(f"`{answer}` is not a number", hint="such as 1.5") from None
    if field.type == "boolean" and answer.lower() not in {"true", "false", "yes", "no"}:
        raise UsageError(f"`{answer}` is neither true nor false", hint="`yes` and `no` do as well")
    return answer
