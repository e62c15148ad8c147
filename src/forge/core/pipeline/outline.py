"""What a plan would do, as data for `forge plan`: waves, gates, and what each deploy does to its environment."""

from __future__ import annotations

from typing import Any

import msgspec

from forge.core.judge.wording import CHECKS_UNUSED, judge_words
from forge.core.pipeline.graph import dependencies
from forge.core.pipeline.order import waves
from forge.core.policy.wording import gate_words
from forge.model.configs import DeployConfig, VerifyConfig
from forge.model.plan import Approval, EnvironmentPlan, JobPlan, Plan, Scalar, StepPlan
from forge.model.policy import GATE_KEYS, ReleasePolicy
from forge.model.strategy import Adaptive, HarmBudget, Strategy, StrategyStep, Threshold
from forge.model.units import format_duration, format_size, format_weight


class DeployOutline(msgspec.Struct, frozen=True):
    """One release: `steps` and `checks` are in words; `minimal_seconds` is what its pauses take at least."""

    environment: str
    artifact: str
    version: str
    strategy: str
    steps: tuple[str, ...]
    checks: tuple[str, ...]
    replicas: int
    minimal_seconds: float
    people: int
    """How often it waits for a person."""
    gates: tuple[str, ...] = ()
    """What the environment's policy asks for, in words."""
    judging: tuple[str, ...] = ()
    """What is set of the environment's judge, in words."""


class StepOutline(msgspec.Struct, frozen=True):
    """One step; `run_on` is `success`, `failure` or `always`."""

    id: str
    kind: str
    name: str
    run_on: str
    when: str
    minimal_seconds: float = 0.0
    deploy: DeployOutline | None = None
    checks: tuple[str, ...] = ()


class JobOutline(msgspec.Struct, frozen=True):
    """One job. `wave` counts from 1; `minimal_seconds` counts waiting that is certain, not work."""

    name: str
    wave: int
    depends_on: tuple[str, ...]
    steps: tuple[StepOutline, ...]
    minimal_seconds: float
    gate: Approval | None = None
    when: str = ""
    environment: str = ""
    concurrency: str = ""


class PlanDocument(msgspec.Struct, frozen=True):
    """What a run would do. `gates` names the jobs that wait for a person; `minimal_seconds` is the longest way
    through the jobs, without the time that people and commands take."""

    name: str
    digest: str
    file: str
    commit: str
    waves: tuple[tuple[str, ...], ...]
    jobs: tuple[JobOutline, ...]
    gates: tuple[str, ...]
    environments: tuple[EnvironmentPlan, ...]
    parameters: dict[str, Scalar]
    secrets: tuple[str, ...]
    max_parallel: int
    minimal_seconds: float


def plan_document(plan: Plan) -> PlanDocument:
    """Return what a run of the plan would do."""
    rows = waves(dependencies(plan))
    wave = {name: index + 1 for index, row in enumerate(rows) for name in row}
    jobs = tuple(_job(job, wave[job.name], plan) for job in plan.jobs)
    done: dict[str, float] = {}
    for job in jobs:
        done[job.name] = job.minimal_seconds + max((done[name] for name in job.depends_on), default=0.0)
    used = {step.deploy.environment for job in jobs for step in job.steps if step.deploy}
    return PlanDocument(
        name=plan.name,
        digest=plan.digest,
        file=plan.file,
        commit=plan.source.commit,
        waves=tuple(tuple(row) for row in rows),
        jobs=jobs,
        gates=tuple(job.name for job in plan.jobs if job.gate or any(step.kind == "approve" for step in job.steps)),
        environments=tuple(environment for environment in plan.environments if environment.name in used),
        parameters=plan.parameters,
        secrets=tuple(secret.name for secret in plan.secrets),
        max_parallel=plan.max_parallel,
        minimal_seconds=max(done.values(), default=0.0),
    )


def _job(job: JobPlan, wave: int, plan: Plan) -> JobOutline:
    steps = tuple(_step(step, plan) for step in job.steps)
    return JobOutline(
        name=job.name,
        wave=wave,
        depends_on=job.depends_on,
        steps=steps,
        minimal_seconds=sum(step.minimal_seconds for step in steps if step.run_on != "failure" and not step.when),
        gate=job.gate,
        when=job.when,
        environment=job.environment,
        concurrency=job.concurrency.group if job.concurrency else "",
    )


def _step(step: StepPlan, plan: Plan) -> StepOutline:
    seconds, deploy = 0.0, None
    checks: tuple[str, ...] = ()
    if step.kind == "deploy":
        deploy = _deploy(msgspec.convert(step.config, DeployConfig), plan)
        seconds = deploy.minimal_seconds
    elif step.kind == "verify":
        config = msgspec.convert(step.config, VerifyConfig)
        seconds = config.for_seconds
        checks = tuple(map(check_words, config.thresholds)) if config.workload is None else ()
    return StepOutline(step.id, step.kind, step.name, step.run_on, step.when, seconds, deploy, checks)


