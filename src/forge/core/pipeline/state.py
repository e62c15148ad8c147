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
    stopping: str = ""
    """Why the step was told to stop (`cancelled`, `timed_out`); empty: it was not."""


class SlotState(msgspec.Struct, frozen=True):
    """A place in a concurrency group, and how far the holder is on its way to it or out of it."""

    group: str
    state: Literal["asked", "queued", "held", "freeing"] = "asked"
    position: int = 0
    """Place in the queue, from 1."""


class Vote(msgspec.Struct, frozen=True):
    """One person's word at a gate."""

    actor: str
    approve: bool
    at: float
    comment: str = ""
    inputs: dict[str, Any] = {}
    gate: str = ""
    """Id of the `approve` step that it was given at; empty: the job's own gate."""


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
    ending: Literal["", "failed", "timed_out", "error", "lost", "cancelled", "rejected"] = ""
    """Set when the job's main steps are over for another reason than that all succeeded."""
    cancel_requested: str = ""
    """Who asked for this job to be cancelled; empty: nobody."""
    deadline: float | None = None
    """When the job's timeout strikes next; not counted while people are asked."""
    slot: SlotState | None = None
    first_attempt: int = 1
    """The first attempt that counts against the job's `retry` (`forge retry` and restarts move it)."""
    restarts: int = 0
    """How often the job began again because its workspace was gone."""
    saving: bool = False
    """The job succeeded and its caches are being kept for later jobs; the run is not over before."""


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
    waits_for: str = ""
    """What the run as a whole waits for: a person, or a place in its concurrency group."""
    slot: SlotState | None = None
    jobs: dict[str, JobState] = {}
