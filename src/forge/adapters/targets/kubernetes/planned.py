"""What a release would do to a cluster, found out without doing it: the apiserver plays every apply through.

A new version gets objects of its own, so what is told is how they differ from those of the version that serves now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from forge.adapters.kubernetes import errors
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.diffing import ObjectChange, change_of
from forge.adapters.kubernetes.fencing import Fence
from forge.adapters.kubernetes.kinds import WORKLOADS
from forge.adapters.kubernetes.naming import (
    ENVIRONMENT,
    MANAGED_BY,
    MANAGER,
    environment_label,
    label,
    labels_of,
    name_for_version,
    selector,
    version_slug,
)
from forge.adapters.kubernetes.objects import (
    Object,
    Parts,
    key_of,
    mapping,
    prunable,
    references,
    split_objects,
    with_references,
)
from forge.adapters.targets.kubernetes.counting import seen_versions
from forge.adapters.targets.kubernetes.shared import SharedObjects, shared_of
from forge.adapters.targets.kubernetes.stored import stored_manifests
from forge.adapters.targets.kubernetes.versions import objects_of

_NOBODY = 0
_PROBE = "forge-plan"
"""The version that the workload is tried as; nothing of that name is ever written."""


class PlannedRelease(msgspec.Struct, frozen=True):
    """What a release would do. `compared_with`: the version whose own objects the new ones are held against; empty:
    none is there."""

    cluster: str
    namespace: str
    compared_with: str
    changes: tuple[ObjectChange, ...]


async def planned_release(
    cluster: Cluster, environment: str, parts: Parts, *, replicas: int, progress_deadline: float = 600.0
) -> PlannedRelease:
    """Return what a release of these objects would do. Writes nothing. Raises DependencyFailed."""
    plan = _Planned(cluster, environment, parts)
    live = await plan.find_serving()
    found = [
        await plan.workload(live, replicas, progress_deadline),
        *[await plan.mounted(item) for item in parts.mounted],
        *[await plan.shared(item) for item in shared_of(parts)],
        *([await plan.autoscaler(parts.autoscaler)] if parts.autoscaler else []),
        *[await plan.route(item) for item in parts.routes],
        *await plan.pruned(),
    ]
    return PlannedRelease(cluster.name, cluster.namespace, plan.version, tuple(found))


class _Planned:
    """Looks at one environment."""

    def __init__(self, cluster: Cluster, environment: str, parts: Parts) -> None:
        self._cluster, self._environment, self._parts = cluster, environment, parts
        self._label = environment_label(environment)
        self._shared = SharedObjects(cluster, environment, Fence(cluster, environment).name)
        self.version = ""
        self._serving: Parts | None = None

    async def find_serving(self) -> Object | None:
        """Return the workload that carries the most; without any of Forge's, the one that would be adopted."""
        kind = WORKLOADS[self._parts.workload["kind"]]
        workloads, _ = await self._cluster.objects(kind, labels=selector(labels_of(self._environment)))
        versions = seen_versions(workloads, (), self._label)
        if not versions:
            return await self._cluster.get(kind, str(self._parts.workload["metadata"]["name"]))
        serving = max(versions.values(), key=lambda seen: (seen.wanted, seen.version_id))
        self.version = serving.version_id
        stored = await stored_manifests(self._cluster, self._environment, self.version)
        if stored is not None and serving.workload is not None:
            self._serving = split_objects(stored, (await self._shared.record()).workload)
        return serving.workload

    async def workload(self, live: Object | None, replicas: int, progress_deadline: float) -> ObjectChange:
        """Try the new version's workload as one of its own, and hold it against the one that serves now."""
        title = key_of(self._parts.workload).title
        if self._parts.workload["kind"] != "Deployment":
            return await self._in_place(title, live)
        asked = None if self._parts.autoscaler else replicas
        made = objects_of(
            self._parts, self._environment, _PROBE, replicas=asked, token=_NOBODY, progress_deadline=progress_deadline
        )
        try:
            tried = await self._cluster.apply(made.workload, dry_run=True)
        except (errors.Refused, errors.NotThere) as refused:
            return ObjectChange(title, "refused", note=refused.message)
        if live is None:
            return ObjectChange(title, "new")
        before = self._by_their_names(live, version_slug(self.version) if self.version else "")
        after = self._by_their_names(tried, version_slug(_PROBE))
        for item in (before, after):
            item["metadata"] = {**item["metadata"], "name": key_of(self._parts.workload).name}
            item["spec"] = {key: value for key, value in item["spec"].items() if key not in _not_compared(asked)}
        return change_of(title, before, after)

    async def _in_place(self, title: str, live: Object | None) -> ObjectChange:
        """A StatefulSet or DaemonSet has one workload for all versions, which is changed itself."""
        try:
            tried = await self._apply(self._parts.workload, force=True)
        except (errors.Refused, errors.NotThere) as refused:
            return ObjectChange(title, "refused", note=refused.message)
        return change_of(title, live, tried)

    async def mounted(self, item: Object) -> ObjectChange:
        """Hold what a version mounts against the copy that the serving version has."""
        title = key_of(item).title
        if not self.version:
            live = await self._live(item)
        else:
            slug = version_slug(self.version)
            copy = {**item, "metadata": {**item["metadata"], "name": name_for_version(key_of(item).name, slug)}}
            live = await self._live(copy)
        if live is None:
            return ObjectChange(title, "new", note="a copy of this version alone")
        live = {key: value for key, value in live.items() if key != "immutable"}
        live["metadata"] = {**live["metadata"], "name": key_of(item).name}
        return change_of(title, live, {"type": "Opaque", **item} if item["kind"] == "Secret" else item)

    async def shared(self, item: Object) -> ObjectChange:
        """Play the apply of what all versions use together through, and tell who else manages its fields."""
        title = key_of(item).title
        try:
            live = await self._live(item)
            try:
                tried, note = await self._apply(item, force=False), ""
            except errors.Conflict as conflict:
                if not conflict.managers:
                    raise
                note = conflict.message.partition(": apply ")[2].partition(": ")[2] or conflict.message
                tried = await self._apply(item, force=True)
        except (errors.Refused, errors.NotThere) as refused:
            return ObjectChange(title, "refused", note=refused.message)
        if note and live is not None and label(live, ENVIRONMENT) != self._label:
            note = f"{note}; Forge takes over what kubectl and helm applied, and stops at anybody else's"
        return change_of(title, live, tried, note)

    async def autoscaler(self, item: Object) -> ObjectChange:
        """Like what is shared; whom it scales is Forge's to say."""
        live = await self._live(item)
        tried = await self._apply(item, force=True)
        for found in (live, tried):
            if found is not None and "scaleTargetRef" in mapping(found, "spec"):
                found["spec"] = {key: value for key, value in found["spec"].items() if key != "scaleTargetRef"}
        return change_of(key_of(item).title, live, tried)

    async def route(self, item: Object) -> ObjectChange:
        """A route that is there belongs to the router."""
        title = key_of(item).title
        try:
            if await self._live(item) is not None:
                return ObjectChange(title, "left", note="it is there, and the router alone changes it")
            await self._apply(item, force=False)
        except (errors.Refused, errors.NotThere) as refused:
            return ObjectChange(title, "refused", note=refused.message)
        return ObjectChange(title, "new")

    async def pruned(self) -> list[ObjectChange]:
        """Tell what the new version does not have any more."""
        record = await self._shared.record()
        still = [key_of(item) for item in (*shared_of(self._parts), *self._parts.routes)]
        pruning = prunable(record.shared, still)
        gone = [
            ObjectChange(key.title, "removed", note="when the last version that has it is gone") for key in pruning.gone
        ]
        kept = [ObjectChange(key.title, "kept", note="remove it by hand: data may go with it") for key in pruning.kept]
        return gone + kept

    def _by_their_names(self, workload: Object, slug: str) -> Object:
        """Return a version's workload with what it mounts called as in the manifests."""
        if not slug:
            return workload
        known: Iterable[Object] = (*self._parts.mounted, *(self._serving.mounted if self._serving else ()))
        names = {(item["kind"], name_for_version(key_of(item).name, slug)): key_of(item).name for item in known}
        there = {key: names[key] for key in references(workload) if key in names}
        return with_references(workload, there)

    async def _live(self, item: Object) -> Object | None:
        kind = await self._cluster.kind_of(item)
        return await self._cluster.get(kind, key_of(item).name, key_of(item).namespace)

    async def _apply(self, item: Object, *, force: bool) -> Object:
        labels: Mapping[str, str] = {MANAGED_BY: MANAGER, ENVIRONMENT: self._label}
        metadata = {**item["metadata"], "labels": {**(mapping(item, "metadata").get("labels") or {}), **labels}}
        return await self._cluster.apply({**item, "metadata": metadata}, force=force, dry_run=True)


def _not_compared(asked: int | None) -> frozenset[str]:
    """What of a workload's specification is Forge's own: whom it selects and how it rolls, and its size with an
    autoscaler."""
    always = {"selector", "strategy", "progressDeadlineSeconds"}
    return frozenset(always if asked is not None else {*always, "replicas"})
