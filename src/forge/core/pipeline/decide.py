"""The brain of a run: a pure function from what is known to what is done next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from forge.core.pipeline.commands import apply_command
from forge.core.pipeline.job_rules import end_unstarted, may_restart, move, restart, settle
from forge.core.pipeline.keys import SAVE, SideKey, StepKey, parse
from forge.core.pipeline.plan_index import index_of
from forge.core.pipeline.slots import ask, free_run_slot, free_slot, place_after, slot_after, waits_for_slot
from forge.core.pipeline.state import JOB_FINAL, RUN_FINAL, JobState, RunState
from forge.core.pipeline.step_rules import apply_outcome
from forge.core.pipeline.tick import Evaluate, Tick
from forge.core.pipeline.wording import name_list
from forge.model.decision import Command, Decision, Outcome
from forge.model.plan import Plan

_GIVING_BACK = "its places in concurrency groups to be given back"


def new_run(plan: Plan, run: str, *, actor: str, at: float) -> RunState:
    """Return the state of a run that nobody has looked at yet."""
    depends_text = index_of(plan).depends_text
    jobs = {job.name: JobState(job.name, waits_for=depends_text[job.name]) for job in plan.jobs}
    return RunState(run, plan.digest, actor=actor, created_at=at, waits_for="the next worker", jobs=jobs)


def decide(
    plan: Plan,
    state: RunState,
    commands: tuple[Command, ...],
    outcomes: tuple[Outcome, ...],
    now: float,
    *,
    max_parallel: int = 4,
    places: Mapping[str, int] | None = None,
    evaluate: Evaluate | None = None,
) -> Decision[RunState]:
    """Return the run's next state and what to do: same arguments, same decision.

    `max_parallel`: how many jobs may run at once when the plan does not say. `places`: positions in queues of
    concurrency groups that were looked up, by holder; 0 is a place. Outcomes of actions that are not under way
    are ignored, so that a repeated delivery changes nothing. Jobs that do not change stay identical objects.
    """
    limit = plan.max_parallel or max_parallel
    tick = Tick(plan, state, now, limit=limit, evaluate=evaluate or _evaluate, places=places or {})
    for outcome in outcomes:
        _apply_outcome(tick, outcome)
    for command in commands:
        apply_command(tick, command)
    if tick.run.status not in RUN_FINAL:
        _advance(tick)
    after = tick.run if tick.jobs is state.jobs else replace(tick.run, jobs=tick.jobs)
    return Decision(after, tuple(tick.actions), tuple(tick.events), tick.wake_at, tuple(tick.cancels), _why(tick))


def _evaluate(expression: str, known: Mapping[str, Any]) -> Any:
    from forge.core.pipeline.expressions import evaluate

    return evaluate(expression, known)


def _apply_outcome(tick: Tick, outcome: Outcome) -> None:
    key = parse(outcome.key)
    if isinstance(key, StepKey):
        _step_outcome(tick, key, outcome)
    elif isinstance(key, SideKey):
        (_saved if key.kind == SAVE else _slot_outcome)(tick, key, outcome)


def _step_outcome(tick: Tick, key: StepKey, outcome: Outcome) -> None:
    job = tick.jobs.get(key.job)
    if job is None or job.attempt != key.attempt or key.step not in job.steps:
        return
    before = job.steps[key.step]
    if before.status != "running" or before.attempt != key.step_attempt:
        return
    plan_job = tick.index.jobs[key.job]
    if outcome.data.get("workspace_gone") and may_restart(plan_job, job):
        restart(tick, plan_job, job, outcome.message)
        return
    step = next(step for step in plan_job.steps if step.id == key.step)
    apply_outcome(tick, plan_job, job, step, outcome)


def _slot_outcome(tick: Tick, key: SideKey, outcome: Outcome) -> None:
    if not key.job:
        try:
            tick.change_run(slot=slot_after(tick, tick.run.slot, key, outcome))
        except ValueError as error:
            tick.change_run(slot=None)
            _end_all(tick, str(error))
        return
    job = tick.jobs.get(key.job)
    if job is None:
        return
    try:
        slot = slot_after(tick, job.slot, key, outcome)
    except ValueError as error:
        job = tick.change(job, slot=None)
        if job.status not in JOB_FINAL:
            end_unstarted(tick, job, "error", str(error))
        return
    if slot is not job.slot:
        job = tick.change(job, slot=slot)
        if job.status in JOB_FINAL:
            free_slot(tick, job)


def _saved(tick: Tick, key: SideKey, outcome: Outcome) -> None:
    job = tick.jobs.get(key.job)
    if job is not None and job.saving and job.attempt == key.attempt:
        if outcome.result != "succeeded":
            tick.tell("caches_not_saved", f"{job.name}: its caches were not kept: {outcome.message}", job=job.name)
        tick.change(job, saving=False)


def _advance(tick: Tick) -> None:
    """Move the run: its own place first, then running jobs, then the ones that wait, then its end."""
    if _has_place(tick):
        for job in _with_status(tick, "running"):
            settle(tick, tick.index.jobs[job.name], job)
        tick.running = len(_with_status(tick, "running"))
        _move_waiting(tick)
    _derive_status(tick)


def _with_status(tick: Tick, status: str) -> list[JobState]:
    return [job for one in tick.plan.jobs if (job := tick.jobs[one.name]).status == status]


def _move_waiting(tick: Tick) -> None:
    """Let jobs begin in the plan's order; once more when one that ended at once left a place to an earlier one."""
    while True:
        full_at_some_time = False
        for plan_job in tick.plan.jobs:
            job = tick.jobs[plan_job.name]
            if job.status not in JOB_FINAL and job.status != "running":
                full_at_some_time = full_at_some_time or tick.running >= tick.limit
                move(tick, plan_job, job)
        if not (full_at_some_time and tick.running < tick.limit and _somebody_could_begin(tick)):
            return


