"""What people ask of a run: approve, reject, cancel, retry. Each takes effect or says why not."""

from __future__ import annotations

from msgspec.structs import replace

from forge.core.pipeline.gates import apply_vote, gate_of, refuse
from forge.core.pipeline.job_rules import end_unstarted
from forge.core.pipeline.keys import StepKey
from forge.core.pipeline.state import JOB_FINAL, RUN_FINAL, STEP_FINAL, JobState
from forge.core.pipeline.step_rules import end_main, with_step
from forge.core.pipeline.tick import Tick
from forge.model.decision import Command
from forge.model.diagnostics import did_you_mean
from forge.model.plan import JobPlan

_DONE_AGAIN = frozenset({"failed", "error", "cancelled", "rejected", "blocked"})
KNOWN = ("approve", "reject", "cancel", "retry")


def apply_command(tick: Tick, command: Command) -> None:
    """Take in one command."""
    if command.kind in {"approve", "reject"}:
        apply_vote(tick, command)
    elif command.kind == "cancel":
        _cancel(tick, command)
    elif command.kind == "retry":
        _retry(tick, command)
    else:
        refuse(tick, command, f"a run takes no `{command.kind}`; {did_you_mean(command.kind, KNOWN)}")


def _cancel(tick: Tick, command: Command) -> None:
    """Cancel the run, or one of its jobs; with `force` also the steps that always run."""
    name, force = str(command.payload.get("job") or ""), bool(command.payload.get("force"))
    if tick.run.status in RUN_FINAL:
        refuse(tick, command, f"too late, the run is {tick.run.status}")
        return
    if name and name not in tick.jobs:
        refuse(tick, command, f"there is no job `{name}`; {did_you_mean(name, tuple(tick.jobs))}")
        return
    already = tick.jobs[name].cancel_requested if name else tick.run.cancel_requested
    if already and not force:
        refuse(tick, command, f"{already} asked for it already; steps that always run are not stopped")
        return
    if name and tick.jobs[name].status in JOB_FINAL:
        refuse(tick, command, f"too late, {name} is {tick.jobs[name].status}")
        return
    comment = str(command.payload.get("comment") or "")
    text = f"{command.actor} cancelled {name or 'the run'}" + (f": {comment}" if comment else "")
    tick.tell("cancel_requested", text, actor=command.actor, job=name, force=force)
    if not name:
        tick.change_run(cancel_requested=command.actor or "nobody")
    for job in [tick.jobs[name]] if name else list(tick.jobs.values()):
        if job.status not in JOB_FINAL:
            _cancel_job(tick, tick.index.jobs[job.name], job, command.actor or "nobody", text, force=force)


def _cancel_job(tick: Tick, plan_job: JobPlan, job: JobState, actor: str, text: str, *, force: bool) -> None:
    """End a job that has nothing under way; stop the step of one that has, so that its `always` steps follow."""
    job = tick.change(job, cancel_requested=actor)
    under_way = any(state.status not in STEP_FINAL for state in job.steps.values())
    if job.status == "retrying" or not job.steps or not under_way:
        end_unstarted(tick, job, "cancelled", text)
        return
    gate = gate_of(plan_job, job)
    for step in plan_job.steps:
        state = job.steps[step.id]
        spared = step.run_on == "always" and not force
        if state.status == "running" and gate is None and not spared:
            job = with_step(tick, job, step.id, replace(state, stopping="cancelled"))
            tick.stop(StepKey(job.name, job.attempt, step.id, state.attempt))
        elif state.status == "retrying" or (state.status == "running" and gate is not None):
            over = replace(state, status="cancelled", retry_at=None, finished_at=tick.now, message=text)
            job = with_step(tick, job, step.id, over)
        elif force and state.status == "pending":
            job = with_step(tick, job, step.id, replace(state, status="skipped", message=text))
    if job.status == "waiting_approval":
        job = tick.change(job, status="queued", waiting_since=None, waits_for="a free place for its last steps")
    end_main(tick, plan_job, job, "cancelled", text)


def _retry(tick: Tick, command: Command) -> None:
    """Put what did not succeed, and what depends on it, back to the beginning; the rest keeps its results."""
    if tick.run.status not in RUN_FINAL:
        refuse(tick, command, f"the run is still {tick.run.status}; cancel it first, or wait")
        return
    again = tick.index.with_dependents({job.name for job in tick.jobs.values() if job.status in _DONE_AGAIN})
    if not again:
        refuse(tick, command, "every job succeeded; there is nothing to do again")
        return
    for name in again:
        attempts = tick.jobs[name].attempt
        waits_for = tick.index.depends_text[name]
        tick.put(JobState(name, attempt=attempts, first_attempt=attempts + 1, waits_for=waits_for))
    attempt = tick.run.attempt + 1
    tick.change_run(
        status="queued", attempt=attempt, cancel_requested="", message="", waits_for="the next worker", finished_at=None
    )
    names = [job.name for job in tick.plan.jobs if job.name in again]
    text = f"{command.actor} retries {len(names)} of {len(tick.jobs)} jobs (attempt {attempt})"
    tick.tell("run_retried", text, actor=command.actor, attempt=attempt, jobs=names)
