"""StatefulSets and DaemonSets: versions share the one workload there is, which rolls in place.

A pod of a StatefulSet has an identity, and a DaemonSet has one pod a node: there can be no second workload beside
it. So at most two versions are there at once, new pods take the places of old ones, and only `rolling` fits.
A StatefulSet stops at a partition; a DaemonSet replaces only the pods that Forge deletes.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import marked
from forge.adapters.kubernetes.kinds import CONFIG_MAP, POD, SECRET, SERVICE, Kind
from forge.adapters.kubernetes.naming import (
    ENVIRONMENT,
    VERSION,
    VERSION_ID,
    annotation,
    environment_label,
    label,
    labels_of,
    selector,
    version_slug,
)
from forge.adapters.kubernetes.objects import Object, Parts, mapping, split_objects
from forge.adapters.targets.kubernetes.capacity import daemon_unit, pods_for
from forge.adapters.targets.kubernetes.conflicts import past_conflicts
from forge.adapters.targets.kubernetes.counting import WANTED, VersionSeen, is_ending, seen_versions
from forge.adapters.targets.kubernetes.settings import full_size
from forge.adapters.targets.kubernetes.shared import SharedObjects
from forge.adapters.targets.kubernetes.stored import all_objects, holder, stored_manifests
from forge.adapters.targets.kubernetes.versions import objects_of
from forge.adapters.targets.kubernetes.wishes import Wish
from forge.model.errors import DependencyFailed

ROLLING = "forge.dev/rolling"
"""Annotation of the workload: which versions share it, as JSON."""


class Rolling(msgspec.Struct, frozen=True):
    """Who shares the workload: its template is `current`'s; pods of `previous` are still there, or are coming back."""

    current: str = ""
    previous: str = ""
    wanted: dict[str, int] = {}
    size: int = 0

    @property
    def updated(self) -> int:
        """How many pods should be of the current version."""
        if self.previous and self.wanted.get(self.previous, 0):
            return min(self.size, self.wanted.get(self.current, 0))
        return self.size


def after_ensure(rolling: Rolling, version_id: str, replicas: int, size: int) -> Rolling:
    """Return who shares the workload once `replicas` of a version are wanted. Raises DependencyFailed for a third."""
    wanted = {**rolling.wanted, version_id: replicas}
    if not rolling.current:
        return Rolling(version_id, "", {version_id: replicas}, replicas)
    if version_id == rolling.current:
        alone = not rolling.previous
        return Rolling(version_id, rolling.previous, wanted, replicas if alone else rolling.size)
    if version_id == rolling.previous:
        if replicas > rolling.wanted.get(version_id, 0):  # it comes back: its template is the one to roll to
            return Rolling(version_id, rolling.current, wanted, max(replicas, rolling.size))
        return msgspec.structs.replace(rolling, wanted=wanted)
    if rolling.previous:
        raise DependencyFailed(f"{version_id} has to wait: {rolling.current} and {rolling.previous} share the workload",
                               hint="it rolls in place, so that one change is made at a time")  # fmt: skip
    if not replicas:
        return rolling
    return Rolling(version_id, rolling.current, wanted, max(size, rolling.size))


def after_remove(rolling: Rolling, version_id: str) -> Rolling:
    """Return who shares the workload without a version; nobody when it was the last."""
    wanted = {key: number for key, number in rolling.wanted.items() if key != version_id}
    if version_id == rolling.previous:
        return Rolling(rolling.current, "", wanted, rolling.size)
    if version_id == rolling.current:
        return Rolling(rolling.previous, "", wanted, rolling.size) if rolling.previous else Rolling()
    return rolling


def rolling_of(workload: Object | None) -> Rolling:
    """Return who shares a workload."""
    text = annotation(workload or {}, ROLLING)
    try:
        return msgspec.json.decode(text, type=Rolling) if text else Rolling()
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Rolling()


def seen_in_place(workloads: Iterable[Object], pods: Iterable[Object], environment: str) -> dict[str, VersionSeen]:
    """Return what there is of each version: each as if it had the workload with its own number alone."""
    ours = [item for item in workloads if label(item, ENVIRONMENT) == environment and rolling_of(item).current]
    found = seen_versions((), pods, environment)
    for item in ours[:1]:
        rolling = rolling_of(item)
        for version_id in filter(None, (rolling.current, rolling.previous)):
            number = rolling.wanted.get(version_id, 0)
            pods_wanted = pods_for(number, daemon_unit(item, rolling.size))
            annotations = {**(item["metadata"].get("annotations") or {}), VERSION_ID: version_id, WANTED: str(number)}
            view = {
                **item,
                "metadata": {**item["metadata"], "annotations": annotations},
                "spec": {**mapping(item, "spec"), "replicas": pods_wanted},
            }
            known = found.get(version_id)
            found[version_id] = VersionSeen(version_id, view, known.pods if known else ())
    return found


