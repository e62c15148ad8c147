"""Gates: who may open one, what they enter, and what a refusal says. Nothing about a vote is ever silent."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from forge.core.pipeline.inputs import check_inputs, missing, with_defaults
from forge.core.pipeline.slots import free_slot
from forge.core.pipeline.state import JOB_FINAL, JobState, StepState, Vote
from forge.core.pipeline.step_rules import end_main, with_step
from forge.core.pipeline.tick import Tick
from forge.core.pipeline.wording import name_list
from forge.model.configs import ApproveConfig
from forge.model.decision import Command
from forge.model.diagnostics import did_you_mean
from forge.model.plan import Approval, JobPlan, StepPlan
from forge.model.units import format_duration

APPROVE = "approve"
"""The step kind that is a gate in the middle of a job."""


class Gate(NamedTuple):
    """A gate that is open for votes: the job's own (`step` None), or one of its `approve` steps."""

    approval: Approval
    step: StepPlan | None

    @property
    def id(self) -> str:
        """The id under which votes are kept."""
        return self.step.id if self.step else ""


def gate_of(plan_job: JobPlan, job: JobState) -> Gate | None:
    """Return the gate that the job waits at, or None."""
    if job.status != "waiting_approval":
        return None
    for step in plan_job.steps:
        if step.kind == APPROVE and step.id in job.steps and job.steps[step.id].status == "running":
            return Gate(_approval_of(step), step)
    return Gate(plan_job.gate or Approval(), None)


def open_gate(tick: Tick, plan_job: JobPlan, job: JobState, step: StepPlan | None) -> JobState:
    """Have the job wait for people, at its own gate or at one of its `approve` steps."""
    if step is not None:
        job = with_step(tick, job, step.id, StepState("running", 1, started_at=tick.now))
    approval = _approval_of(step) if step else plan_job.gate or Approval()
    if approval.timeout is not None:
        tick.wake(tick.now + approval.timeout)
    text = _waits_for(tick, approval, ())
    job = tick.change(job, status="waiting_approval", waiting_since=tick.now, waits_for=text)
    message = f"{job.name} waits for {text}" + (f": {approval.message}" if approval.message else "")
    tick.tell("gate_opened", message, job=job.name, step=step.id if step else "", required=approval.required)
    return job


def watch_gate(tick: Tick, plan_job: JobPlan, job: JobState) -> JobState:
    """Reject the job when its gate's time is over, else look again then."""
    gate = gate_of(plan_job, job)
    if gate is None or gate.approval.timeout is None or job.waiting_since is None:
        return job
    ends = job.waiting_since + gate.approval.timeout
    if tick.now < ends:
        tick.wake(ends)
        return job
    return _close(tick, plan_job, job, gate, f"nobody opened the gate within {format_duration(gate.approval.timeout)}")


def apply_vote(tick: Tick, command: Command) -> None:
    """Take in an `approve` or `reject` command, or say why it is refused."""
    name = str(command.payload.get("job") or "") or _only_open_gate(tick)
    plan_job = tick.index.jobs.get(name)
    if plan_job is None:
        refuse(tick, command, _unknown_job(tick, name))
        return
    job = tick.jobs[name]
    gate = gate_of(plan_job, job)
    problem = _not_open(job) if gate is None else _not_allowed(tick, job, gate, command)
    if problem or gate is None:
        refuse(tick, command, f"{name}: {problem}")
    elif command.kind == "reject":
        _reject(tick, plan_job, job, gate, command)
    else:
        _approve(tick, job, gate, command)


def refuse(tick: Tick, command: Command, reason: str) -> None:
    """Say that a command changes nothing, and why."""
    data = {"command": command.kind, "id": command.id, "actor": command.actor, "reason": reason}
    if command.payload.get("job"):
        data["job"] = command.payload["job"]
    tick.tell("command_refused", f"{command.kind} by {command.actor or 'nobody'} was refused: {reason}", **data)


def _approval_of(step: StepPlan) -> Approval:
    return msgspec.convert(step.config, ApproveConfig).approval


def _only_open_gate(tick: Tick) -> str:
    waiting = [job.name for job in tick.jobs.values() if job.status == "waiting_approval"]
    return waiting[0] if len(waiting) == 1 else ""


def _unknown_job(tick: Tick, name: str) -> str:
    if not name:
        waiting = [job.name for job in tick.jobs.values() if job.status == "waiting_approval"]
        return f"say which job: {name_list(waiting)} wait" if waiting else "no job waits for approval"
    return f"there is no job `{name}`; {did_you_mean(name, tuple(tick.index.jobs))}"


def _not_open(job: JobState) -> str:
    if job.status in JOB_FINAL:
        return f"too late, the job is {job.status}"
    if job.status == "pending":
        return f"too early, the job waits for {job.waits_for}"
    return f"the job does not wait for approval, it is {job.status}"


