"""`istio`: a VirtualService whose http routes send weighted shares to the versions' Services.

Source of the fields: the Istio reference, networking.istio.io/v1 (HTTPRoute, HTTPRouteDestination, HTTPMatchRequest).
Istio does not tell when its proxies have a change, so it counts as in effect after `propagation` seconds.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import VIRTUAL_SERVICE
from forge.adapters.kubernetes.naming import ORIGINAL, annotation
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import Backends
from forge.adapters.routers.propagation import Propagation
from forge.adapters.routers.routed import RoutedObject, needs_front, shares
from forge.model.configs import IstioRouterConfig
from forge.model.errors import UsageError
from forge.model.traffic import Route, TrafficTable

PREVIEW = "forge-"
"""How the names of routes begin that Forge adds for headers and cookies."""


class IstioRouter(RoutedObject):
    """The split of one environment in a mesh."""

    name = "istio"

    def __init__(
        self, cluster: Cluster, environment: str, config: IstioRouterConfig, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(
            cluster, environment, VIRTUAL_SERVICE, config.virtual_service, config.namespace, config.address
        )
        self._only = config.routes
        self._propagation = Propagation(config.propagation, clock)

    def routed(self, item: Object, table: TrafficTable, backends: Backends) -> Object:
        """Return the VirtualService with the table's split. See RoutedObject."""
        routes = self._original(item, backends)
        found = [route for route in routes if self._ours(route, backends.front)]
        needs_front(found, "VirtualService", self._route, backends.front)
        fresh: Object = json.loads(json.dumps(item))
        fresh["spec"]["http"] = [
            new for route in routes for new in (self._split(route, table, backends) if route in found else [route])
        ]
        fresh["metadata"].setdefault("annotations", {})[ORIGINAL] = json.dumps(routes, sort_keys=True)
        return self._propagation.begun(fresh)

    def restored(self, item: Object) -> Object:
        """Return the VirtualService with its own routes. See RoutedObject."""
        fresh: Object = json.loads(json.dumps(item))
        if annotation(item, ORIGINAL):
            fresh["spec"]["http"] = json.loads(annotation(item, ORIGINAL))
        return self._propagation.forgotten(fresh)

    def weights(self, item: Object, backends: Backends) -> dict[str, int]:
        """Return the split of the first route that has versions and is not one for a header. See RoutedObject."""
        versions = {name: version for version, name in backends.services.items()}
        for route in item["spec"].get("http") or ():
            found: dict[str, int] = {}
            for each in route.get("route") or ():
                name = _host(each).partition(".")[0]
                if name in versions and not str(route.get("name", "")).startswith(PREVIEW):
                    found[versions[name]] = int(each.get("weight", 100))
            if found:
                return shares(found)
        return {}

    def confirmed(self, item: Object) -> bool:
        """Whether it is long enough ago that every proxy has it. See RoutedObject."""
        return self._propagation.over(item)

    def _original(self, item: Object, backends: Backends) -> list[dict[str, Any]]:
        routes: list[dict[str, Any]] = item["spec"].get("http") or []
        if any(self._ours(route, backends.front) for route in routes) or not annotation(item, ORIGINAL):
            return routes
        kept: list[dict[str, Any]] = json.loads(annotation(item, ORIGINAL))
        return kept

    def _ours(self, route: dict[str, Any], front: str) -> bool:
        if self._only and route.get("name") not in self._only:
            return False
        hosts = [_host(each) for each in route.get("route") or ()]
        mine = [host for host in hosts if host.partition(".")[0] == front]
        if mine and len(hosts) > 1:
            raise UsageError(
                f"a route of VirtualService {self._route} splits traffic between {' and '.join(hosts)} by itself",
                hint=f"let it point at {front} alone: its versions are split by Forge",
            )
        return bool(mine)

    def _split(self, route: dict[str, Any], table: TrafficTable, backends: Backends) -> list[dict[str, Any]]:
        (reference,) = route["route"]
        mirrored = _with_mirror(route, reference, table.routes, backends)
        previews = [
            _preview(mirrored, reference, each, backends, number)
            for number, each in enumerate(table.routes)
            if each.header or each.cookie
        ]
        weights = _reduced({version: weight for version, weight in table.weights.items() if weight})
        split = [
            {**_to(reference, backends.service(version), backends.front), "weight": weight}
            for version, weight in weights.items()
        ]
        return [*previews, {**mirrored, "route": split}]


def _host(destination: dict[str, Any]) -> str:
    return str((destination.get("destination") or {}).get("host", ""))


def _to(reference: dict[str, Any], service: str, front: str) -> dict[str, Any]:
    """Return a destination like `reference` at another Service, with the end of its host as it was; no subset, which
    is one of the front's."""
    destination = {key: value for key, value in reference["destination"].items() if key != "subset"}
    destination["host"] = service + str(destination["host"])[len(front) :]
    return {**{key: value for key, value in reference.items() if key != "weight"}, "destination": destination}


def _reduced(weights: dict[str, int]) -> dict[str, int]:
    """Return weights as percent where they are whole ones, else in the smallest whole numbers: Istio takes any."""
    if all(weight % 100 == 0 for weight in weights.values()):
        return {version: weight // 100 for version, weight in weights.items()}
    divisor = math.gcd(*weights.values())
    return {version: weight // divisor for version, weight in weights.items()}


def _preview(
    route: dict[str, Any], reference: dict[str, Any], wanted: Route, backends: Backends, number: int
) -> dict[str, Any]:
    service = backends.service(wanted.version)
    if wanted.header:
        match = {wanted.header.lower(): {"exact": wanted.value}}
    else:
        match = {"cookie": {"regex": f"^(.*;[ ]*)?{re.escape(wanted.cookie)}={re.escape(wanted.value)}([ ]*;.*)?$"}}
    given: list[dict[str, Any]] = route.get("match") or [{}]
    matches = [{**each, "headers": {**(each.get("headers") or {}), **match}} for each in given]
    only = [_to(reference, service, backends.front)]
    return {**route, "name": f"{PREVIEW}{service}-{number}", "match": matches, "route": only}


def _with_mirror(
    route: dict[str, Any], reference: dict[str, Any], routes: tuple[Route, ...], backends: Backends
) -> dict[str, Any]:
    copies = [
        {
            "destination": _to(reference, backends.service(each.version), backends.front)["destination"],
            "percentage": {"value": each.mirror / 100},
        }
        for each in routes
        if each.mirror
    ]
    return {**route, "mirrors": [*(route.get("mirrors") or ()), *copies]} if copies else route