class InPlace:
    """Rolls the one StatefulSet or DaemonSet of an environment."""

    def __init__(self, cluster: Cluster, environment: str, shared: SharedObjects, kind: Kind) -> None:
        self._cluster, self._environment, self._shared, self._kind = cluster, environment, shared, kind

    async def ensure(self, wish: Wish) -> None:
        """Roll as far as is wished. Raises DependencyFailed for a third version."""
        await past_conflicts(lambda: self._ensure(wish))

    async def remove(self, version_id: str, token: int) -> None:
        """Roll on without a version; the last one takes the workload with it."""
        await past_conflicts(lambda: self._remove(version_id, token))

    async def _ensure(self, wish: Wish) -> None:
        live = await self._live()
        before = rolling_of(live)
        if wish.parts is None:
            if wish.replicas and wish.version.id not in before.wanted:
                raise DependencyFailed(f"the manifests of version {wish.version.id} are not there",
                                       hint="release it again")  # fmt: skip
            if wish.version.id not in before.wanted:
                return
        size = full_size(wish.config, wish.parts.workload) if wish.parts else before.size
        after = after_ensure(before, wish.version.id, wish.replicas, size)
        if after.current != before.current and not before.previous:
            await self._settled(before, wish.version.id)
        if wish.version.id not in before.wanted and wish.parts is not None:
            await self._shared.apply(wish.parts, wish.version.id, wish.token)
            item = holder(self._environment, wish.version.id, all_objects(wish.parts), wish.token)
            if item is not None:
                await self._cluster.apply(item)
        parts = wish.parts if after.current == wish.version.id else await self._stored(after.current)
        await self._write(live, after, parts, wish.token, wish.config.progress_deadline)

    async def _remove(self, version_id: str, token: int) -> None:
        live = await self._live()
        before = rolling_of(live)
        if live is not None and version_id in {before.current, before.previous}:
            after = after_remove(before, version_id)
            if after.current:
                await self._write(live, after, await self._stored(after.current), token, 600.0)
            else:
                marked(live, token)
                await self._cluster.delete(self._kind, live["metadata"]["name"], uid=live["metadata"]["uid"])
        labels = selector(labels_of(self._environment, version_slug(version_id)))
        for kind in (SERVICE, CONFIG_MAP, SECRET):
            for item in (await self._cluster.objects(kind, labels=labels))[0]:
                marked(item, token)
                await self._cluster.delete(kind, item["metadata"]["name"], uid=item["metadata"]["uid"])

    async def _write(
        self, live: Object | None, after: Rolling, parts: Parts | None, token: int, deadline: float
    ) -> None:
        """Write template, size and how far to roll in one go."""
        if live is not None:
            marked(live, token)
        if parts is None:
            raise DependencyFailed(f"the manifests of version {after.current} are not there", hint="release it again")
        made = objects_of(parts, self._environment, after.current, replicas=after.size, token=token,
                          progress_deadline=deadline)  # fmt: skip
        for item in made.mounted:
            await self._cluster.apply(item)
        workload = self._shaped(made.workload, parts, after)
        if live is not None:
            workload["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
        await self._cluster.apply(workload)
        if made.service is not None:
            await self._cluster.apply(made.service)
        if self._kind.name == "DaemonSet" and after.previous:
            await self._replace_pods(after, daemon_unit(live or {}, after.size))

    def _shaped(self, workload: Object, parts: Parts, after: Rolling) -> dict[str, Any]:
        """Return the workload under its own name: it is the same one for every version."""
        metadata, spec = workload["metadata"], workload["spec"]
        metadata["name"] = parts.workload["metadata"]["name"]
        metadata["labels"] = {**(parts.workload["metadata"].get("labels") or {}), **labels_of(self._environment)}
        metadata["annotations"][ROLLING] = msgspec.json.encode(after).decode()
        spec["selector"] = mapping(parts.workload, "spec", "selector")
        for key in ("strategy", "progressDeadlineSeconds"):
            spec.pop(key, None)
        if self._kind.name == "StatefulSet":
            rolling = {"partition": max(0, after.size - after.updated)}
            spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
            return workload
        spec.pop("replicas", None)
        # Whole, the cluster replaces one pod at a time by itself; on the way, only those that Forge deletes.
        whole = after.updated >= after.size or not after.previous
        spec["updateStrategy"] = (
            {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
            if whole
            else {"type": "OnDelete"}
        )
        return workload

    async def _settled(self, rolling: Rolling, coming: str) -> None:
        """A partition would hold back for ever what the roll before has not replaced yet."""
        old = [pod for pod in await self._pods() if label(pod, VERSION) != version_slug(rolling.current)]
        if rolling.current and old:
            raise DependencyFailed(f"{coming} has to wait: {len(old)} pods are not of {rolling.current} yet",
                                   hint="it rolls in place, so that one change is made at a time")  # fmt: skip

    async def _pods(self) -> list[Object]:
        labels = selector({ENVIRONMENT: environment_label(self._environment)})
        return [pod for pod in (await self._cluster.objects(POD, labels=labels))[0] if not is_ending(pod)]

    async def _replace_pods(self, after: Rolling, unit: Fraction) -> None:
        pods = await self._pods()
        slug = version_slug(after.current)
        new = sum(1 for pod in pods if label(pod, VERSION) == slug)
        old = [pod for pod in pods if label(pod, VERSION) != slug]
        for pod in old[: max(0, pods_for(after.updated, unit) - new)]:
            await self._cluster.delete(POD, pod["metadata"]["name"], uid=pod["metadata"]["uid"])

    async def _live(self) -> Object | None:
        labels = selector(labels_of(self._environment))
        found, _ = await self._cluster.objects(self._kind, labels=labels)
        return next((item for item in found if rolling_of(item).current), None)

    async def _stored(self, version_id: str) -> Parts | None:
        objects = await stored_manifests(self._cluster, self._environment, version_id)
        if objects is None:
            return None
        return split_objects(objects, (await self._shared.record()).workload)