def _not_allowed(tick: Tick, job: JobState, gate: Gate, command: Command) -> str:
    """Return why this person may not vote, or an empty text."""
    approval, actor = gate.approval, command.actor
    timeout, since = approval.timeout, job.waiting_since
    if timeout is not None and since is not None and command.at > since + timeout:
        return f"too late, the gate closed after {format_duration(timeout)}"
    if not actor:
        return "it does not say who it comes from"
    if approval.approvers and actor not in approval.approvers:
        return f"{actor} is not among the approvers {name_list(approval.approvers)}"
    if command.kind == "reject":
        return ""
    if not approval.allow_self and actor == tick.run.actor:
        return f"{actor} started the run and may not approve it"
    if any(vote.actor == actor and vote.gate == gate.id for vote in job.votes):
        return f"{actor} has approved already"
    return ""


def _approve(tick: Tick, job: JobState, gate: Gate, command: Command) -> None:
    approval = gate.approval
    given = command.payload.get("inputs")
    entered = _entered(job, gate)
    values, problems = check_inputs(approval.inputs, given if isinstance(given, dict) else {}, entered)
    problems += missing(approval.inputs, {**entered, **values})
    if problems:
        refuse(tick, command, f"{job.name}: {'; '.join(problems)}")
        return
    comment = str(command.payload.get("comment") or "")
    votes = (*job.votes, Vote(command.actor, True, command.at, comment, values, gate.id))
    here = tuple(vote for vote in votes if vote.gate == gate.id)
    text = f"{command.actor} approved {job.name} ({len(here)} of {approval.required})"
    tick.tell(
        "approved", f"{text}: {comment}" if comment else text,
        job=job.name, step=gate.id, actor=command.actor, votes=len(here), required=approval.required, inputs=values,
    )  # fmt: skip
    job = tick.change(job, votes=votes, waits_for=_waits_for(tick, approval, here))
    if len(here) >= approval.required:
        _pass(tick, job, gate, here, {**entered, **values})


def _pass(tick: Tick, job: JobState, gate: Gate, votes: tuple[Vote, ...], values: dict[str, Any]) -> None:
    """Let the job go on: it queues for a place like any other."""
    waited = tick.now - (job.waiting_since or tick.now)
    deadline = None if job.deadline is None else job.deadline + waited
    inputs = {**job.inputs, **with_defaults(gate.approval.inputs, values)}
    if gate.step is not None:
        done = replace(
            job.steps[gate.step.id], status="succeeded", finished_at=tick.now,
            outputs={"approved_by": [vote.actor for vote in votes]},
        )  # fmt: skip
        job = with_step(tick, job, gate.step.id, done)
    text = "a free place among the jobs that run at once"
    tick.change(job, status="queued", waiting_since=None, inputs=inputs, deadline=deadline, waits_for=text)


def _reject(tick: Tick, plan_job: JobPlan, job: JobState, gate: Gate, command: Command) -> None:
    comment = str(command.payload.get("comment") or "")
    job = tick.change(job, votes=(*job.votes, Vote(command.actor, False, command.at, comment, gate=gate.id)))
    message = f"rejected by {command.actor}" + (f": {comment}" if comment else "")
    _close(tick, plan_job, job, gate, message, actor=command.actor)


def _close(tick: Tick, plan_job: JobPlan, job: JobState, gate: Gate, message: str, **data: Any) -> JobState:
    """End the job as rejected; in the middle of a job its `always` steps come first."""
    tick.tell("rejected", f"{job.name}: {message}", job=job.name, step=gate.id, **data)
    if gate.step is None:
        job = tick.change(
            job, status="rejected", message=message, waits_for="", waiting_since=None, finished_at=tick.now
        )
        tick.tell("job_finished", f"{job.name} was rejected", job=job.name, status="rejected", attempt=job.attempt)
        return free_slot(tick, job)
    status = "failed" if data else "timed_out"
    over = replace(job.steps[gate.step.id], status=status, finished_at=tick.now, message=message)
    job = with_step(tick, job, gate.step.id, over)
    job = tick.change(job, status="queued", waiting_since=None, waits_for="a free place for its last steps")
    return end_main(tick, plan_job, job, "rejected", message)


def _entered(job: JobState, gate: Gate) -> dict[str, Any]:
    entered: dict[str, Any] = {}
    for vote in job.votes:
        if vote.gate == gate.id:
            entered.update(vote.inputs)
    return entered


def _waits_for(tick: Tick, approval: Approval, votes: tuple[Vote, ...]) -> str:
    left = approval.required - len(votes)
    voted = {vote.actor for vote in votes}
    open_to = [name for name in approval.approvers if name not in voted]
    count = "approval" if left == 1 else f"{left} approvals"
    if open_to:
        text = f"{count} by {name_list(open_to)}" if left >= len(open_to) else f"{count} among {name_list(open_to)}"
    else:
        text = f"{count} by a person"
    if not approval.allow_self and tick.run.actor:
        text += f" other than {tick.run.actor}"
    return text
