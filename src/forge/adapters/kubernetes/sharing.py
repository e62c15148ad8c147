"""One connection and one watch for all environments of a cluster that one process tends."""

from __future__ import annotations

from collections.abc import Callable

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import Kind
from forge.adapters.kubernetes.watching import Object, Watched
from forge.model.configs import KubernetesAccess

_CLUSTERS: dict[KubernetesAccess, Cluster] = {}
_WATCHES: dict[tuple[int, Kind, str], Watched] = {}


def shared_cluster(access: KubernetesAccess) -> Cluster:
    """Return this process's connection for an access; made once, connected when it is first used."""
    return _CLUSTERS.setdefault(access, Cluster(access))


def shared_watch(cluster: Cluster, kind: Kind, trim: Callable[[Object], Object] | None = None) -> Watched:
    """Return this process's watch of a kind in the cluster's namespace. `trim` counts for the first who asks."""
    key = (id(cluster), kind, cluster.namespace)
    watched = _WATCHES.get(key)
    if watched is None:
        watched = _WATCHES[key] = Watched(cluster, kind, trim=trim)
    return watched


def note_written(cluster: Cluster, kind: Kind, item: Object) -> None:
    """Let whoever watches know an object as a write returned it, before its event comes: own changes are no news."""
    watched = _WATCHES.get((id(cluster), kind, cluster.namespace))
    if watched is not None:
        watched.take(item)


async def close_shared() -> None:
    """End every shared watch and connection of this process."""
    watches, clusters = [*_WATCHES.values()], [*_CLUSTERS.values()]
    _WATCHES.clear()
    _CLUSTERS.clear()
    for watched in watches:
        await watched.close()
    for cluster in clusters:
        await cluster.close()
