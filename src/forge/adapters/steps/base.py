"""Steps: what a job can do. One file a kind; each registers itself with `registry.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from forge.adapters.artifacts.base import ArtifactStore
from forge.adapters.runners.base import OutputSink, Runner
from forge.model.migrations import Contract
from forge.model.plan import EnvironmentPlan, JobPlan, Plan, StepPlan
from forge.model.strategy import Threshold

StepOutcome = Literal["succeeded", "failed", "error", "timed_out", "cancelled"]


class StepResult(msgspec.Struct, frozen=True):
    """`failed`: the work failed. `error`: Forge or a dependency failed. `outputs` are seen by later expressions."""

    outcome: StepOutcome
    message: str = ""
    exit_code: int | None = None
    peak_memory: int | None = None
    outputs: dict[str, Any] = {}


class PublishedArtifact(msgspec.Struct, frozen=True):
    """A named artifact of a run and what made it."""

    name: str
    digest: str
    size: int
    run: str
    job: str
    step: str
    plan: str
    commit: str
    created_at: float
    is_directory: bool = False


class ArtifactIndex(Protocol):
    """The run's named artifacts, in the database. A name is published once a run attempt of its job."""

    async def publish(self, artifact: PublishedArtifact) -> None:
        """Record it; the same name with the same digest is fine, with another digest raises UsageError."""

    async def find(self, run: str, name: str) -> PublishedArtifact | None:
        """Return the run's artifact of that name."""


class ReleaseClient(Protocol):
    """How a step asks for a release and waits for it; implemented by `engine/releases.py`.

    Everything that a step asks for carries a `key`; asking again under the same key changes nothing.
    `environment` is always the name. Raises DependencyFailed when an environment cannot be worked on.
    """

    async def deploy(self, environment: EnvironmentPlan, request: dict[str, Any], *, key: str, actor: str) -> str:
        """Ask for a release; return its id. The same `key` returns the same release, also after a crash."""

    async def wait(self, environment: str, release: str, on_change: Callable[[str], None]) -> dict[str, Any]:
        """Wait until the release is final; `on_change` gets a line of text for each change. Returns its view:
        at least `status`, `reason`, `version`, `requests`, `failed_requests`."""

    async def command(self, environment: str, kind: str, payload: dict[str, Any], *, key: str, actor: str) -> str:
        """Send a command to the environment and wait until it was taken into account. Returns why it had no
        effect, or "" when it had one."""

    async def begin_contract(self, environment: EnvironmentPlan, contract: Contract, *, actor: str) -> str:
        """Have the environment remember a contract migration before it begins; return why it must not begin, or "".
        The contract's key is the command's: asking again changes nothing, and is answered the same."""

    async def view(self, environment: str) -> dict[str, Any]:
        """Return `name`, `stable`, `settled`, `waits_for`, `wanted` and `ready` (stable's replicas), `problem`."""

    async def address(self, environment: str) -> str:
        """Return where clients reach the environment, for example `http://127.0.0.1:8080`; empty: not known now."""

    async def examine(self, environment: str, thresholds: tuple[Threshold, ...]) -> list[dict[str, Any]]:
        """Read the stable version now and hold each threshold against it: `exceeded` (None: it cannot know) and
        `why`."""

    async def withdraw(self, run: str, key: str, environment: str, release: str, actor: str) -> bool:
        """Abort the release if the step `key` of `run` was told to stop, and wait for its end. False, and nothing
        is done, when only the worker stops: another one carries on."""


async def always() -> bool:
    """Whatever cancels a step's task means the step."""
    return True


class StepContext(msgspec.Struct):
    """Everything a step may use. `key` is the idempotency key of this execution."""

    key: str
    run: str
    plan: Plan
    job: JobPlan
    step: StepPlan
    attempt: int
    actor: str
    workspace: Path
    """The job's own folder; begins as the run's source and is kept between its steps."""
    cwd: Path
    """`workspace` plus working_directory; checked to be inside."""
    env: Mapping[str, str]
    """The complete environment of commands: clean base, pipeline, job and step env, secrets, FORGE_*."""
    output: OutputSink
    say: Callable[[str], None]
    """Writes one line of Forge's own to the step's log."""
    runner: Runner
    artifacts: ArtifactStore
    index: ArtifactIndex
    releases: ReleaseClient
    project: Path
    cache: Path
    now: Callable[[], float]
    told_to_stop: Callable[[], Awaitable[bool]] = always
    """Asked when the step's task is cancelled: whether the step is to stop (a person, a timeout), or only its worker
    does, and another one carries on."""


class Step(Protocol):
    """One kind of step.

    `run` is called by the engine as a task of its own; it may take hours, must be cancellable
    (CancelledError is re-raised after cleaning up) and idempotent under `context.key` unless the step's
    plan says `on_crash: report`. It returns a result for anything that the user's work did; it raises
    DependencyFailed (or any other exception, which the engine records as `error`) for what Forge could not do.
    """

    kind: str

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
