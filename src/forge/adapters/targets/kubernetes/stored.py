"""A version's manifests, kept beside it in the cluster: going back needs no file that only one machine had.

The object `forge-<environment>-<slug>` goes with the version. It is a Secret where the manifests hold one, since
everybody who may read ConfigMaps would read it otherwise.
"""

from __future__ import annotations

import base64
import binascii
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import CONFIG_MAP, SECRET, Kind
from forge.adapters.kubernetes.naming import TOKEN, VERSION_ID, environment_label, labels_of, version_slug
from forge.adapters.kubernetes.objects import Object, Parts
from forge.model.errors import CorruptData, DependencyFailed, UsageError

LARGEST = 900_000
"""Bytes that one object may hold, less some room for the rest of it."""
_KEY = "manifests"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_manifests(path: str | Path) -> tuple[Object, ...]:
    """Return the objects of a file of rendered manifests. Raises UsageError when it holds anything else."""
    try:
        found = [item for item in yaml.load_all(Path(path).read_bytes(), Loader=_Loader) if item is not None]
    except OSError as error:
        raise DependencyFailed(f"the manifests cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"the artifact holds no manifests: {error}") from None
    for item in found:
        if not (isinstance(item, dict) and item.get("kind") and (item.get("metadata") or {}).get("name")):
            raise UsageError("the artifact holds no manifests: an object lacks `kind` or `metadata.name`")
    return tuple(found)


def holder_name(environment: str, version_id: str) -> str:
    """Return the name of the object that holds a version's manifests."""
    return f"forge-{environment_label(environment)[:32].strip('-')}-{version_slug(version_id)}"


def holder(environment: str, version_id: str, objects: Sequence[Object], token: int) -> Object | None:
    """Return the object that holds the manifests; None when they are too large for one."""
    data = base64.b64encode(gzip.compress(msgspec.json.encode(list(objects)), mtime=0)).decode()
    if len(data) > LARGEST:
        return None
    secret = any(item.get("kind") == "Secret" for item in objects)
    return {
        "apiVersion": "v1",
        "kind": "Secret" if secret else "ConfigMap",
        "metadata": {
            "name": holder_name(environment, version_id),
            "labels": labels_of(environment, version_slug(version_id)),
            "annotations": {VERSION_ID: version_id, TOKEN: str(token)},
        },
        ("data" if secret else "binaryData"): {_KEY: data},
    }


async def stored_manifests(cluster: Cluster, environment: str, version_id: str) -> tuple[Object, ...] | None:
    """Return a version's manifests from the cluster, None when it holds none. Raises CorruptData."""
    name = holder_name(environment, version_id)
    kinds: tuple[tuple[Kind, str], ...] = ((CONFIG_MAP, "binaryData"), (SECRET, "data"))
    for kind, place in kinds:
        found = await cluster.get(kind, name)
        if found is not None and _KEY in (found.get(place) or {}):
            return tuple(_unpacked(found[place][_KEY], f"{kind.name} {name}"))
    return None


def _unpacked(data: str, where: str) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(gzip.decompress(base64.b64decode(data)), type=list[dict[str, Any]])
    except (OSError, EOFError, binascii.Error, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CorruptData(f"{where} does not hold what Forge wrote there: {error}") from error


def all_objects(parts: Parts) -> tuple[Object, ...]:
    """Return all objects of a version's manifests, each once."""
    found = [*parts.shared, *(item for item in parts.mounted if item not in parts.shared), parts.workload]
    found += [item for item in (parts.service, parts.autoscaler) if item is not None]
    return (*found, *parts.budgets, *parts.routes)
