"""`kubernetes`: versions as workloads of a cluster, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import Fence
from forge.adapters.kubernetes.kinds import AUTOSCALER, POD, WORKLOADS, Kind
from forge.adapters.kubernetes.naming import environment_label
from forge.adapters.kubernetes.objects import Object, Parts, split_objects
from forge.adapters.kubernetes.sharing import shared_watch
from forge.adapters.targets.kubernetes.changing import Changes
from forge.adapters.targets.kubernetes.counting import VersionSeen, seen_versions, trimmed_pod
from forge.adapters.targets.kubernetes.edits import trimmed_workload
from forge.adapters.targets.kubernetes.inplace import InPlace, seen_in_place
from forge.adapters.targets.kubernetes.inquiring import Inquiry
from forge.adapters.targets.kubernetes.logs import read_logs
from forge.adapters.targets.kubernetes.settings import target_config
from forge.adapters.targets.kubernetes.shared import SharedObjects
from forge.adapters.targets.kubernetes.stored import read_manifests, stored_manifests
from forge.adapters.targets.kubernetes.telling import told
from forge.adapters.targets.kubernetes.wishes import Wish
from forge.model.errors import ForgeError
from forge.model.traffic import ReplicaCount, Version


class KubernetesTarget:
    """Runs each version as a workload of its own in one namespace; see Target for what every call promises.

    Deployments live side by side. A StatefulSet or DaemonSet has one identity a pod, so that its versions share the
    one workload there is, which rolls in place (`inplace.py`).
    """

    def __init__(self, cluster: Cluster, environment: str, defaults: dict[str, Any]) -> None:
        """`defaults` is the environment's target configuration, for versions that do not pin one of their own."""
        self._cluster, self._environment = cluster, environment
        self._defaults = defaults
        self._fence = Fence(cluster, environment)
        self._shared = SharedObjects(cluster, environment, self._fence.name)
        self._changes = Changes(cluster, environment, self._shared)
        self._inquiry = Inquiry(cluster)
        self._parts: dict[str, tuple[str | None, Parts]] = {}
        self._kind: Kind | None = None
        self._lock = asyncio.Lock()

    async def ensure(self, version: Version, replicas: int, artifact: str | None, token: int) -> None:
        """Want `replicas` of `version`; `artifact` holds its rendered manifests. See Target."""
        pinned = {**self._defaults, **version.config}
        config = target_config(pinned)
        async with self._lock:
            await self._fence.pass_with(token)
            parts = await self._parts_of(version, config.workload, config.service, artifact)
            wish = Wish(version, config, replicas, token, parts)
            kind = await self._workload_kind(parts)
            if kind.name == "Deployment":
                await self._changes.ensure(wish)
            else:
                await InPlace(self._cluster, self._environment, self._shared, kind).ensure(wish)

    async def remove(self, version_id: str, token: int) -> None:
        """Stop a version and delete what was its own. See Target."""
        async with self._lock:
            await self._fence.pass_with(token)
            known = self._parts.get(version_id)
            kind = await self._workload_kind(known[1] if known else None)
            if kind.name == "Deployment":
                await self._changes.remove(version_id, token)
            else:
                await InPlace(self._cluster, self._environment, self._shared, kind).remove(version_id, token)
            self._parts.pop(version_id, None)

    async def observe(self) -> dict[str, ReplicaCount]:
        """Return what runs, from what was watched. See Target."""
        versions = await self._look()
        return told(versions, await self._autoscalers(), self._inquiry)

    def logs(self, version_id: str | None, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """Yield log lines of pods. See Target."""
        return read_logs(self._cluster, self._look, version_id, follow=follow, tail=tail)

    async def close(self) -> None:
        """Stop asking the cluster; watches that others share end by themselves when nobody reads them."""
        await self._inquiry.close()

    async def _look(self) -> dict[str, VersionSeen]:
        kind = await self._workload_kind(None)
        workloads, pods = await asyncio.gather(
            shared_watch(self._cluster, kind, trimmed_workload).objects(),
            shared_watch(self._cluster, POD, trimmed_pod).objects(),
        )
        seen = seen_versions if kind.name == "Deployment" else seen_in_place
        return seen(workloads, pods, environment_label(self._environment))

    async def _autoscalers(self) -> list[Object]:
        try:
            return await shared_watch(self._cluster, AUTOSCALER).objects()
        except ForgeError:
            return []  # who may not see them has none to follow; `ensure` tells what is missing

    async def _workload_kind(self, parts: Parts | None) -> Kind:
        """Return the kind of the environment's workload: of the manifests, else as remembered in the cluster."""
        if parts is not None:
            self._kind = WORKLOADS[str(parts.workload["kind"])]
        if self._kind is None:
            name = (await self._shared.record()).workload or str(self._defaults.get("workload") or "")
            self._kind = WORKLOADS.get(name.partition("/")[0], WORKLOADS["Deployment"])
        return self._kind

    async def _parts_of(self, version: Version, workload: str, service: str, artifact: str | None) -> Parts | None:
        """Return a version's objects: from its artifact, else as they are stored in the cluster."""
        known = self._parts.get(version.id)
        # The same name may come with other manifests: of a version that failed, and was removed before.
        if known is not None and artifact in {None, known[0]}:
            return known[1]
        objects = (
            await asyncio.to_thread(read_manifests, artifact)
            if artifact is not None
            else await stored_manifests(self._cluster, self._environment, version.id)
        )
        if objects is None:
            return None
        parts = split_objects(objects, workload, service)
        self._parts[version.id] = (artifact, parts)
        return parts


def open_target(cluster: Cluster, environment: str, config: dict[str, Any]) -> KubernetesTarget:
    """Return an environment's target. Raises UsageError for a configuration that is wrong; connects to nothing."""
    target_config(config)
    return KubernetesTarget(cluster, environment, config)
