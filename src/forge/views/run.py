"""What a screen shows of one run: the same model for the terminal, JSON and a page.

Field names are an interface that scripts rely on: add, never rename. Times are seconds since the epoch,
durations seconds.
"""

from __future__ import annotations

import msgspec

from forge.core.pipeline.state import JOB_FINAL, RUN_FINAL, JobState, RunState, StepState
from forge.model.configs import ApproveConfig
from forge.model.plan import Approval, JobPlan, Plan, StepPlan


class StepView(msgspec.Struct, frozen=True):
    """One step of a job's current attempt."""

    id: str
    name: str
    kind: str
    state: str
    run_on: str = "success"
    attempt: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    duration: float | None = None
    exit_code: int | None = None
    peak_memory: int | None = None
    message: str = ""


class InputView(msgspec.Struct, frozen=True):
    """A field that whoever opens a gate may, or must, fill in."""

    name: str
    type: str = "string"
    description: str = ""
    default: str | int | float | bool | None = None
    required: bool = False
    options: tuple[str, ...] = ()


class GateView(msgspec.Struct, frozen=True):
    """A gate and how far it is: who said yes already, and how many have to."""

    message: str
    required: int
    given: tuple[str, ...]
    approvers: tuple[str, ...] = ()
    allow_self: bool = True
    inputs: tuple[InputView, ...] = ()


class JobView(msgspec.Struct, frozen=True):
    """One job. `waits_for` says in words what a job that waits is waiting for."""

    name: str
    state: str
    attempt: int = 0
    depends_on: tuple[str, ...] = ()
    steps: tuple[StepView, ...] = ()
    waits_for: str = ""
    message: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    duration: float | None = None
    retry_at: float | None = None
    waiting_since: float | None = None
    gate: GateView | None = None

    @property
    def current_step(self) -> StepView | None:
        """The step that is under way, if any."""
        return next((step for step in self.steps if step.state in {"running", "retrying"}), None)


class RunView(msgspec.Struct, frozen=True):
    """One run. `next` are the commands that make sense now, in order of likelihood."""

    id: str
    state: str
    pipeline: str
    jobs: tuple[JobView, ...]
    actor: str = ""
    attempt: int = 1
    plan: str = ""
    commit: str = ""
    ref: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    duration: float | None = None
    message: str = ""
    next: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """Whether nothing more happens by itself or by approval."""
        return self.state in RUN_FINAL

    def waiting_jobs(self) -> tuple[JobView, ...]:
        """The jobs that stand at a gate."""
        return tuple(job for job in self.jobs if job.state == "waiting_approval")


def run_view(state: RunState, plan: Plan, now: float) -> RunView:
    """Return what to show of a run at `now`; jobs are in the plan's order."""
    jobs = tuple(_job_view(job, state.jobs.get(job.name) or JobState(job.name), now) for job in plan.jobs)
    return RunView(
        id=state.id,
        state=state.status,
        pipeline=plan.name,
        jobs=jobs,
        actor=state.actor,
        attempt=state.attempt,
        plan=state.plan_digest,
        commit=plan.source.commit,
        ref=plan.source.ref,
        created_at=state.created_at,
        started_at=state.started_at,
        finished_at=state.finished_at,
        duration=elapsed(state.started_at, state.finished_at, now),
        message=state.message,
        next=next_commands(state, jobs),
    )


def next_commands(state: RunState, jobs: tuple[JobView, ...]) -> tuple[str, ...]:
    """Return the commands that make sense now, most likely first."""
    if state.status in {"failed", "error", "cancelled", "rejected"}:
        broken = [job.name for job in jobs if job.state in {"failed", "error"} and job.steps]
        look = tuple(f"forge logs {state.id} {shell_word(name)}" for name in broken[:3])
        return (*look, f"forge retry {state.id}")
    if state.status == "succeeded":
        return ()
    gates = [job.name for job in jobs if job.state == "waiting_approval"]
    if gates:
        return (*(f"forge approve {state.id} {shell_word(name)}" for name in gates), f"forge resume {state.id}")
    return (f"forge resume {state.id}", f"forge cancel {state.id}")


def shell_word(name: str) -> str:
    """Return a name as it is typed in a shell: `test (os=linux)` needs quotes."""
    return name if all(letter.isalnum() or letter in "_-./:@%+=," for letter in name) else f"'{name}'"


def elapsed(start: float | None, end: float | None, now: float) -> float | None:
    """Return seconds from `start` to `end` (or to `now` while there is no end), None before the start."""
    if start is None:
        return None
    return max(0.0, (end if end is not None else now) - start)


def _job_view(plan: JobPlan, state: JobState, now: float) -> JobView:
    return JobView(
        name=plan.name,
        state=state.status,
        attempt=state.attempt,
        depends_on=plan.depends_on,
        steps=tuple(_step_view(step, state.steps.get(step.id), now) for step in plan.steps),
        waits_for="" if state.status in JOB_FINAL else state.waits_for,
        message=state.message,
        started_at=state.started_at,
        finished_at=state.finished_at,
        duration=elapsed(state.started_at, state.finished_at, now),
        retry_at=state.retry_at,
        waiting_since=state.waiting_since,
        gate=_gate_view(*_gate_in_force(plan, state), state),
    )


def _gate_in_force(plan: JobPlan, state: JobState) -> tuple[Approval | None, str]:
    """The gate of the job itself or, while one of its `approve` steps waits, of that step; and that step's id."""
    if state.status == "waiting_approval":
        for step in plan.steps:
            reached = state.steps.get(step.id)
            if step.kind == "approve" and reached is not None and reached.status == "running":
                return msgspec.convert(step.config, ApproveConfig).approval, step.id
    return plan.gate, ""


def _gate_view(gate: Approval | None, id_: str, state: JobState) -> GateView | None:
    if gate is None:
        return None
    return GateView(
        message=gate.message,
        required=gate.required,
        given=tuple(vote.actor for vote in state.votes if vote.approve and vote.gate == id_),
        approvers=gate.approvers,
        allow_self=gate.allow_self,
        inputs=tuple(
            InputView(field.name, field.type, field.description, field.default, field.required, field.options)
            for field in gate.inputs
        ),
    )


def _step_view(plan: StepPlan, state: StepState | None, now: float) -> StepView:
    state = state or StepState()
    return StepView(
        id=plan.id,
        name=plan.name,
        kind=plan.kind,
        state=state.status,
        run_on=plan.run_on,
        attempt=state.attempt,
        started_at=state.started_at,
        finished_at=state.finished_at,
        duration=elapsed(state.started_at, state.finished_at, now),
        exit_code=state.exit_code,
        peak_memory=state.peak_memory,
        message=state.message,
    )
