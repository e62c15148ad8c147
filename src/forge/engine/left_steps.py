"""Jobs in clusters of steps whose run is over: a cluster that did not answer when they were to end leaves them."""

from __future__ import annotations

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.runners.kubernetes_orphans import OrphanedJob, find_orphans
from forge.engine.plans import Plans
from forge.engine.runs import KIND, load_run
from forge.model.configs import KubernetesAccess
from forge.model.errors import CorruptData
from forge.model.plan import Plan
from forge.store.contract import Store

_RUNS = 100
_OPEN = ("queued", "running", "waiting")


class LeftStep(msgspec.Struct, frozen=True):
    """A Job that goes on in `cluster` though nobody waits for it."""

    cluster: str
    orphan: OrphanedJob


async def used_clusters(store: Store) -> set[KubernetesAccess]:
    """Return where the newest runs have had pods or Jobs."""
    plans = Plans(store.documents)
    found: set[KubernetesAccess] = set()
    for header in await store.machines.newest(KIND, limit=_RUNS):
        try:
            found |= accesses(await plans.get(load_run(header).plan_digest))
        except CorruptData:
            continue  # a plan that is gone or of another Forge is told elsewhere
    return found


def accesses(plan: Plan) -> set[KubernetesAccess]:
    """Return the clusters that a plan's commands and Jobs run in, as far as no expression names them."""
    steps = [step for job in plan.jobs for step in job.steps if step.kind == "job"]
    named = {str(step.config.get("environment") or "") for step in steps}
    given = [job.runner_config.get("access") or {} for job in plan.jobs if job.runner == "kubernetes"]
    given += [step.config.get("access") or {} for step in steps if not step.config.get("environment")]
    given += [one.target_config.get("access") or {} for one in plan.environments if one.name in named]
    return {msgspec.convert(one, KubernetesAccess) for one in given if "${{" not in str(one)}


async def left_steps(store: Store, scope: str) -> list[LeftStep]:
    """Return the Jobs of the project `scope` that go on though their run does not. Raises DependencyFailed."""
    clusters = await used_clusters(store)
    unfinished = {record.id for record in await store.machines.newest(KIND, statuses=_OPEN, limit=10_000)}
    found: list[LeftStep] = []
    for access in clusters:
        cluster = Cluster(access)
        try:
            orphans = await find_orphans(cluster, scope, lambda run: run in unfinished)
            found += [LeftStep(cluster.name, orphan) for orphan in orphans]
        finally:
            await cluster.close()
    return found
