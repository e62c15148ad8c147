"""`verify` and `rollback` of a workload that the pipeline deploys by itself, with kubectl or anything else."""

from __future__ import annotations

import asyncio
import math
import time

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.rollouts import undo, wait_for_rollout
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.prometheus_api import PrometheusApi, number
from forge.adapters.steps.base import StepContext, StepResult
from forge.model.configs import RollbackConfig, VerifyConfig, WorkloadConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.units import format_duration

UNDO_PATIENCE = 600.0


async def verify_workload(context: StepContext, config: VerifyConfig, workload: WorkloadConfig) -> StepResult:
    """Wait for the rollout, then hold the query's answer against its limit for as long as asked.

    Fails when the rollout does not come to its end or the limit is exceeded, and then undoes it if it is told to.
    What cannot be measured until the timeout is an error: neither a pass nor a failure.
    """
    cluster = Cluster(workload.access)
    try:
        late = await wait_for_rollout(cluster, workload.name, config.timeout, context.say)
        result = StepResult("failed", late) if late else await _measured(context, config, workload)
        if result.outcome != "failed" or not config.rollback:
            return result
        gone = await _undone(context, cluster, workload, "")
        return StepResult("failed", f"{result.message}; {gone.message}", outputs={**result.outputs, **gone.outputs})
    finally:
        await cluster.close()


async def roll_back_workload(context: StepContext, config: RollbackConfig, workload: WorkloadConfig) -> StepResult:
    """Go back to an earlier revision of the workload, and wait until it is rolled out."""
    cluster = Cluster(workload.access)
    try:
        return await _undone(context, cluster, workload, config.to)
    finally:
        await cluster.close()


async def _undone(context: StepContext, cluster: Cluster, workload: WorkloadConfig, to: str) -> StepResult:
    try:
        revision = await undo(cluster, workload.name, to, context.run)
    except UsageError as refused:
        return StepResult("failed", f"{refused.message}{f' ({refused.hint})' if refused.hint else ''}")
    context.say(f"{workload.name} goes back to revision {revision.number}")
    late = await wait_for_rollout(cluster, workload.name, UNDO_PATIENCE, context.say)
    if late:
        return StepResult("failed", f"it was told to go back to revision {revision.number}, but {late}")
    message = f"{workload.name} is back at revision {revision.number}"
    context.say(message)
    return StepResult("succeeded", message, outputs={"revision": revision.number})


async def _measured(context: StepContext, config: VerifyConfig, workload: WorkloadConfig) -> StepResult:
    if not workload.query:
        return StepResult("succeeded", f"{workload.name} is rolled out; nothing more was asked for")

    async def secret(name: str) -> str:
        if name not in context.env:
            raise DependencyFailed(f"secret `{name}` is not known here")
        return context.env[name]

    client = StoreClient("prometheus", HttpConfig(**workload.http), secret)
    api = PrometheusApi(client)
    began = time.monotonic()
    problem = ""
    try:
        while True:
            value, problem = await _asked(api, workload.query, context.now())
            waited = time.monotonic() - began
            words = (
                problem
                if value is None
                else f"{_percent(value)} of requests fail, the limit is {_percent(workload.above)}"
            )
            context.say(words)
            if value is not None and value > workload.above:
                return StepResult("failed", f"{_percent(value)} of requests fail, more than {_percent(workload.above)}",
                                  outputs={"error_rate": value})  # fmt: skip
            if value is not None and waited >= config.for_seconds:
                return StepResult("succeeded", words, outputs={"error_rate": value})
            if value is None and waited >= max(config.timeout, config.for_seconds):
                return StepResult("error", f"nothing could be judged within {format_duration(waited)}: {problem}")
            await asyncio.sleep(config.interval)
    finally:
        await api.close()


async def _asked(api: PrometheusApi, query: str, at: float) -> tuple[float | None, str]:
    """Return the largest value of the answer, or why there is none."""
    try:
        points = await api.vector(query, at)
    except DependencyFailed as error:
        return None, error.message
    values = [number(point.value[1]) for point in points if point.value is not None]
    told = [value for value in values if not math.isnan(value)]
    if not told:
        return None, "Prometheus has no data for the query" if not values else "the query's answer is not a number"
    return max(told), ""


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.3g}%"
