"""What routers on a cluster share: the Services that stand for versions, and the table kept on the routed object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import marked
from forge.adapters.kubernetes.kinds import ENDPOINT_SLICE, SERVICE
from forge.adapters.kubernetes.naming import (
    ENVIRONMENT,
    FRONT,
    MANAGED_BY,
    MANAGER,
    ORIGINAL,
    TOKEN,
    TRAFFIC,
    VERSION_ID,
    annotation,
    label,
    labels_of,
    name_for_version,
    selector,
    version_slug,
)
from forge.adapters.kubernetes.objects import Object
from forge.model.configs import ROUTER_CAPABILITIES, ROUTERS_OF
from forge.model.errors import DependencyFailed, UsageError
from forge.model.traffic import TrafficTable

BEFORE = "forge.dev/traffic-before"
"""Annotation: the table that was in effect when the present one was written, until the controller confirms that."""
WRITTEN_AT = "forge.dev/written-at"
"""Annotation: when the split was written, in seconds since the epoch."""
_WORDS = {
    "sticky": "keep a client at one version",
    "header_routes": "send requests to a version by a header",
    "cookie_routes": "send requests to a version by a cookie",
    "mirror": "mirror requests to a version",
}
_SERVICE_OF_SLICE = "kubernetes.io/service-name"


class Backends(msgspec.Struct, frozen=True):
    """The Services of an environment: `front` is the one that clients know, `services` those of its versions."""

    front: str
    services: dict[str, str]
    """Name by version id."""
    namespace: str = ""
    """Where they are; empty: not known, and names alone tell."""

    def service(self, version: str) -> str:
        """Return the Service of a version. Raises DependencyFailed when it has none."""
        if version not in self.services:
            raise DependencyFailed(f"{version} has no Service yet", hint="it is made with the version's workload")
        return self.services[version]

    @property
    def names(self) -> frozenset[str]:
        """The names of all versions' Services."""
        return frozenset(self.services.values())

    def gone(self, table: TrafficTable) -> list[str]:
        """Return the versions of a table that have no Service."""
        asked = [version for version, weight in table.weights.items() if weight]
        return sorted({*asked, *(route.version for route in table.routes)} - set(self.services))

    def is_here(self, namespace: str) -> bool:
        """Whether a reference into that namespace may mean one of these Services."""
        return not (namespace and self.namespace) or namespace == self.namespace

    def ever(self, table: TrafficTable | None) -> frozenset[str]:
        """Return the names of versions' Services, also of those that a table names and that are gone by now."""
        asked = [] if table is None else [*table.weights, *(route.version for route in table.routes)]
        return self.names | {name_for_version(self.front, version_slug(version)) for version in asked}


async def find_backends(cluster: Cluster, environment: str, namespace: str = "") -> Backends:
    """Return the Services of an environment. Raises DependencyFailed before its first version has one."""
    labels = selector(labels_of(environment))
    found, _ = await cluster.objects(SERVICE, labels=labels, namespace=namespace)
    services = {annotation(item, VERSION_ID): item["metadata"]["name"] for item in found if annotation(item, FRONT)}
    fronts = sorted({annotation(item, FRONT) for item in found} - {""})
    if not fronts:
        raise DependencyFailed(f"no version of {environment} has a Service", hint="a router needs one in the manifests")
    return Backends(fronts[-1], services, namespace or cluster.namespace)


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


def check_able(table: TrafficTable, router: str) -> None:
    """Raise UsageError for a table that asks for what the router cannot do; a plan that does is refused before."""
    able = ROUTER_CAPABILITIES[router]
    asked = {
        "sticky": table.sticky,
        "header_routes": any(route.header for route in table.routes),
        "cookie_routes": any(route.cookie for route in table.routes),
        "mirror": any(route.mirror for route in table.routes),
    }
    needed = {name for name, wanted in asked.items() if wanted}
    if lacking := [_WORDS[name] for name in asked if name in needed - able]:
        others = [name for name in sorted(ROUTERS_OF["kubernetes"]) if needed <= ROUTER_CAPABILITIES[name]]
        hint = f"{' and '.join(others)} can" if others else "no router of a cluster can"
        raise UsageError(f"the router `{router}` cannot {' or '.join(lacking)}", hint=hint)


def table_of(item: Mapping[str, Any], name: str = TRAFFIC) -> TrafficTable | None:
    """Return the table that was written on an object, None for none (or one that nobody understands)."""
    text = annotation(item, name)
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


def with_notes(item: Mapping[str, Any], **notes: str) -> Object:
    """Return an object with more annotations, by their full names."""
    metadata = dict(item.get("metadata") or {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes}
    return {**item, "metadata": metadata}


def without_notes(item: Mapping[str, Any], *names: str) -> Object:
    """Return an object without these annotations."""
    fresh: Object = json.loads(json.dumps(item))
    notes = fresh["metadata"].get("annotations") or {}
    for name in names:
        notes.pop(name, None)
    if not notes:
        fresh["metadata"].pop("annotations", None)
    return fresh


def without_marks(item: Mapping[str, Any]) -> Object:
    """Return an object without anything that tells of Forge, as whoever has it next wants it."""
    fresh = without_notes(item, ORIGINAL, TRAFFIC, BEFORE, TOKEN, WRITTEN_AT)
    fresh["metadata"].pop("managedFields", None)
    labels = fresh["metadata"].get("labels") or {}
    if label(fresh, MANAGED_BY) == MANAGER:
        for name in (MANAGED_BY, ENVIRONMENT):
            labels.pop(name, None)
    if not labels:
        fresh["metadata"].pop("labels", None)
    return fresh


def owners(item: Mapping[str, Any], *path: str) -> list[str]:
    """Return who besides Forge wrote what stands at a path of an object last (`spec`, `rules`), the newest first.

    A manager owns what it was the last to change, so Forge's own split is in nobody else's hands.
    """
    managers = (item.get("metadata") or {}).get("managedFields") or ()
    others = [each for each in managers if not str(each.get("manager", "")).startswith(MANAGER)]
    found = [each for each in others if not each.get("subresource") and _holds(each.get("fieldsV1") or {}, path)]
    newest_first = sorted(found, key=lambda each: str(each.get("time")), reverse=True)
    return [str(each.get("manager")) for each in newest_first]


def _holds(fields: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    for name in path:
        if f"f:{name}" not in fields:
            return False
        fields = fields[f"f:{name}"]
    return True