def _deploy(config: DeployConfig, plan: Plan) -> DeployOutline:
    strategy = config.strategy
    judge = next((each for each in plan.environments if each.name == config.environment), EnvironmentPlan(""))
    thresholds = () if judge.judge in CHECKS_UNUSED else strategy.thresholds
    return DeployOutline(
        environment=config.environment,
        artifact=config.artifact,
        version=config.version,
        strategy=strategy.name,
        steps=strategy_words(strategy),
        checks=tuple(map(check_words, thresholds)),
        replicas=_replicas(config, plan),
        minimal_seconds=minimal_seconds(strategy) if config.wait else 0.0,
        people=sum(bool(step.until_resumed or step.approval) for step in strategy.steps) + (not strategy.auto_promote),
        gates=_gates(config.environment, plan),
        judging=judge_words(judge.judge, judge.judge_config),
    )


def _gates(environment: str, plan: Plan) -> tuple[str, ...]:
    for each in plan.environments:
        if each.name == environment:
            given = {key: value for key, value in each.policy.items() if key in GATE_KEYS}
            return gate_words(msgspec.convert(given, ReleasePolicy))
    return ()


def _replicas(config: DeployConfig, plan: Plan) -> int:
    for environment in plan.environments:
        if environment.name == config.environment:
            merged: dict[str, Any] = {**environment.target_config, **config.target}
            return int(merged.get("replicas", 0))
    return 0


def minimal_seconds(strategy: Strategy) -> float:
    """Return what a release takes at least: its pauses and its bake time."""
    return sum(step.pause or 0.0 for step in strategy.steps) + strategy.bake


def strategy_words(strategy: Strategy) -> tuple[str, ...]:
    """Return what a release does, step by step, in words."""
    rows = [_strategy_step(step) for step in strategy.steps]
    if strategy.adaptive is not None:
        rows += _adaptive_words(strategy.adaptive)
    if strategy.name == "rolling":
        away = f", up to {strategy.max_unavailable} away" if strategy.max_unavailable else ", none away"
        rows.append(f"replace replicas one after another: {strategy.max_surge} more at a time{away}")
    elif strategy.name == "blue_green":
        rows.append("bring up all replicas beside the old ones")
    if not strategy.auto_promote:
        rows.append("wait for a person to promote")
    if strategy.name != "rolling":
        rows.append("100% of traffic")
    if strategy.bake:
        rows.append(f"watch for {format_duration(strategy.bake)}")
    if strategy.harm_budget is not None:
        rows.append(f"roll back at once, whatever the judge says, when it has cost {_budget(strategy.harm_budget)}")
    return tuple(rows)


def _budget(budget: HarmBudget) -> str:
    parts = []
    if budget.failed_requests is not None:
        parts.append(f"{budget.failed_requests:g} more failed requests than stable would have")
    if budget.outage is not None:
        parts.append(f"as much as {format_duration(budget.outage)} of full outage")
    return " or ".join(parts)


def _adaptive_words(adaptive: Adaptive) -> list[str]:
    first = (
        f"at most {format_weight(adaptive.start)} of traffic, so that no more than {adaptive.budget:g} requests fail "
        "before it is stopped, should all of them fail"
    )
    last = (
        f"wait until {adaptive.tolerance * 100:g}% more errors than stable are excluded; after "
        f"{format_duration(adaptive.decide_within)} a person decides"
    )
    return [first, f"more as the evidence allows, up to {format_weight(adaptive.most)}", last]


def _strategy_step(step: StrategyStep) -> str:
    if step.weight is not None:
        return f"{format_weight(step.weight)} of traffic"
    if step.until_resumed:
        return "wait until a person resumes"
    if step.approval is not None:
        people = step.approval.get("required", 1)
        asked = "approval" if people == 1 else f"approval of {people} people"
        return f"wait for {asked}" + (f": {step.approval['message']}" if step.approval.get("message") else "")
    return f"wait {format_duration(step.pause or 0.0)}"


def check_words(threshold: Threshold) -> str:
    """Return a rule as people say it: `more than 5% of requests answered 5xx in 5m 0s`."""
    over = format_duration(threshold.over).removesuffix(" 0s").removesuffix(" 0m")
    if threshold.metric == "error_rate":
        return f"more than {threshold.above * 100:g}% of requests answered 5xx in {over}"
    if threshold.metric == "latency":
        return f"p{threshold.quantile * 100:g} latency above {threshold.above * 1000:g} ms in {over}"
    if threshold.metric == "cpu":
        return f"CPU above {threshold.above * 100:g}% of a core per replica in {over}"
    if threshold.metric == "value":
        return f"{threshold.name} above {threshold.above:g} in {over}"
    return f"memory above {format_size(threshold.above)} per replica in {over}"
