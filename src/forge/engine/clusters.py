"""What people do with environments on a cluster beside releasing: give one back, and find what was left behind."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import Fence, token_of
from forge.adapters.kubernetes.kinds import CONFIG_MAP
from forge.adapters.routers.base import Restorable
from forge.adapters.targets.kubernetes.environment import open_kubernetes
from forge.adapters.targets.kubernetes.handback import release_control
from forge.adapters.targets.kubernetes.orphans import Orphan, find_orphans, remove_orphan
from forge.adapters.targets.kubernetes.settings import target_config
from forge.core.release.state import EnvironmentState
from forge.engine.environments import KIND, EnvironmentMachine
from forge.engine.project import Project
from forge.model.configs import KubernetesAccess
from forge.store.contract import Store

_MANY = 1000


class LeftBehind(msgspec.Struct, frozen=True):
    """An object of Forge's in a cluster that no environment of this database needs."""

    access: KubernetesAccess
    cluster: str
    orphan: Orphan

    @property
    def title(self) -> str:
        """How people call it."""
        return f"{self.orphan.kind} {self.orphan.name} in namespace {self.orphan.namespace} of {self.cluster}"


async def hand_back(project: Project, state: EnvironmentState) -> list[str]:
    """Give a Kubernetes environment back to whoever deploys next; return what was done, in words.

    Its machine must be down, so that nobody works on it. Called again after it was cut off, it goes on. Raises
    DependencyFailed, StillRunning when the plain workload does not get ready, UsageError without a stable version.
    """
    cluster = Cluster(target_config(state.plan.target_config).access)
    world = open_kubernetes(state.plan, project.environment_folder(state.name))
    try:
        record = await cluster.get(CONFIG_MAP, Fence(cluster, state.name).name)
        token = max(0, token_of(record)) if record is not None else 0
        router = world.router

        async def restore() -> None:
            if isinstance(router, Restorable):
                await router.hand_back(token)

        return await release_control(cluster, state.name, state.stable, token, restore_routes=restore)
    finally:
        await world.target.close()
        await cluster.close()


async def left_behind(store: Store) -> list[LeftBehind]:
    """Return what is labelled as Forge's where the database's environments are, and belongs to none of them.

    Raises DependencyFailed for a cluster that does not answer.
    """
    known: dict[KubernetesAccess, dict[str, list[str]]] = {}
    for header in await store.machines.newest(KIND, limit=_MANY):
        record = await store.machines.load(header.id)
        if record is None:
            continue
        state = EnvironmentMachine.load(record)
        if state.plan.target == "kubernetes":
            access = target_config(state.plan.target_config).access
            known.setdefault(access, {})[state.name] = [*state.versions]
    return [each for access, versions in known.items() for each in await _orphans(access, versions)]


async def remove_left_behind(found: LeftBehind) -> bool:
    """Remove one, if it is still the same object; False when it is not there any more."""
    cluster = Cluster(found.access)
    try:
        return await remove_orphan(cluster, found.orphan)
    finally:
        await cluster.close()


async def _orphans(access: KubernetesAccess, versions: Mapping[str, list[str]]) -> list[LeftBehind]:
    cluster = Cluster(access)
    try:
        found = await find_orphans(cluster, versions)
        return [LeftBehind(access, cluster.name, orphan) for orphan in found]
    finally:
        await cluster.close()
