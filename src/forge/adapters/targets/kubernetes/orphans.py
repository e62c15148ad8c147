"""What Forge made in a cluster and nobody needs any more: its environment or its version is gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import (
    AUTOSCALER,
    CONFIG_MAP,
    DISRUPTION_BUDGET,
    JOB,
    SECRET,
    SERVICE,
    WORKLOADS,
    Kind,
)
from forge.adapters.kubernetes.naming import (
    ADOPTED,
    CREATED,
    ENVIRONMENT,
    MANAGED_BY,
    MANAGER,
    VERSION,
    VERSION_ID,
    annotation,
    environment_label,
    label,
    version_slug,
)
from forge.adapters.kubernetes.objects import Object

_KINDS: tuple[Kind, ...] = (*WORKLOADS.values(), JOB, SERVICE, CONFIG_MAP, SECRET, DISRUPTION_BUDGET, AUTOSCALER)
_BY_NAME = {kind.name: kind for kind in _KINDS}


class Orphan(msgspec.Struct, frozen=True):
    """An object that nobody needs, and why. `adopted`: Forge did not make it, and only takes its marks off."""

    kind: str
    name: str
    namespace: str
    uid: str
    why: str
    adopted: bool = False


async def find_orphans(cluster: Cluster, known: Mapping[str, Iterable[str]]) -> list[Orphan]:
    """Return what is labelled as Forge's in the cluster's namespace and belongs to nothing that is known.

    `known` is by environment: ids of its versions that are there or may come back. An environment of a Forge with
    another database looks like an orphan here: show them to a person before anything is removed.
    """
    slugs = {environment_label(name): {version_slug(version) for version in versions}
             for name, versions in known.items()}  # fmt: skip
    found: list[Orphan] = []
    for kind in _KINDS:
        items, _ = await cluster.objects(kind, labels=f"{MANAGED_BY}={MANAGER},{ENVIRONMENT}")
        for item in items:
            why = _why(item, slugs)
            if why:
                metadata = item["metadata"]
                found.append(Orphan(kind.name, metadata["name"], metadata.get("namespace", ""), metadata["uid"], why,
                                    _was_there_before(item)))  # fmt: skip
    return found


async def remove_orphan(cluster: Cluster, orphan: Orphan) -> bool:
    """Remove one, if it is still the same object; False when it is not there any more."""
    kind = _BY_NAME[orphan.kind]
    if orphan.adopted:
        from forge.adapters.targets.kubernetes.adoption import without_marks

        await cluster.patch(kind, orphan.name, {"metadata": without_marks()}, namespace=orphan.namespace)
        return True
    return await cluster.delete(kind, orphan.name, namespace=orphan.namespace, uid=orphan.uid)


def _was_there_before(item: Object) -> bool:
    """Whether Forge only marked it: an adopted workload, or a shared object that it did not make."""
    own = bool(label(item, VERSION)) or bool(annotation(item, CREATED))
    return bool(annotation(item, ADOPTED)) or not own


def _why(item: Object, slugs: Mapping[str, set[str]]) -> str:
    environment, slug = label(item, ENVIRONMENT), label(item, VERSION)
    if environment not in slugs:
        return f"there is no environment {environment}"
    if slug and slug not in slugs[environment]:
        return f"environment {environment} has no version {annotation(item, VERSION_ID) or slug}"
    return ""
