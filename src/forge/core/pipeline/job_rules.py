"""Jobs: when one may begin, how it moves from step to step, and how it ends."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from forge.core.pipeline.gates import APPROVE, open_gate, watch_gate
from forge.core.pipeline.keys import SAVE, SideKey, StepKey
from forge.core.pipeline.slots import ask, free_slot, place_after, waits_for_slot
from forge.core.pipeline.state import JOB_FINAL, STEP_FINAL, JobState, StepState
from forge.core.pipeline.step_rules import backoff, end_main, start_step, with_step
from forge.core.pipeline.tick import Tick
from forge.core.pipeline.variables import declared_env, has_expression, variables
from forge.core.pipeline.wording import clock, name_list
from forge.model.plan import JobPlan, StepPlan
from forge.model.units import format_duration

DONE = frozenset({"succeeded", "skipped"})
"""Statuses that let dependents go on; a skipped job holds nobody up."""

MAX_RESTARTS = 3
_PENDING = StepState()
_FAILURES = frozenset({"failed", "timed_out", "error", "lost"})
_STATUS = {
    "": "succeeded", "failed": "failed", "timed_out": "failed", "error": "error", "lost": "error",
    "cancelled": "cancelled", "rejected": "rejected",
}  # fmt: skip


def move(tick: Tick, plan_job: JobPlan, job: JobState) -> None:
    """Take a job that does not run as far as it goes now, up to and into running."""
    if job.status == "pending":
        job = _enter(tick, plan_job, job)
    elif job.status == "waiting_approval":
        job = watch_gate(tick, plan_job, job)
    elif job.status == "retrying":
        job = _after_backoff(tick, job)
    if job.status == "queued":
        _begin_when_free(tick, plan_job, job)


def settle(tick: Tick, plan_job: JobPlan, job: JobState) -> JobState:
    """Take a running job to its next step, gate or end."""
    job = _strike_deadline(tick, plan_job, job)
    for step in plan_job.steps:
        state = job.steps[step.id]
        if state.status in STEP_FINAL:
            continue
        if state.status == "running":
            if state.stopping:
                tick.stop(StepKey(job.name, job.attempt, step.id, state.attempt))
            return job
        if state.status == "retrying" and state.retry_at is not None and tick.now < state.retry_at:
            tick.wake(state.retry_at)
            return job
        reason, job = _why_not(tick, plan_job, job, step)
        if reason is None:
            return _start(tick, plan_job, job, step)
        if job.steps[step.id].status not in STEP_FINAL:
            skipped = StepState("skipped", message=reason)
            job = with_step(tick, job, step.id, skipped)
    return _finish(tick, plan_job, job)


def end_unstarted(tick: Tick, job: JobState, status: str, message: str) -> JobState:
    """End a job none of whose steps is under way."""
    tick.tell("job_finished", f"{job.name} is {status}: {message}", job=job.name, status=status, attempt=job.attempt)
    job = tick.change(job, status=status, message=message, waits_for="", retry_at=None, finished_at=tick.now)
    return free_slot(tick, job)


def restart(tick: Tick, plan_job: JobPlan, job: JobState, message: str) -> JobState:
    """Begin the whole job again because what its finished steps left behind is gone."""
    tick.tell("job_restarted", f"{job.name} begins again: {message}", job=job.name, attempt=job.attempt)
    return _begin(tick, plan_job, job, restarts=job.restarts + 1, first_attempt=job.first_attempt + 1)


def may_restart(plan_job: JobPlan, job: JobState) -> bool:
    """Tell whether beginning again is allowed: not too often, not while cleaning up, not over `on_crash: report`."""
    if job.ending or job.cancel_requested or job.restarts >= MAX_RESTARTS:
        return False
    return not any(
        step.on_crash == "report" and job.steps[step.id].attempt > 0 and job.steps[step.id].status in STEP_FINAL
        for step in plan_job.steps
    )


def _enter(tick: Tick, plan_job: JobPlan, job: JobState) -> JobState:
    """Take a pending job past its dependencies, its `when` and its gate."""
    for name in plan_job.depends_on:
        status = tick.jobs[name].status
        if status not in JOB_FINAL:
            return job
        if status not in DONE:
            not_done = [other for other in plan_job.depends_on if tick.jobs[other].status in JOB_FINAL - DONE]
            return end_unstarted(tick, job, "blocked", f"{name_list(not_done)} did not succeed")
    if plan_job.when:
        truth, problem = _truth(tick, plan_job, None, plan_job.when)
        if problem:
            return end_unstarted(tick, job, "error", problem)
        if not truth:
            return end_unstarted(tick, job, "skipped", f"`when: {plan_job.when}` is false")
    if plan_job.gate is not None:
        return open_gate(tick, plan_job, job, None)
    return tick.put(replace(job, status="queued", waits_for=_place_text(tick)))


def _after_backoff(tick: Tick, job: JobState) -> JobState:
    if job.retry_at is not None and tick.now < job.retry_at:
        tick.wake(job.retry_at)
        return job
    return tick.change(job, status="queued", retry_at=None, steps={}, waits_for=_place_text(tick))


def _begin_when_free(tick: Tick, plan_job: JobPlan, job: JobState) -> None:
    """Begin, or resume after a gate, when there is a place in the group and among the running jobs."""
    if plan_job.concurrency is not None:
        job = _place_in_group(tick, plan_job, job)
        if job.slot is None or job.slot.state != "held":
            return
    if tick.running >= tick.limit:
        text = _place_text(tick)
        if job.waits_for != text:
            tick.change(job, waits_for=text)
        return
    tick.running += 1
    if job.steps:
        job = tick.change(job, status="running", waits_for="")
        job = settle(tick, plan_job, job)
    else:
        job = _begin(tick, plan_job, job)
    if job.status != "running":
        tick.running -= 1


def _place_in_group(tick: Tick, plan_job: JobPlan, job: JobState) -> JobState:
    if job.slot is None and plan_job.concurrency is not None:
        try:
            slot = ask(tick, plan_job, plan_job.concurrency)
        except ValueError as error:
            return end_unstarted(tick, job, "error", f"concurrency group: {error}")
    elif job.slot is not None:
        slot = place_after(tick, job.slot, job.name)
    else:
        return job
    text = job.waits_for if slot.state == "held" else waits_for_slot(slot)
    if slot is job.slot and text == job.waits_for:
        return job
    return tick.change(job, slot=slot, waits_for=text)


def _begin(tick: Tick, plan_job: JobPlan, job: JobState, **fields: Any) -> JobState:
    """Begin a new attempt: all steps, from the first."""
    attempt = job.attempt + 1
    deadline = None if plan_job.timeout is None else tick.now + plan_job.timeout
    again = f" (attempt {attempt})" if attempt > 1 else ""
    tick.tell("job_started", f"{job.name} started{again}", job=job.name, attempt=attempt)
    votes = tuple(vote for vote in job.votes if not vote.gate)  # gates in the middle of the job ask again
    job = replace(
        job, status="running", attempt=attempt, votes=votes, steps={step.id: _PENDING for step in plan_job.steps},
        started_at=tick.now, finished_at=None, deadline=deadline, message="", waits_for="", ending="", **fields,
    )  # fmt: skip
    tick.put(job)
    return settle(tick, plan_job, job)


def _start(tick: Tick, plan_job: JobPlan, job: JobState, step: StepPlan) -> JobState:
    if step.kind == APPROVE:
        return open_gate(tick, plan_job, job, step)
    return start_step(tick, plan_job, job, step)


def _why_not(tick: Tick, plan_job: JobPlan, job: JobState, step: StepPlan) -> tuple[str | None, JobState]:
    """Return why a step is not to be run (None: run it) and the job, changed if the step's `when` is wrong."""
    reason = _skip_reason(tick, job, step)
    if reason is not None or not step.when or job.steps[step.id].attempt:
        return reason, job
    truth, problem = _truth(tick, plan_job, step, step.when)
    if not problem:
        return (None if truth else f"`when: {step.when}` is false"), job
    wrong = StepState("error", finished_at=tick.now, message=problem)
    tick.tell(
        "step_finished", f"{job.name}: {step.name}: {problem}", job=job.name, step=step.id, attempt=0, status="error"
    )
    job = with_step(tick, job, step.id, wrong)
    return problem, end_main(tick, plan_job, job, "error", f"step `{step.name}`: {problem}")


