"""Steps: starting one, and what its outcome means for it and for its job."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from forge.core.pipeline.keys import StepKey
from forge.core.pipeline.state import JobState, StepState
from forge.core.pipeline.tick import Tick
from forge.core.pipeline.variables import has_expression, variables
from forge.core.pipeline.wording import clock
from forge.model.decision import Outcome
from forge.model.plan import JobPlan, Plan, Retry, StepPlan

RETRIED = frozenset({"failed", "timed_out", "error"})
_FINAL_STATUS = {"lost": "error", "failed": "failed", "timed_out": "timed_out", "cancelled": "cancelled"}
LOST = "Forge was stopped while this step was under way, and `on_crash: report` does not let it be run again"


def backoff(retry: Retry, attempt: int) -> float:
    """Return the seconds between attempt number `attempt` (from 1) and the next."""
    try:
        delay = retry.delay * retry.factor ** (attempt - 1)
    except OverflowError:
        return retry.max_delay
    return min(delay, retry.max_delay)


def start_step(tick: Tick, plan_job: JobPlan, job: JobState, step: StepPlan) -> JobState:
    """Have the next attempt of a step performed."""
    attempt = job.steps[step.id].attempt + 1
    key = StepKey(job.name, job.attempt, step.id, attempt)
    payload: dict[str, Any] = {
        "job": job.name, "attempt": job.attempt, "step": step.id, "step_attempt": attempt,
    }  # fmt: skip
    if needs_variables(tick.plan, plan_job, step):
        payload["variables"] = variables(tick.plan, tick.run, tick.jobs, plan_job, step)
    if job_runs_elsewhere(plan_job, step):
        payload["elsewhere"] = True
    tick.act(key, "step", payload, rerun=step.on_crash == "rerun")
    tick.tell("step_started", f"{job.name}: {step.name}", job=job.name, step=step.id, attempt=attempt)
    return with_step(tick, job, step.id, StepState("running", attempt, started_at=tick.now), waits_for="")


def job_runs_elsewhere(job: JobPlan, step: StepPlan) -> bool:
    """Tell whether a step's work goes on when its worker ends: in a pod, as a Job."""
    return step.kind == "job" or (step.kind == "run" and job.runner != "process")


def needs_variables(plan: Plan, job: JobPlan, step: StepPlan) -> bool:
    """Tell whether anything that the step is performed with holds an expression."""
    texts: tuple[object, ...] = (
        plan.env,
        job.env,
        step.env,
        step.config,
        step.working_directory,
        job.working_directory,
    )
    texts = (*texts, job.runner_config, step.migration.since if step.migration else "")
    return any(has_expression(text) for text in texts)


def with_step(tick: Tick, job: JobState, step: str, state: StepState, **fields: Any) -> JobState:
    """Change one step of a job, and fields of the job with it."""
    return tick.change(job, steps={**job.steps, step: state}, **fields)


def apply_outcome(tick: Tick, plan_job: JobPlan, job: JobState, step: StepPlan, outcome: Outcome) -> JobState:
    """Take in what became of the running attempt of a step: it succeeded, is tried again, or ends the main steps."""
    before = job.steps[step.id]
    result = outcome.result
    if result == "cancelled" and before.stopping == "timed_out":
        result = "timed_out"
    message = _message(outcome, result, before, plan_job)
    after = replace(
        before,
        status="succeeded" if result == "succeeded" else _FINAL_STATUS.get(result, "error"),
        finished_at=outcome.at,
        exit_code=outcome.data.get("exit_code"),
        peak_memory=outcome.data.get("peak_memory"),
        outputs=outcome.data.get("outputs") or {},
        message=message,
    )
    told = {"job": job.name, "step": step.id, "attempt": before.attempt, "status": after.status}
    if result in RETRIED and not before.stopping and not job.cancel_requested and before.attempt < step.retry.attempts:
        return _retry_later(tick, job, step, after, told)
    tick.tell("step_finished", _finished_text(job, step, after), exit_code=after.exit_code, **told)
    job = with_step(tick, job, step.id, after)
    if result == "succeeded":
        return job
    return end_main(tick, plan_job, job, result, f"step `{step.name}` {_verb(after.status)}: {message}")


def end_main(tick: Tick, plan_job: JobPlan, job: JobState, ending: str, message: str) -> JobState:
    """Note why the main steps are over; the first reason stands. The steps that clean up get the job's timeout anew."""
    if job.ending:
        return job
    ending = ending if ending in {"failed", "timed_out", "lost", "cancelled", "rejected"} else "error"
    deadline = None if plan_job.timeout is None else tick.now + plan_job.timeout
    if deadline is not None:
        tick.wake(deadline)
    return tick.change(job, ending=ending, message=message, deadline=deadline)


def _retry_later(tick: Tick, job: JobState, step: StepPlan, after: StepState, told: dict[str, Any]) -> JobState:
    at = tick.now + backoff(step.retry, after.attempt)
    text = f"attempt {after.attempt + 1} of {step.retry.attempts} of step `{step.name}` at {clock(at)}"
    tick.tell("step_retrying", f"{job.name}: {step.name} {_verb(after.status)} ({after.message}); {text}", **told)
    waiting = replace(after, status="retrying", retry_at=at)
    return with_step(tick, job, step.id, waiting, waits_for=text)


def _message(outcome: Outcome, result: str, before: StepState, plan_job: JobPlan) -> str:
    if result == "lost":
        return outcome.message or LOST
    if result == "timed_out" and before.stopping == "timed_out":
        from forge.model.units import format_duration

        return f"the job's timeout of {format_duration(plan_job.timeout or 0.0)} passed"
    return outcome.message


def _verb(status: str) -> str:
    return {"error": "could not be run", "timed_out": "timed out", "cancelled": "was cancelled"}.get(status, status)


def _finished_text(job: JobState, step: StepPlan, after: StepState) -> str:
    text = f"{job.name}: {step.name} {_verb(after.status)}"
    return f"{text}: {after.message}" if after.message and after.status != "succeeded" else text
