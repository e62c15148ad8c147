"""Jobs of steps that nobody waits for any more: found by their labels, removed by who decides to."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import JOB
from forge.adapters.kubernetes.naming import annotation
from forge.adapters.kubernetes.pods import job_end
from forge.adapters.runners.kubernetes_job import end_job
from forge.adapters.runners.kubernetes_objects import KEY, SCOPE, hash_of

GRACE = 10.0


class OrphanedJob(msgspec.Struct, frozen=True):
    """A Job of a step whose run is over: it still runs, or waits to."""

    name: str
    namespace: str
    run: str
    key: str


async def find_orphans(cluster: Cluster, scope: str, goes_on: Callable[[str], bool]) -> list[OrphanedJob]:
    """Return the Jobs of the project `scope` that have not ended and whose run does not go on. Ones that have ended
    expire by themselves, or were kept on purpose."""
    jobs, _ = await cluster.objects(JOB, labels=f"{SCOPE}={hash_of(scope)}")
    found = []
    for job in jobs:
        key = annotation(job, KEY)
        run = key.partition("/")[0]
        if not job_end(job)[0] and not goes_on(run):
            metadata = job["metadata"]
            found.append(OrphanedJob(str(metadata["name"]), str(metadata.get("namespace") or ""), run, key))
    return found


async def remove_orphan(cluster: Cluster, orphan: OrphanedJob) -> None:
    """Delete a Job with its pod and its Secret; return when they are gone."""
    await end_job(cluster, orphan.name, GRACE, orphan.namespace)
