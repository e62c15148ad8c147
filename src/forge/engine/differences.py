"""What the deploy steps of a plan would do to their clusters, as `forge plan` shows it. Nothing is written there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from forge.core.pipeline import expressions
from forge.core.pipeline.variables import has_expression
from forge.engine.step_environment import base
from forge.model.configs import DeployConfig
from forge.model.errors import ForgeError, InvalidConfiguration
from forge.model.plan import EnvironmentPlan, JobPlan, Plan, StepPlan

if TYPE_CHECKING:
    from forge.adapters.kubernetes.diffing import ObjectChange

PATIENCE = 30.0
"""Seconds that one cluster may take: a plan is looked at, and waited for."""
_MADE_BY_THE_RUN = "its manifests are made by the run"


class StepDifferences(msgspec.Struct, frozen=True):
    """What one deploy step would do. `problem` says why it is not known: the cluster was not reached, or what is
    deployed is made by the run itself."""

    job: str
    step: str
    environment: str
    cluster: str = ""
    namespace: str = ""
    compared_with: str = ""
    changes: tuple[ObjectChange, ...] = ()
    problem: str = ""


def deploys_to_clusters(plan: Plan) -> bool:
    """Tell whether any step of the plan does."""
    return any(True for _ in _steps(plan))


async def differences(plan: Plan, root: Path) -> list[StepDifferences]:
    """Return what each deploy step to a cluster would do, in the plan's order. Never raises for what a cluster does."""
    return [await _differences(plan, root, job, step, environment) for job, step, environment in _steps(plan)]


def _steps(plan: Plan) -> list[tuple[JobPlan, StepPlan, EnvironmentPlan]]:
    targets = {environment.name: environment for environment in plan.environments if environment.target == "kubernetes"}
    return [
        (job, step, targets[step.config["environment"]])
        for job in plan.jobs
        for step in job.steps
        if step.kind == "deploy" and step.config["environment"] in targets
    ]


async def _differences(
    plan: Plan, root: Path, job: JobPlan, step: StepPlan, environment: EnvironmentPlan
) -> StepDifferences:
    told = StepDifferences(job.name, step.name, environment.name)
    known = {"params": plan.parameters, "matrix": job.matrix}
    config = msgspec.convert(_filled(step.config, known), DeployConfig)
    folder = root / _fill(step.working_directory or job.working_directory, known)
    if config.artifact or not _is_there(folder, {**environment.target_config, **config.target}):
        return msgspec.structs.replace(told, problem=_MADE_BY_THE_RUN)
    try:
        async with asyncio.timeout(PATIENCE):
            return await _asked(told, environment, config, root, folder)
    except TimeoutError:
        return msgspec.structs.replace(told, problem=f"the cluster was not reached within {PATIENCE:.0f} s")
    except InvalidConfiguration as wrong:
        first = wrong.diagnostics[0]
        return msgspec.structs.replace(told, problem=f"{first.file}:{first.line}: {first.message}")
    except ForgeError as error:
        hint = f"; {error.hint}" if error.hint else ""
        return msgspec.structs.replace(told, problem=f"{error.message}{hint}")


async def _asked(
    told: StepDifferences, environment: EnvironmentPlan, config: DeployConfig, root: Path, folder: Path
) -> StepDifferences:
    from forge.adapters.kubernetes.connection import Cluster
    from forge.adapters.kubernetes.objects import split_objects
    from forge.adapters.kubernetes.sources import render
    from forge.adapters.steps.deploy_kubernetes import full_size
    from forge.adapters.targets.kubernetes.planned import planned_release
    from forge.adapters.targets.kubernetes.settings import target_config

    target = target_config({**environment.target_config, **config.target})
    objects = await render(target, base=folder, root=root, env=base(), say=lambda _line: None)
    parts = split_objects(objects, target.workload, target.service)
    cluster = Cluster(target.access)
    try:
        planned = await planned_release(
            cluster, environment.name, parts,
            replicas=full_size(target, parts), progress_deadline=target.progress_deadline,
        )  # fmt: skip
    finally:
        await cluster.close()
    return msgspec.structs.replace(
        told,
        cluster=planned.cluster,
        namespace=planned.namespace,
        compared_with=planned.compared_with,
        changes=planned.changes,
    )


def _is_there(folder: Path, target: Mapping[str, Any]) -> bool:
    """Tell whether what is deployed stands in the repository already, under a name that is known."""
    chart = (target.get("helm") or {}).get("chart", "")
    if chart:
        return not has_expression(chart)
    paths = [*target.get("manifests", ()), *([target["kustomize"]] if target.get("kustomize") else [])]
    return bool(paths) and all(not has_expression(path) and (folder / path).exists() for path in paths)


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return _fill(value, known)
    if isinstance(value, Mapping):
        return {name: _filled(inner, known) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(inner, known) for inner in value]
    return value


def _fill(text: str, known: Mapping[str, Any]) -> str:
    """Return a text with what is known before a run; the rest is named, so that people see what will stand there."""

    def value(expression: str) -> str:
        if any(path[0] not in known for path in expressions.references(expression)):
            return f"<{expression.strip()}>"
        try:
            return expressions.interpolate(f"${{{{ {expression} }}}}", known)
        except expressions.ExpressionError:
            return f"<{expression.strip()}>"

    return expressions.replace_fragments(text, value) if has_expression(text) else text
