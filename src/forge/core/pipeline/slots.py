"""Concurrency groups: asking for a place, queueing for it, and giving it back, of a job or of the whole run."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec.structs import replace

from forge.core.pipeline.keys import ASK, FREE, SideKey
from forge.core.pipeline.state import JOB_FINAL, RUN_FINAL, JobState, RunState, SlotState
from forge.core.pipeline.tick import Tick
from forge.core.pipeline.variables import has_expression, variables
from forge.model.decision import Outcome
from forge.model.plan import Concurrency, JobPlan

LOOK_AGAIN = 15.0
"""Seconds after which a place in a queue is looked at even if nobody said that it moved."""
NEAR = 20
"""Places from the front from where on this is done so often; further back it is in proportion rarer."""
LOOK_AT_LEAST = 300.0


class Holder(NamedTuple):
    """Who holds or waits for a place: a run (job "") or one of its jobs, in one attempt of the run.

    A retry is another holder, so that a place left behind by a worker that was cut off can be told and given back.
    """

    run: str
    attempt: int
    job: str

    def __str__(self) -> str:
        return f"{self.run}/{self.job}@{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> Holder:
        """Return the holder of that name. Raises ValueError."""
        run, _, rest = text.partition("/")
        job, _, attempt = rest.rpartition("@")
        return cls(run, int(attempt), job)


def places_waited_for(run: RunState) -> dict[Holder, str]:
    """Return the group of everyone in the run that queues, for whoever looks up their positions."""
    slots = {"": run.slot} | {job.name: job.slot for job in run.jobs.values() if job.slot is not None}
    return {
        Holder(run.id, run.attempt, name): slot.group
        for name, slot in slots.items()
        if slot is not None and slot.state == "queued"
    }


def is_left_behind(holder: Holder, run: RunState) -> bool:
    """Tell whether a holder of a place has given it back already, or never will: it is nobody's place any more."""
    if run.attempt != holder.attempt:
        return run.attempt > holder.attempt
    if not holder.job:
        return run.status in RUN_FINAL
    job = run.jobs.get(holder.job)
    return job is not None and job.status in JOB_FINAL and job.slot is None


def ask(tick: Tick, plan_job: JobPlan | None, concurrency: Concurrency) -> SlotState:
    """Ask for a place. Raises ValueError if the group's name is an expression that is wrong."""
    name = plan_job.name if plan_job else ""
    group = concurrency.group
    if has_expression(group):
        from forge.core.pipeline.expressions import interpolate

        group = interpolate(group, variables(tick.plan, tick.run, tick.jobs, plan_job))
    payload = {
        "group": group, "holder": _holder(tick, name), "limit": concurrency.limit,
        "cancel_running": concurrency.when_busy == "cancel_running",
    }  # fmt: skip
    tick.act(SideKey(ASK, name, tick.run.attempt), ASK, payload)
    return SlotState(group)


def place_after(tick: Tick, slot: SlotState, job: str) -> SlotState:
    """Return where a queueing holder stands now."""
    if slot.state != "queued":
        return slot
    position = tick.places.get(_holder(tick, job), slot.position)
    if position == 0:
        return replace(slot, state="held", position=0)
    tick.wake(tick.now + min(LOOK_AT_LEAST, LOOK_AGAIN * max(1.0, position / NEAR)))
    return slot if position == slot.position else replace(slot, position=position)


def waits_for_slot(slot: SlotState) -> str:
    """Return in words what a holder without a place waits for."""
    if slot.state == "queued":
        return f"a place in concurrency group `{slot.group}`: number {slot.position} in the queue"
    return f"a place in concurrency group `{slot.group}`"


def free_slot(tick: Tick, job: JobState) -> JobState:
    """Give back the place of a job that ended; one that is still being asked for is given back when it is known."""
    if job.slot is None or job.slot.state in {"asked", "freeing"}:
        return job
    _give_back(tick, job.slot, job.name)
    return tick.change(job, slot=replace(job.slot, state="freeing"))


def free_run_slot(tick: Tick) -> None:
    """Give back the place of the whole run, likewise."""
    slot = tick.run.slot
    if slot is not None and slot.state not in {"asked", "freeing"}:
        _give_back(tick, slot, "")
        tick.change_run(slot=replace(slot, state="freeing"))


def slot_after(tick: Tick, slot: SlotState | None, key: SideKey, outcome: Outcome) -> SlotState | None:
    """Return the slot after the outcome of a request about it. Raises ValueError if a place cannot be had."""
    expected = "asked" if key.kind == ASK else "freeing"
    if slot is None or slot.state != expected or key.attempt != tick.run.attempt:
        return slot
    if key.kind == FREE:
        if outcome.result != "succeeded":
            tick.tell("slot_not_freed", f"a place in group `{slot.group}` was not given back: {outcome.message}")
        return None
    if outcome.result != "succeeded":
        raise ValueError(f"no place in concurrency group `{slot.group}`: {outcome.message or outcome.result}")
    position = int(outcome.data.get("position", 0))
    return replace(slot, state="queued" if position else "held", position=position)


def _holder(tick: Tick, job: str) -> str:
    return str(Holder(tick.run.id, tick.run.attempt, job))


def _give_back(tick: Tick, slot: SlotState, job: str) -> None:
    payload: dict[str, Any] = {"group": slot.group, "holder": _holder(tick, job)}
    tick.act(SideKey(FREE, job, tick.run.attempt), FREE, payload)
