"""What `forge plan` shows: what would run, in which order, at which gates, and what the deploys would do."""

from __future__ import annotations

from typing import Any

import msgspec

from forge.model.configs import DeployConfig
from forge.model.plan import JobPlan, Plan, Scalar, StepPlan
from forge.views.release import describe_strategy


class PlannedStep(msgspec.Struct, frozen=True):
    """A step that would run."""

    id: str
    name: str
    kind: str
    run_on: str = "success"
    when: str = ""


class PlannedDeploy(msgspec.Struct, frozen=True):
    """A release that a job would start."""

    environment: str
    strategy: str
    artifact: str = ""
    version: str = ""


class PlannedGate(msgspec.Struct, frozen=True):
    """A place where a person is asked."""

    message: str
    required: int
    approvers: tuple[str, ...]
    inputs: tuple[str, ...] = ()


class PlannedJob(msgspec.Struct, frozen=True):
    """A job that would run. `wave` counts from 1: jobs of one wave depend only on earlier ones."""

    name: str
    wave: int
    depends_on: tuple[str, ...]
    steps: tuple[PlannedStep, ...]
    gate: PlannedGate | None = None
    when: str = ""
    deploys: tuple[PlannedDeploy, ...] = ()
    concurrency: str = ""


class PlannedEnvironment(msgspec.Struct, frozen=True):
    """An environment that the plan knows."""

    name: str
    target: str
    router: str
    replicas: int | None = None


class PlanView(msgspec.Struct, frozen=True):
    """A whole plan; `digest` pins it."""

    name: str
    digest: str
    file: str
    jobs: tuple[PlannedJob, ...]
    environments: tuple[PlannedEnvironment, ...] = ()
    parameters: dict[str, Scalar] = {}
    secrets: tuple[str, ...] = ()
    commit: str = ""
    ref: str = ""
    dirty: bool = False

    @property
    def summary(self) -> str:
        """The plan in one line."""
        waves = max((job.wave for job in self.jobs), default=0)
        gates = sum(job.gate is not None for job in self.jobs)
        deploys = sum(len(job.deploys) for job in self.jobs)
        return (
            f"{_count(len(self.jobs), 'job')} in {_count(waves, 'wave')}, "
            f"{_count(gates, 'gate')}, {_count(deploys, 'release')}"
        )


def plan_view(plan: Plan) -> PlanView:
    """Return what to show of a plan."""
    waves = _waves(plan.jobs)
    return PlanView(
        name=plan.name,
        digest=plan.digest,
        file=plan.file,
        jobs=tuple(_planned_job(job, waves[job.name]) for job in plan.jobs),
        environments=tuple(
            PlannedEnvironment(
                environment.name,
                environment.target,
                environment.router,
                _replicas(environment.target_config),
            )
            for environment in plan.environments
        ),
        parameters=plan.parameters,
        secrets=tuple(secret.name for secret in plan.secrets),
        commit=plan.source.commit,
        ref=plan.source.ref,
        dirty=plan.source.dirty,
    )


def _replicas(config: dict[str, Any]) -> int | None:
    replicas = config.get("replicas")
    return replicas if isinstance(replicas, int) else None


def _waves(jobs: tuple[JobPlan, ...]) -> dict[str, int]:
    waves: dict[str, int] = {}
    for job in jobs:  # the plan's order has every job after what it depends on
        waves[job.name] = 1 + max((waves.get(name, 0) for name in job.depends_on), default=0)
    return waves


def _planned_job(job: JobPlan, wave: int) -> PlannedJob:
    gate = job.gate
    return PlannedJob(
        name=job.name,
        wave=wave,
        depends_on=job.depends_on,
        steps=tuple(PlannedStep(step.id, step.name, step.kind, step.run_on, step.when) for step in job.steps),
        gate=None
        if gate is None
        else PlannedGate(gate.message, gate.required, gate.approvers, tuple(field.name for field in gate.inputs)),
        when=job.when,
        deploys=tuple(_planned_deploy(step) for step in job.steps if step.kind == "deploy"),
        concurrency=job.concurrency.group if job.concurrency else "",
    )


def _planned_deploy(step: StepPlan) -> PlannedDeploy:
    config = msgspec.convert(step.config, DeployConfig)
    return PlannedDeploy(config.environment, describe_strategy(config.strategy), config.artifact, config.version)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