def _somebody_could_begin(tick: Tick) -> bool:
    return any(
        job.status == "queued" and (job.slot.state == "held" if job.slot else not tick.index.jobs[job.name].concurrency)
        for job in tick.jobs.values()
    )


def _has_place(tick: Tick) -> bool:
    """Tell whether the run as a whole may go on, asking for its place in its group if need be."""
    concurrency, slot = tick.plan.concurrency, tick.run.slot
    if concurrency is None or all(job.status in JOB_FINAL for job in tick.jobs.values()):
        return True
    if slot is None:
        try:
            tick.change_run(slot=ask(tick, None, concurrency))
        except ValueError as error:
            _end_all(tick, f"concurrency group: {error}")
            return True
        return False
    after = place_after(tick, slot, "")
    if after is not slot:
        tick.change_run(slot=after)
    return after.state == "held"


def _end_all(tick: Tick, message: str) -> None:
    for job in list(tick.jobs.values()):
        if job.status not in JOB_FINAL:
            end_unstarted(tick, job, "error", message)


def _derive_status(tick: Tick) -> None:
    """Work out what the run as a whole is, from its jobs; end it when all of them ended."""
    run = tick.run
    statuses: set[str] = {job.status for job in tick.jobs.values()}
    if statuses <= JOB_FINAL:
        _end(tick, statuses)
        return
    if run.slot is not None and run.slot.state != "held":
        status, waits_for = "queued", waits_for_slot(run.slot)
    elif statuses & {"running", "retrying"} or not _all_behind_gates(tick):
        status, waits_for = "running", ""
    else:
        gates = [job.name for job in _with_status(tick, "waiting_approval")]
        status, waits_for = "waiting", f"approval of {name_list(gates)}"
    _set_status(tick, status, waits_for)


def _all_behind_gates(tick: Tick) -> bool:
    """Tell whether every queueing job waits for places that jobs of this very run hold while they wait for people."""
    waiting = Counter(job.slot.group for job in _with_status(tick, "waiting_approval") if job.slot is not None)
    for job in _with_status(tick, "queued"):
        concurrency = tick.index.jobs[job.name].concurrency
        if job.slot is None or concurrency is None or job.slot.state != "queued":
            return False
        if waiting[job.slot.group] < concurrency.limit:
            return False
    return True


def _set_status(tick: Tick, status: str, waits_for: str) -> None:
    run = tick.run
    started_at = run.started_at
    if status != "queued" and started_at is None:
        started_at = tick.now
        tick.tell("run_started", f"{run.id} started", plan=run.plan_digest, actor=run.actor)
    if (status, waits_for, started_at) != (run.status, run.waits_for, run.started_at):
        if status == "waiting" and run.status != "waiting":
            tick.tell("run_waiting", f"{run.id} waits for {waits_for}")
        tick.change_run(status=status, waits_for=waits_for, started_at=started_at)


def _end(tick: Tick, statuses: set[str]) -> None:
    free_run_slot(tick)
    unfinished = tick.run.slot is not None or any(job.slot is not None for job in tick.jobs.values())
    if unfinished or any(job.saving for job in tick.jobs.values()):
        status = tick.run.status if tick.run.status == "queued" else "running"
        _set_status(tick, status, _GIVING_BACK if unfinished else "caches to be kept for later runs")
        return
    result = _final_status(tick.run, statuses)
    first = next((job for job in tick.jobs.values() if job.status == result and job.message), None)
    message = f"{first.name}: {first.message}" if first and result != "succeeded" else ""
    tick.change_run(
        status=result, message=message, waits_for="", finished_at=tick.now, started_at=tick.run.started_at or tick.now
    )
    tick.tell("run_finished", f"{tick.run.id} {result}" + (f": {message}" if message else ""), status=result)


def _final_status(run: RunState, statuses: set[str]) -> str:
    """Return the run's result: a person's cancel first, then what went wrong, the work before the rest."""
    if run.cancel_requested and "cancelled" in statuses:
        return "cancelled"
    return next((name for name in ("failed", "error", "rejected", "cancelled") if name in statuses), "succeeded")


def _why(tick: Tick) -> str:
    """Return the tick in words: how it stands, and what it did."""
    parts = [f"run is {tick.run.status}"]
    if tick.run.waits_for:
        parts.append(f"waits for {tick.run.waits_for}")
    if tick.actions:
        parts.append(f"begins {len(tick.actions)}: {tick.actions[0].key}" + (" …" if len(tick.actions) > 1 else ""))
    if tick.cancels:
        parts.append(f"stops {len(tick.cancels)}")
    return "; ".join(parts)
