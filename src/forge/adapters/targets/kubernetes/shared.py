"""What all versions of an environment use together: applied with the newest, given back to the one that stays.

The environment's ConfigMap remembers whose manifests were applied last and which objects they were, so that what no
version has any more is removed, also by a worker that never saw it applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from forge.adapters.kubernetes import errors
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import marked
from forge.adapters.kubernetes.kinds import CONFIG_MAP
from forge.adapters.kubernetes.naming import (
    CREATED,
    ENVIRONMENT,
    MANAGED_BY,
    MANAGER,
    TOKEN,
    annotation,
    environment_label,
    label,
)
from forge.adapters.kubernetes.objects import Object, ObjectKey, Parts, in_apply_order, key_of, mapping, prunable

_FORMER_HANDS = frozenset({"kubectl-client-side-apply", "kubectl", "kubectl-create", "kubectl-edit", "helm", "Helm"})
"""Managers through which people apply the same manifests by hand: what Forge applies first takes over from them."""


class Record(msgspec.Struct, frozen=True):
    """What the environment's ConfigMap remembers."""

    shared_by: str = ""
    """The version whose shared objects were applied last."""
    shared: tuple[ObjectKey, ...] = ()
    workload: str = ""
    """Kind and name in the manifests: `Deployment/shop`."""


class SharedObjects:
    """The shared objects of one environment."""

    def __init__(self, cluster: Cluster, environment: str, record_name: str) -> None:
        self._cluster, self._environment, self._name = cluster, environment, record_name
        self._label = environment_label(environment)

    async def record(self) -> Record:
        """Return what is remembered; nothing where there is no record."""
        found = await self._cluster.get(CONFIG_MAP, self._name)
        text = mapping(found, "data").get("record", "")
        try:
            return msgspec.json.decode(text, type=Record) if text else Record()
        except (msgspec.DecodeError, msgspec.ValidationError):
            return Record()

    async def remember(self, record: Record, token: int) -> None:
        """Write the record down. Raises StaleLease."""
        found = await self._cluster.get(CONFIG_MAP, self._name)
        if found is None:
            return
        text = msgspec.json.encode(record).decode()
        if mapping(found, "data").get("record") != text:
            await self._cluster.replace({**marked(found, token), "data": {"record": text}})

    async def apply(self, parts: Parts, version_id: str, token: int, *, again: bool = False) -> None:
        """Apply what this version brings for all, unless it was the last to do so already (`again`: even then).

        Raises Conflict with who else manages a field, StaleLease when a newer worker wrote one of them.
        """
        record = await self.record()
        if record.shared_by == version_id and not again:
            return
        objects = shared_of(parts)
        workload = f"{parts.workload['kind']}/{parts.workload['metadata']['name']}"
        # Remembered first: what a killed worker had applied must not be forgotten.
        known = tuple(sorted({*record.shared, *(self._key(item) for item in (*objects, *_scaler(parts)))}))
        await self.remember(Record(record.shared_by, known, workload), token)
        for item in objects:
            await self._apply(item, token)
        for route in parts.routes:
            await self._create(route, token)
        await self.remember(Record(version_id, known, workload), token)

    async def prune(self, remaining: Iterable[Parts], token: int) -> tuple[ObjectKey, ...]:
        """Remove what none of the remaining versions has any more; return what was removed.

        What was there before Forge applied it only loses Forge's marks: it may be others' as well.
        """
        record = await self.record()
        still = {self._key(item) for parts in remaining for item in _lasting(parts)}
        gone = prunable(record.shared, still).gone
        removed = tuple([key for key in gone if await self._remove(key, token)])
        if gone:
            await self.remember(
                msgspec.structs.replace(record, shared=tuple(sorted(set(record.shared) - {*gone}))), token
            )
        return removed

    async def _apply(self, item: Object, token: int) -> None:
        kind = await self._cluster.kind_of(item)
        live = await self._cluster.get(kind, item["metadata"]["name"], _namespace(item))
        ours = self._marked(item, token, created=live is None or bool(annotation(live, CREATED)))
        if live is None:
            await self._cluster.apply(ours, force=False)
            return
        marked(live, token)
        ours["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
        try:
            await self._cluster.apply(ours, force=False)
        except errors.Conflict as conflict:
            first_time = label(live, ENVIRONMENT) != self._label
            if not (conflict.managers and first_time and set(conflict.managers) <= _FORMER_HANDS):
                raise
            await self._cluster.apply(ours, force=True)

    async def _create(self, route: Object, token: int) -> None:
        """A route that is there belongs to the router: applied again it would undo the split."""
        kind = await self._cluster.kind_of(route)
        if await self._cluster.get(kind, route["metadata"]["name"], _namespace(route)) is None:
            await self._cluster.apply(self._marked(route, token, created=True), force=False)

    async def _remove(self, key: ObjectKey, token: int) -> bool:
        try:
            kind = await self._cluster.kind_in_group(key.group, key.kind)
        except errors.NotThere:
            return False
        live = await self._cluster.get(kind, key.name, key.namespace)
        if live is None or label(live, ENVIRONMENT) != self._label or label(live, MANAGED_BY) != MANAGER:
            return False
        marked(live, token)
        if not annotation(live, CREATED):
            marks = {"labels": {MANAGED_BY: None, ENVIRONMENT: None}, "annotations": {TOKEN: None}}
            await self._cluster.patch(kind, key.name, {"metadata": marks}, namespace=key.namespace)
            return False
        return await self._cluster.delete(kind, key.name, namespace=key.namespace, uid=live["metadata"]["uid"])

    def _key(self, item: Object) -> ObjectKey:
        """Return which object it is, the same whether it names the environment's own namespace or none."""
        key = key_of(item)
        return msgspec.structs.replace(key, namespace="") if key.namespace == self._cluster.namespace else key

    def _marked(self, item: Object, token: int, *, created: bool) -> Object:
        metadata = mapping(item, "metadata")
        labels = {**(metadata.get("labels") or {}), MANAGED_BY: MANAGER, ENVIRONMENT: self._label}
        annotations = {**(metadata.get("annotations") or {}), TOKEN: str(token)}
        if created:
            annotations[CREATED] = "true"
        return {**item, "metadata": {**metadata, "labels": labels, "annotations": annotations}}


def shared_of(parts: Parts) -> Sequence[Object]:
    """Return what a version brings for all, in the order to apply; not its routes."""
    service = (parts.service,) if parts.service else ()
    return in_apply_order([*parts.shared, *service, *parts.budgets])


def _lasting(parts: Parts) -> Sequence[Object]:
    """Return everything that a version has in common with others, whoever applies it."""
    return (*shared_of(parts), *parts.routes, *_scaler(parts))


def _scaler(parts: Parts) -> Sequence[Object]:
    return (parts.autoscaler,) if parts.autoscaler is not None else ()


def _namespace(item: Object) -> str:
    return str(mapping(item, "metadata").get("namespace") or "")
