"""Routes that somebody deleted: what a version's manifests hold is made again, what Forge never made is not."""

from __future__ import annotations

from collections.abc import Iterable

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import Kind
from forge.adapters.kubernetes.naming import labels_of
from forge.adapters.kubernetes.objects import Object
from forge.adapters.targets.kubernetes.stored import stored_manifests


async def manifest_of(
    cluster: Cluster, environment: str, versions: Iterable[str], kind: Kind, name: str, namespace: str
) -> Object | None:
    """Return a route to make again, from the manifests of a version that still runs; None where none of them has it.

    It points at the environment's Service, as in the manifests: it can be there a moment before its split is.
    """
    where = namespace or cluster.namespace
    for version in sorted(versions):
        for item in await stored_manifests(cluster, environment, version) or ():
            if _is(item, kind, name, where, cluster.namespace):
                metadata = item["metadata"]
                labels = {**(metadata.get("labels") or {}), **labels_of(environment)}
                return {**item, "metadata": {**metadata, "namespace": where, "labels": labels}}
    return None


def _is(item: Object, kind: Kind, name: str, namespace: str, home: str) -> bool:
    metadata = item.get("metadata") or {}
    group = str(item.get("apiVersion", "")).partition("/")[0]
    same = (group, item.get("kind"), metadata.get("name")) == (kind.api_version.partition("/")[0], kind.name, name)
    return same and (metadata.get("namespace") or home) == namespace
