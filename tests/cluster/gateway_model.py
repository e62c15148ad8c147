"""What the test cluster's gateway serves, whichever API it was written in: doors, virtual hosts, rules, shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster.node_api import Key, Object

VERSION_LABELS = ("version", "app.kubernetes.io/version", "forge.dev/version")


@dataclass(frozen=True)
class Backend:
    """A port of a Service, as one API's routes reach it. `stat` names its numbers in Envoy's statistics.

    `subset`: only the endpoints whose pods have these labels.
    """

    stat: str
    namespace: str
    service: str
    port: int
    subset: tuple[tuple[str, str], ...] = ()

    @property
    def endpoints(self) -> str:
        """Names the set of endpoints: backends that have the same share it."""
        labels = ",".join(f"{name}={value}" for name, value in self.subset)
        return f"{self.namespace}/{self.service}/{self.port}" + (f"/{labels}" if labels else "")


@dataclass(frozen=True)
class Share:
    """A part of a rule's requests; `backend` None: what was named is not there. Headers are set or added."""

    backend: Backend | None
    weight: int
    request_headers: tuple[tuple[str, str], ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Match:
    """What a rule is for: Envoy's own path specifier and matchers, and how precise they are."""

    path: tuple[str, str] = ("prefix", "/")
    headers: tuple[Any, ...] = ()
    queries: tuple[Any, ...] = ()
    precedence: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rule:
    """Where matching requests go. `mirrors`: a copy for each, with a share in millionths."""

    match: Match
    shares: tuple[Share, ...]
    mirrors: tuple[tuple[Backend, int], ...] = ()
    request_headers: tuple[tuple[str, str], ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()
    timeout: str = "60s"


@dataclass(frozen=True)
class VirtualHost:
    """The rules, the first that matches counts, of some domains."""

    domains: tuple[str, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Door:
    """Where clients connect: HTTP by `hosts`, or, as kube-proxy would, connections to `plain`."""

    name: str
    address: str
    port: int
    hosts: tuple[VirtualHost, ...] = ()
    plain: Backend | None = None


@dataclass
class World:
    """The cluster's objects that say what is to be served, by namespace and name."""

    gateway_classes: dict[Key, Object] = field(default_factory=dict)
    gateways: dict[Key, Object] = field(default_factory=dict)
    http_routes: dict[Key, Object] = field(default_factory=dict)
    virtual_services: dict[Key, Object] = field(default_factory=dict)
    destination_rules: dict[Key, Object] = field(default_factory=dict)
    ingresses: dict[Key, Object] = field(default_factory=dict)
    services: dict[Key, Object] = field(default_factory=dict)
    slices_by_service: dict[Key, dict[str, Object]] = field(default_factory=dict)
    pods: dict[Key, Object] = field(default_factory=dict)

    def service_port(self, namespace: str, name: str, wanted: int | str | None) -> int | None:
        """Return the number of a Service's port, told by number, by name or (None) as its only one."""
        service = self.services.get((namespace, name))
        ports = service["spec"].get("ports", ()) if service else ()
        for port in ports:
            if wanted in (port["port"], port.get("name")) or (wanted is None and len(ports) == 1):
                return int(port["port"])
        return None

    def slices_of(self, namespace: str, service: str) -> list[Object]:
        """Return a Service's EndpointSlices."""
        return list(self.slices_by_service.get((namespace, service), {}).values())

    def take_slice(self, before: Object | None, after: Object | None) -> None:
        """Keep `slices_by_service` as the slices are."""
        for each, stays in ((before, False), (after, True)):
            if each is None:
                continue
            meta = each["metadata"]
            key = meta["namespace"], (meta.get("labels") or {}).get("kubernetes.io/service-name", "")
            mine = self.slices_by_service.setdefault(key, {})
            mine.pop(meta["name"], None)
            if stays:
                mine[meta["name"]] = each

    def version_of(self, namespace: str, name: str) -> str:
        """Return which version a Service's selector picks: "unknown" where it picks any."""
        service = self.services.get((namespace, name))
        selector = (service["spec"].get("selector") if service else None) or {}
        return next((selector[label] for label in VERSION_LABELS if label in selector), "unknown")


@dataclass(frozen=True)
class StatusPatch:
    """What a controller writes into an object's status when what it says is in effect."""

    path: str
    status: Object