def _skip_reason(tick: Tick, job: JobState, step: StepPlan) -> str | None:
    if step.run_on == "success":
        return "an earlier step did not succeed" if job.ending else None
    if job.ending and job.deadline is not None and tick.now >= job.deadline:
        return "no time was left"
    if step.run_on == "always":
        return None
    if job.cancel_requested:
        return "the job was cancelled"
    return None if job.ending in _FAILURES else "no step failed"


def _truth(tick: Tick, plan_job: JobPlan, step: StepPlan | None, expression: str) -> tuple[bool, str]:
    """Return whether a `when` holds, and what is wrong with it if it cannot be told."""
    try:
        known = variables(tick.plan, tick.run, tick.jobs, plan_job, step)
        if has_expression(known["env"]):
            from forge.core.pipeline.expressions import interpolate

            known["env"] = declared_env(tick.plan, plan_job, step, known, interpolate)
        value = tick.evaluate(expression, known)
    except ValueError as error:
        return False, f"`when: {expression}` cannot be evaluated: {error}"
    if not isinstance(value, bool):
        return False, f"`when: {expression}` gives {value!r}, not true or false"
    return value, ""


def _strike_deadline(tick: Tick, plan_job: JobPlan, job: JobState) -> JobState:
    """When the job's time is over, stop its step; what cleans up then has the same time once more."""
    if job.deadline is None:
        return job
    if tick.now < job.deadline:
        tick.wake(job.deadline)
        return job
    for step in plan_job.steps:
        state = job.steps[step.id]
        if state.status == "running" and not state.stopping:
            job = with_step(tick, job, step.id, replace(state, stopping="timed_out"))
        elif state.status == "retrying":
            over = replace(state, status="timed_out", retry_at=None, finished_at=tick.now)
            job = with_step(tick, job, step.id, over, waits_for="")
    if not job.ending:
        took = format_duration(plan_job.timeout or 0.0)
        tick.tell("job_timed_out", f"{job.name}: its timeout of {took} passed", job=job.name, attempt=job.attempt)
        job = end_main(tick, plan_job, job, "timed_out", f"the job's timeout of {took} passed")
    return job


