"""What is written to a cluster for a version that has a workload of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import marked
from forge.adapters.kubernetes.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    POD,
    SECRET,
    SERVICE,
    Kind,
)
from forge.adapters.kubernetes.naming import (
    ADOPTED,
    CREATED,
    TOKEN,
    VERSION_ID,
    annotation,
    environment_label,
    labels_of,
    selector,
    version_slug,
)
from forge.adapters.kubernetes.objects import Object, Parts, mapping, split_objects
from forge.adapters.kubernetes.sharing import note_written
from forge.adapters.targets.kubernetes import capacity
from forge.adapters.targets.kubernetes.adoption import Adoption
from forge.adapters.targets.kubernetes.conflicts import past_conflicts
from forge.adapters.targets.kubernetes.counting import WANTED, VersionSeen, seen_versions, trimmed_pod
from forge.adapters.targets.kubernetes.edits import edits_of
from forge.adapters.targets.kubernetes.shared import SharedObjects
from forge.adapters.targets.kubernetes.stored import all_objects, holder, stored_manifests
from forge.adapters.targets.kubernetes.telling import holder_of
from forge.adapters.targets.kubernetes.versions import objects_of
from forge.adapters.targets.kubernetes.wishes import Wish
from forge.model.errors import DependencyFailed, UsageError

_OWN: tuple[Kind, ...] = (SERVICE, CONFIG_MAP, SECRET)


class Changes:
    """Makes, sizes and removes the Deployments of one environment."""

    def __init__(self, cluster: Cluster, environment: str, shared: SharedObjects) -> None:
        self._cluster, self._environment, self._shared = cluster, environment, shared
        self._adoption = Adoption(cluster, environment)

    async def ensure(self, wish: Wish) -> None:
        """Have the wished pods asked for. Raises DependencyFailed while a PodDisruptionBudget forbids it."""
        await past_conflicts(lambda: self._ensure(wish))

    async def remove(self, version_id: str, token: int) -> None:
        """Delete what was the version's own, then what nobody else has."""
        await past_conflicts(lambda: self._remove(version_id, token))

    async def _remove(self, version_id: str, token: int) -> None:
        versions, autoscaler = await self._world()
        seen = versions.get(version_id)
        if seen is not None and seen.workload is not None:
            await self._spare_budget(versions, autoscaler, version_id, 0)
            rest = {key: other for key, other in versions.items() if key != version_id}
            await self._hand_over(autoscaler, rest, token)
            if annotation(seen.workload, ADOPTED):
                await self._adoption.leave(seen.workload, token)
            else:
                await self._delete(DEPLOYMENT, seen.workload, token)
        labels = selector(labels_of(self._environment, version_slug(version_id)))
        for kind in _OWN:
            for item in (await self._cluster.objects(kind, labels=labels))[0]:
                await self._delete(kind, item, token)
        await self._give_back(version_id, versions, token)

    async def _ensure(self, wish: Wish) -> None:
        original = str(wish.parts.workload["metadata"]["name"]) if wish.parts is not None else ""
        scaler = wish.parts.autoscaler if wish.parts is not None else None
        if scaler is not None and scaler.get("kind") != "HorizontalPodAutoscaler":
            title = f"{scaler.get('kind')} {mapping(scaler, 'metadata').get('name', '')}"
            raise UsageError(capacity.followed_only(title), hint=capacity.SCALER_HINT)
        versions, autoscaler = await self._world(original=original)
        seen = versions.get(wish.version.id)
        live = seen.workload if seen else None
        if live is None and wish.parts is None:
            if wish.replicas:
                raise DependencyFailed(f"the manifests of version {wish.version.id} are not there",
                                       hint="release it again")  # fmt: skip
            return
        if live is not None and seen is not None and wish.replicas < seen.wanted:
            await self._spare_budget(versions, autoscaler, wish.version.id, wish.replicas)
        if live is None and not wish.replicas:
            return
        adopted = wish.parts is not None and await self._adoption.applies(wish.parts, live)
        if wish.parts is not None and live is None:
            if not adopted:
                await self._shared.apply(wish.parts, wish.version.id, wish.token)
            await self._store(wish)
        if wish.parts is not None and adopted:
            name = await self._adoption.take(wish.parts, wish.version.id, wish.replicas, wish.token)
        else:
            name = await self._write(wish, versions, live, autoscaler)
        await self._follow(wish, versions, autoscaler, name)

    async def _write(
        self, wish: Wish, versions: Mapping[str, VersionSeen], live: Object | None, autoscaler: Object | None
    ) -> str:
        """Write the version's own objects; return the workload's name."""
        holding = holder_of(versions, [autoscaler] if autoscaler else [])
        held = live is not None and holding is not None and holding.version_id == wish.version.id
        unit = capacity.unit_of(holding)
        pods = mapping(live, "spec").get("replicas", wish.replicas) if held else capacity.pods_for(wish.replicas, unit)
        if live is not None:
            marked(live, wish.token)
            self._same(live, wish)
        if wish.parts is None:
            await self._size(live or {}, wish, pods)
            return str(mapping(live, "metadata")["name"])
        made = objects_of(
            wish.parts, self._environment, wish.version.id, replicas=pods, token=wish.token,
            progress_deadline=wish.config.progress_deadline,
        )  # fmt: skip
        for item in made.mounted if live is None else ():
            await self._cluster.apply(item)
        if live is not None and not edits_of(live):
            await self._size(live, wish, pods)
        else:
            await self._apply_workload(made.workload, wish, live)
        if made.service is not None:
            await self._cluster.apply(made.service)
        return str(made.workload["metadata"]["name"])

    async def _apply_workload(self, workload: Object, wish: Wish, live: Object | None) -> None:
        metadata = workload["metadata"]
        metadata["annotations"][WANTED] = str(wish.replicas)
        if live is not None:
            metadata["resourceVersion"] = live["metadata"]["resourceVersion"]
        else:
            there = await self._cluster.get(DEPLOYMENT, metadata["name"])
            if there is not None:
                raise UsageError(f"Deployment {metadata['name']} is there already, and Forge did not make it",
                                 hint="delete it, or give the version another name")  # fmt: skip
        self._note(DEPLOYMENT, await self._cluster.apply(workload))

    async def _size(self, live: Object, wish: Wish, pods: int) -> None:
        """Write nothing but what is wanted: an apply of the whole would own more of it."""
        change: dict[str, Any] = {
            "metadata": {
                "resourceVersion": live["metadata"]["resourceVersion"],
                "annotations": {WANTED: str(wish.replicas), TOKEN: str(wish.token)},
            },
        }
        if mapping(live, "spec").get("replicas", 1) != pods:
            change["spec"] = {"replicas": pods}
        self._note(DEPLOYMENT, await self._cluster.patch(DEPLOYMENT, str(live["metadata"]["name"]), change))

    async def _follow(
        self, wish: Wish, versions: Mapping[str, VersionSeen], autoscaler: Object | None, name: str
    ) -> None:
        """Make sure that the autoscaler scales who carries the most."""
        if wish.parts is not None and wish.parts.autoscaler is not None:
            autoscaler = await self._autoscaler_of(wish, versions, autoscaler)
        if autoscaler is None:
            return
        wanted = {
            str(seen.workload["metadata"]["name"]): seen.wanted for seen in versions.values() if seen.workload
        }  # fmt: skip
        await self._point(autoscaler, {**wanted, name: wish.replicas}, wish.token)

    async def _autoscaler_of(
        self, wish: Wish, versions: Mapping[str, VersionSeen], autoscaler: Object | None
    ) -> Object | None:
        """Apply the manifests' autoscaler with the version that brought it; it scales who it scaled before."""
        assert wish.parts is not None
        item = wish.parts.autoscaler
        if item is None:
            return autoscaler
        record = await self._shared.record()
        if autoscaler is not None and (record.shared_by != wish.version.id or wish.version.id in versions):
            return autoscaler
        target = capacity.scaled_workload(autoscaler) or self._name_of(wish)
        metadata = {
            **mapping(item, "metadata"),
            "labels": {**(mapping(item, "metadata").get("labels") or {}), **labels_of(self._environment)},
            "annotations": {
                **(mapping(item, "metadata").get("annotations") or {}),
                TOKEN: str(wish.token),
                capacity.SCALE_TARGET: capacity.scaled_workload(item),
                **({CREATED: "true"} if autoscaler is None or annotation(autoscaler, CREATED) else {}),
            },
        }
        reference = {**mapping(item, "spec", "scaleTargetRef"), "name": target}
        fresh = {**item, "metadata": metadata, "spec": {**mapping(item, "spec"), "scaleTargetRef": reference}}
        applied = await self._cluster.apply(fresh)
        self._note(AUTOSCALER, applied)
        return applied

    def _name_of(self, wish: Wish) -> str:
        assert wish.parts is not None
        made = objects_of(wish.parts, self._environment, wish.version.id, replicas=None, token=wish.token)
        return str(made.workload["metadata"]["name"])

    async def _hand_over(self, autoscaler: Object | None, rest: Mapping[str, VersionSeen], token: int) -> None:
        if autoscaler is not None:
            wanted = {str(seen.workload["metadata"]["name"]): seen.wanted for seen in rest.values() if seen.workload}
            await self._point(autoscaler, wanted, token)

    async def _point(self, autoscaler: Object, wanted: Mapping[str, int], token: int) -> None:
        current = capacity.scaled_workload(autoscaler)
        chosen = capacity.choose_holder(wanted, current)
        if chosen in {"", current}:
            return
        owner = capacity.pointed_by(autoscaler)
        if owner:
            raise UsageError(capacity.followed_only(owner), hint=capacity.SCALER_HINT)
        change: Any = capacity.pointed_at(marked(autoscaler, token), chosen)
        change["metadata"]["annotations"][TOKEN] = str(token)
        self._note(AUTOSCALER, await self._cluster.patch(AUTOSCALER, str(autoscaler["metadata"]["name"]), change))

    async def _world(self, *, original: str = "") -> tuple[dict[str, VersionSeen], Object | None]:
        """Return the versions as they are now, not as they were watched (without their pods), and who scales one of
        them, or `original`, the workload of the manifests."""
        labels = selector(labels_of(self._environment))
        workloads, _ = await self._cluster.objects(DEPLOYMENT, labels=labels)
        versions = seen_versions(workloads, (), environment_label(self._environment))
        autoscalers, _ = await self._cluster.objects(AUTOSCALER)
        if not original:
            original = (await self._shared.record()).workload.partition("/")[2]
        names = ({str(item["metadata"]["name"]) for item in workloads} | {original}) - {""}
        return versions, capacity.find_autoscaler(autoscalers, "Deployment", names)

    async def _spare_budget(
        self, versions: Mapping[str, VersionSeen], autoscaler: Object | None, version_id: str, replicas: int
    ) -> None:
        """Raise DependencyFailed while a budget still needs pods that would go."""
        budgets, _ = await self._cluster.objects(DISRUPTION_BUDGET)
        holding = holder_of(versions, [autoscaler] if autoscaler else [])
        if not budgets or (replicas and holding is not None and holding.version_id == version_id):
            return  # how many pods the holder has is the autoscaler's business
        pods, _ = await self._cluster.objects(POD)
        workloads = [seen.workload for seen in versions.values() if seen.workload is not None]
        seen = seen_versions(workloads, map(trimmed_pod, pods), environment_label(self._environment))
        left = capacity.pods_for(replicas, capacity.unit_of(holding))
        refused = capacity.refused_by_budget(budgets, seen, version_id, left)
        if refused:
            raise DependencyFailed(f"{version_id} cannot shrink now: {refused}",
                                   hint="it is tried again when more pods are ready")  # fmt: skip

    async def _store(self, wish: Wish) -> None:
        assert wish.parts is not None
        objects = all_objects(wish.parts)
        item = holder(self._environment, wish.version.id, objects, wish.token)
        if item is not None:
            await self._cluster.apply(item)

    async def _give_back(self, version_id: str, versions: Mapping[str, VersionSeen], token: int) -> None:
        """Let the version that stays apply what all use, and remove what only the removed one had."""
        remaining: dict[str, Parts] = {}
        for key, seen in versions.items():
            if key == version_id or seen.workload is None:
                continue
            objects = await stored_manifests(self._cluster, self._environment, key)
            if objects is None:
                return  # what cannot be read must not be taken for gone
            workload = (await self._shared.record()).workload
            remaining[key] = split_objects(objects, workload)
        record = await self._shared.record()
        if record.shared_by == version_id and remaining:
            most = max(remaining, key=lambda key: (versions[key].wanted, key))
            await self._shared.apply(remaining[most], most, token)
        if remaining:
            await self._shared.prune(remaining.values(), token)

    async def _delete(self, kind: Kind, item: Object, token: int) -> None:
        marked(item, token)
        metadata = item["metadata"]
        await self._cluster.delete(kind, str(metadata["name"]), uid=str(metadata.get("uid", "")))

    def _note(self, kind: Kind, item: Object) -> None:
        note_written(self._cluster, kind, item)

    @staticmethod
    def _same(live: Object, wish: Wish) -> None:
        if annotation(live, VERSION_ID) != wish.version.id:
            raise UsageError(f"version {wish.version.id} and {annotation(live, VERSION_ID)} have one name in the cluster",
                             hint="give one of them another name")  # fmt: skip
