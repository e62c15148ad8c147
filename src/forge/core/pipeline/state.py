"""The state of a run: a header and one part per job, so that a change of one job writes one row."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

RunStatus = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled", "rejected", "error"]
"""`waiting`: nothing can go on before a person acts. `error`: Forge or a dependency failed, not the work."""

JobStatus = Literal[
    "pending", "waiting_approval", "queued", "running", "retrying",
    "succeeded", "failed", "skipped", "cancelled", "rejected", "blocked", "error",
]  # fmt: skip
"""`pending`: waits for other jobs. `queued`: waits for a place in its concurrency group or the parallel limit.
`blocked`: a job that it depends on did not succeed. `skipped`: its `when` is false."""

StepStatus = Literal[
    "pending", "running", "retrying", "succeeded", "failed", "skipped", "cancelled", "timed_out", "error"
]

RUN_FINAL = frozenset({"succeeded", "failed", "cancelled", "rejected", "error"})
JOB_FINAL = frozenset({"succeeded", "failed", "skipped", "cancelled", "rejected", "blocked", "error"})
STEP_FINAL = frozenset({"succeeded", "failed", "skipped", "cancelled", "timed_out", "error"})


class StepState(msgspec.Struct, frozen=True):
    """One step of the job's current attempt; times are seconds since the epoch."""

    status: StepStatus = "pending"
    attempt: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    peak_memory: int | None = None
    """Bytes."""
    message: str = ""
    outputs: dict[str, Any] = {}
    retry_at: float | None = None


class Vote(msgspec.Struct, frozen=True):
    """One person's word at a gate."""

    actor: str
    approve: bool
    at: float
    comment: str = ""
    inputs: dict[str, Any] = {}


class JobState(msgspec.Struct, frozen=True):
    """One job. `attempt` counts executions of the whole job; `steps` belongs to the current one."""

    name: str
    status: JobStatus = "pending"
    attempt: int = 0
    steps: dict[str, StepState] = {}
    votes: tuple[Vote, ...] = ()
    inputs: dict[str, Any] = {}
    """What the approvers entered; expressions see it as `inputs`."""
    waiting_since: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    retry_at: float | None = None
    message: str = ""
    waits_for: str = ""
    """For every waiting state, in words: what it waits for."""


class RunState(msgspec.Struct, frozen=True):
    """The header of a run and its jobs by name. The engine stores `jobs` as parts, a row each."""

    id: str
    plan_digest: str
    status: RunStatus = "queued"
    actor: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 1
    """Counts `forge retry`."""
    cancel_requested: str = ""
    """Who asked for the run to be cancelled; empty: nobody."""
    message: str = ""
    jobs: dict[str, JobState] = {}