def _finish(tick: Tick, plan_job: JobPlan, job: JobState) -> JobState:
    """End the attempt: the job is done, or it is tried again later."""
    used = job.attempt - job.first_attempt + 1
    retryable = job.ending in {"failed", "timed_out", "error"} and not job.cancel_requested
    if retryable and used < plan_job.retry.attempts:
        at = tick.now + backoff(plan_job.retry, used)
        text = f"attempt {used + 1} of {plan_job.retry.attempts} at {clock(at)}"
        tick.tell("job_retrying", f"{job.name} failed ({job.message}); {text}", job=job.name, attempt=job.attempt)
        tick.wake(at)
        return tick.change(job, status="retrying", retry_at=at, waits_for=text, deadline=None)
    status = _STATUS[job.ending]
    job = tick.change(job, status=status, finished_at=tick.now, waits_for="", deadline=None)
    text = f"{job.name} {_said(status)}" + (f": {job.message}" if job.message else "")
    tick.tell("job_finished", text, job=job.name, status=status, attempt=job.attempt)
    if status == "succeeded" and any(step.kind == "cache" for step in plan_job.steps):
        tick.act(SideKey(SAVE, job.name, job.attempt), SAVE, {"job": job.name, "attempt": job.attempt})
        job = tick.change(job, saving=True)
    return free_slot(tick, job)


def _said(status: str) -> str:
    return {"error": "could not be finished", "cancelled": "was cancelled", "rejected": "was rejected"}.get(
        status, status
    )


def _place_text(tick: Tick) -> str:
    return f"a free place: at most {tick.limit} jobs run at once"
