"""The resolved plan of a run: everything a run needs to know, pinned and hashed when it starts.

The document (what the user wrote) is turned into a plan by `resolve.py`; nothing reads the document
afterwards, so a re-run of the plan is exact even when the file has changed since.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from forge.model.decision import digest
from forge.model.migrations import Migration

Scalar = str | int | float | bool


class Source(msgspec.Struct, frozen=True):
    """What the run builds from. `digest` names the snapshot archive in the artifact store (sha256)."""

    digest: str
    commit: str = ""
    ref: str = ""
    dirty: bool = False


class SecretReference(msgspec.Struct, frozen=True):
    """Where a secret comes from; its value never enters a plan. Exactly one of the three is set."""

    name: str
    env: str = ""
    file: str = ""
    command: tuple[str, ...] = ()


class Parameter(msgspec.Struct, frozen=True):
    """A value that the person who starts a run, or opens a gate, may give."""

    name: str
    type: Literal["string", "number", "boolean", "choice"] = "string"
    description: str = ""
    default: Scalar | None = None
    required: bool = False
    options: tuple[str, ...] = ()


class Retry(msgspec.Struct, frozen=True):
    """How often, and how far apart in seconds: delay, delay*factor, ... at most `max_delay`."""

    attempts: int = 1
    delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 300.0


class Approval(msgspec.Struct, frozen=True):
    """A person's gate. `required` distinct people of `approvers` (empty: anyone known) must say yes."""

    message: str = ""
    required: int = 1
    approvers: tuple[str, ...] = ()
    allow_self: bool = True
    """False: the person who started the run may not approve it."""
    inputs: tuple[Parameter, ...] = ()
    timeout: float | None = None


class Concurrency(msgspec.Struct, frozen=True):
    """At most `limit` holders of `group` at once; others wait in order of arrival, or, with
    `cancel_running`, ask the ones that run to stop first. Nothing is ever dropped silently."""

    group: str
    limit: int = 1
    when_busy: Literal["queue", "cancel_running"] = "queue"


class StepPlan(msgspec.Struct, frozen=True):
    """One step. `config` is the step kind's own validated configuration (see adapters/steps)."""

    id: str
    """Unique in its job: `1`, `2`, ... ; `on_failure-1`, `always-1` for the two other lists."""
    kind: str
    name: str
    config: dict[str, Any] = {}
    run_on: Literal["success", "failure", "always"] = "success"
    when: str = ""
    env: dict[str, str] = {}
    timeout: float | None = None
    retry: Retry = Retry()
    working_directory: str = ""
    shell: str = ""
    on_crash: Literal["rerun", "report"] = "rerun"
    """What happens to the step when Forge was killed while it ran."""
    migration: Migration | None = None
    """What it does to what the versions of an environment share."""
    line: int = 0


class JobPlan(msgspec.Struct, frozen=True):
    """One job, after templates and matrix: `name` is unique (`test (os=linux)`), `base` the name in the file."""

    name: str
    base: str
    steps: tuple[StepPlan, ...]
    """All steps in order of execution; on_failure and always steps are at the end, told by `run_on`."""
    depends_on: tuple[str, ...] = ()
    gate: Approval | None = None
    """Set by `trigger: manual`: the job waits for a person when everything before it is done."""
    when: str = ""
    matrix: dict[str, Scalar] = {}
    env: dict[str, str] = {}
    timeout: float | None = None
    retry: Retry = Retry()
    concurrency: Concurrency | None = None
    working_directory: str = ""
    shell: str = ""
    runner: str = "process"
    runner_config: dict[str, Any] = {}
    """What is set of the runner, under the names of `KubernetesRunnerConfig`."""
    environment: str = ""
    line: int = 0


class SourcePlan(msgspec.Struct, frozen=True):
    """One source of signals beside others. `config` is validated by the adapter of that `kind`."""

    kind: str
    """The adapter: `envoy`, `prometheus`, `loki`, ..."""
    name: str
    """How messages call it; unique in its environment."""
    config: dict[str, Any] = {}
    secrets: tuple[SecretReference, ...] = ()
    """Where the secrets come from that `config` names."""


class NotifierPlan(msgspec.Struct, frozen=True):
    """Somebody who is told of releases. `config` is validated by the adapter of that `kind`."""

    kind: str
    """The adapter: `grafana`."""
    name: str
    """How messages call it; unique in its environment."""
    config: dict[str, Any] = {}
    secrets: tuple[SecretReference, ...] = ()
    """Where the secrets come from that `config` names."""


class EnvironmentPlan(msgspec.Struct, frozen=True):
    """Where versions live. Each section's dict is validated by the adapter of that name."""

    name: str
    target: str = "local"
    target_config: dict[str, Any] = {}
    router: str = "envoy"
    router_config: dict[str, Any] = {}
    signals: str = "envoy"
    signals_config: dict[str, Any] = {}
    sources: tuple[SourcePlan, ...] = ()
    """All sources of signals, the first that knows a thing is asked for it; empty: `signals` alone."""
    judge: str = "sequential"
    judge_config: dict[str, Any] = {}
    """What is set of the judge, under the names of `core.judge.settings.SequentialSettings`."""
    policy: dict[str, Any] = {}
    """`max_arms` (how many versions beside stable, default 4), `on_overlap` ("overlap"|"queue"|"supersede")."""
    notify: tuple[NotifierPlan, ...] = ()
    """Who is told of its releases."""


class Plan(msgspec.Struct, frozen=True):
    """A whole run, pinned. Jobs are in an order in which every job follows what it depends on."""

    name: str
    jobs: tuple[JobPlan, ...]
    source: Source
    parameters: dict[str, Scalar] = {}
    env: dict[str, str] = {}
    secrets: tuple[SecretReference, ...] = ()
    concurrency: Concurrency | None = None
    environments: tuple[EnvironmentPlan, ...] = ()
    max_parallel: int = 0
    """How many jobs may run at once; 0: the worker's own limit."""
    file: str = "forge/pipeline.yaml"
    schema_version: int = 1

    @property
    def digest(self) -> str:
        """The sha256 of the plan's canonical JSON."""
        return digest(self)

    def job(self, name: str) -> JobPlan:
        """Return the job of that name. Raises KeyError."""
        for job in self.jobs:
            if job.name == name:
                return job
        raise KeyError(name)

    def environment(self, name: str) -> EnvironmentPlan:
        """Return the environment of that name. Raises KeyError."""
        for environment in self.environments:
            if environment.name == name:
                return environment
        raise KeyError(name)
