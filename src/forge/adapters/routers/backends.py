"""What routers on a cluster share: the Services that stand for versions, and the table kept on the routed object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import marked
from forge.adapters.kubernetes.kinds import ENDPOINT_SLICE, SERVICE
from forge.adapters.kubernetes.naming import FRONT, TRAFFIC, VERSION_ID, annotation, labels_of, selector
from forge.adapters.kubernetes.objects import Object
from forge.model.errors import DependencyFailed
from forge.model.traffic import TrafficTable

_SERVICE_OF_SLICE = "kubernetes.io/service-name"


class Backends(msgspec.Struct, frozen=True):
    """The Services of an environment: `front` is the one that clients know, `services` those of its versions."""

    front: str
    services: dict[str, str]
    """Name by version id."""

    def service(self, version: str) -> str:
        """Return the Service of a version. Raises DependencyFailed when it has none."""
        if version not in self.services:
            raise DependencyFailed(f"{version} has no Service yet", hint="it is made with the version's workload")
        return self.services[version]

    @property
    def names(self) -> frozenset[str]:
        """The names of all versions' Services."""
        return frozenset(self.services.values())


async def find_backends(cluster: Cluster, environment: str, namespace: str = "") -> Backends:
    """Return the Services of an environment. Raises DependencyFailed before its first version has one."""
    labels = selector(labels_of(environment))
    found, _ = await cluster.objects(SERVICE, labels=labels, namespace=namespace)
    services = {annotation(item, VERSION_ID): item["metadata"]["name"] for item in found if annotation(item, FRONT)}
    fronts = sorted({annotation(item, FRONT) for item in found} - {""})
    if not fronts:
        raise DependencyFailed(f"no version of {environment} has a Service", hint="a router needs one in the manifests")
    return Backends(fronts[-1], services)


async def ready_endpoints(cluster: Cluster, services: list[str], namespace: str = "") -> dict[str, int]:
    """Return how many ready endpoints each of these Services has."""
    chosen = f"{_SERVICE_OF_SLICE} in ({','.join(services)})"
    found, _ = await cluster.objects(ENDPOINT_SLICE, labels=chosen, namespace=namespace)
    ready = dict.fromkeys(services, 0)
    for item in found:
        name = item["metadata"]["labels"][_SERVICE_OF_SLICE]
        ready[name] += sum(is_ready(endpoint) for endpoint in item.get("endpoints") or ())
    return ready


def is_ready(endpoint: Mapping[str, Any]) -> bool:
    """Whether an endpoint takes new requests; one that says nothing does."""
    return (endpoint.get("conditions") or {}).get("ready") is not False


async def check_endpoints(cluster: Cluster, backends: Backends, table: TrafficTable, namespace: str = "") -> None:
    """Raise DependencyFailed when a version in the table has nobody to answer."""
    asked = [version for version, weight in table.weights.items() if weight] + [each.version for each in table.routes]
    names = {version: backends.service(version) for version in dict.fromkeys(asked)}
    ready = await ready_endpoints(cluster, sorted(set(names.values())), namespace)
    empty = sorted(version for version, name in names.items() if not ready[name])
    if empty:
        raise DependencyFailed(f"no ready endpoint of {', '.join(empty)} yet: no traffic is sent there")


def table_of(item: Mapping[str, Any]) -> TrafficTable | None:
    """Return the table that was written on an object, None for none (or one that nobody understands)."""
    text = annotation(item, TRAFFIC)
    try:
        return msgspec.json.decode(text, type=TrafficTable) if text else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def with_table(item: Mapping[str, Any], table: TrafficTable, token: int, **notes: str) -> Object:
    """Return an object that carries the table, this writer's token, and other annotations by their full names.

    Raises StaleLease when a newer writer was there.
    """
    fresh = marked(item, token)
    fresh["metadata"]["annotations"] |= {TRAFFIC: msgspec.json.encode(table).decode(), **notes}
    return fresh


def without_notes(item: Mapping[str, Any], *names: str) -> Object:
    """Return an object without these annotations."""
    fresh: Object = json.loads(json.dumps(item))
    notes = fresh["metadata"].get("annotations") or {}
    for name in names:
        notes.pop(name, None)
    if not notes:
        fresh["metadata"].pop("annotations", None)
    return fresh


def editors(item: Mapping[str, Any]) -> list[str]:
    """Return who wrote an object besides Forge, the newest first."""
    managers = (item.get("metadata") or {}).get("managedFields") or ()
    others = [
        each
        for each in managers
        if not str(each.get("manager", "")).startswith("forge") and not each.get("subresource")
    ]
    return [str(each.get("manager")) for each in sorted(others, key=lambda each: str(each.get("time")), reverse=True)]
