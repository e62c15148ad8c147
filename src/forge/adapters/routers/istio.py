"""`istio`: a VirtualService whose http routes send weighted shares to the versions' Services.

Source of the fields: the Istio reference, networking.istio.io/v1 (HTTPRoute, HTTPRouteDestination, HTTPMatchRequest).
Istio does not tell when its proxies have a change, so it counts as in effect after `propagation` seconds. No
DestinationRule is touched: a version is a Service of its own, not a subset.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import VIRTUAL_SERVICE
from forge.adapters.kubernetes.naming import ORIGINAL, annotation
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import Backends, table_of, with_notes
from forge.adapters.routers.originals import Rule, RuleForm, canonical, contains, own_rules
from forge.adapters.routers.propagation import Propagation
from forge.adapters.routers.routed import RoutedObject, needs_front, shares
from forge.model.configs import IstioRouterConfig
from forge.model.errors import UsageError
from forge.model.traffic import Route, TrafficTable

ADDED = "forge-"
"""How the names of routes begin that Forge adds for headers and cookies."""


class IstioRouter(RoutedObject):
    """The split of one environment in a mesh."""

    name = "istio"
    split_at = ("spec", "http")

    def __init__(
        self, cluster: Cluster, environment: str, config: IstioRouterConfig, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(
            cluster, environment, VIRTUAL_SERVICE, config.virtual_service, config.namespace, config.address
        )
        self._only = config.routes
        self.propagation = config.propagation
        self._propagation = Propagation(config.propagation, clock)

    def routed(self, item: Object, table: TrafficTable, backends: Backends) -> Object:
        """Return the VirtualService with the table's split. See RoutedObject."""
        form = IstioRoutes(item, backends, self._only)
        own = form.own()
        needs_front([rule for rule in own if form.at_front(rule)], "VirtualService", self._route, backends.front)
        fresh = {**item, "spec": {**item["spec"], "http": form.split(own, table)}}
        return with_notes(fresh, **{ORIGINAL: canonical(own)})

    def restored(self, item: Object, backends: Backends) -> Object:
        """Return the VirtualService with its own routes. See RoutedObject."""
        return {**item, "spec": {**item["spec"], "http": IstioRoutes(item, backends, self._only).own()}}

    def stands(self, item: Object, table: TrafficTable, backends: Backends) -> bool:
        """Whether the routes are split by the table. See RoutedObject."""
        form = IstioRoutes(item, backends, self._only)
        try:
            return contains(form.rules, form.split(form.own(), table))
        except UsageError:
            return False

    def splits(self, item: Object, backends: Backends) -> list[dict[str, int]]:
        """Return the splits of routes that send to versions. See RoutedObject."""
        form = IstioRoutes(item, backends, self._only)
        versions = {name: version for version, name in backends.services.items()}
        found: list[dict[str, int]] = []
        for rule in form.rules:
            destinations = [each for each in rule.get("route") or () if _service(each) in versions]
            whole = 100 if len(rule.get("route") or ()) == 1 else 0
            if destinations and not form.is_added(rule):
                weighted = {versions[_service(each)]: int(each.get("weight", whole)) for each in destinations}
                found.append(shares(weighted))
        return found

    def confirmed(self, item: Object) -> bool:
        """Whether it is long enough ago that every proxy has it. See RoutedObject."""
        return self._propagation.over(item)

    def begun(self, item: Object) -> Object:
        """Return the object with the time of its change. See RoutedObject."""
        return self._propagation.begun(item)

    async def _found_address(self, item: Object) -> str:
        hosts = [str(host) for host in item["spec"].get("hosts") or () if "*" not in str(host)]
        return f"http://{hosts[0]}" if hosts else ""


class IstioRoutes(RuleForm):
    """The http routes of one VirtualService, and what of them is about the environment."""

    def __init__(self, item: Object, backends: Backends, only: Iterable[str] = ()) -> None:
        self.rules: list[Rule] = item["spec"].get("http") or []
        self._backends = backends
        self._home = str(item["metadata"].get("namespace", ""))
        self._title = f"VirtualService {item['metadata']['name']}"
        self._only = frozenset(only)
        self._noted: list[Rule] = json.loads(annotation(item, ORIGINAL) or "[]")
        self._known = backends.ever(table_of(item))

    def own(self) -> list[Rule]:
        """Return the routes without any split."""
        return own_rules(self.rules, self._noted, self)

    def split(self, rules: Iterable[Rule], table: TrafficTable) -> list[Rule]:
        """Return the routes with every one that points at the Service split by the table.

        Routes for headers and cookies come before the one that they narrow: the first that matches counts.
        """
        fresh: list[Rule] = []
        position = itertools.count()
        for rule in rules:
            fresh += self._split(rule, table, next(position)) if self.at_front(rule) else [rule]
        return fresh

    def at_front(self, rule: Rule) -> bool:
        """Whether a route points at the Service alone. See RuleForm."""
        if self._only and rule.get("name") not in self._only:
            return False
        destinations = rule.get("route") or ()
        fronts = [each for each in destinations if self._is(each, {self._backends.front})]
        known = {self._backends.front, *self._known}
        others = [str(each["destination"].get("host")) for each in destinations if not self._is(each, known)]
        if fronts and others:
            raise UsageError(
                f"a route of {self._title} splits traffic between {self._backends.front} and {' and '.join(others)} "
                "by itself",
                hint=f"let it point at {self._backends.front} alone: its versions are split by Forge",
            )
        return bool(fronts) and len(destinations) == 1

    def at_versions(self, rule: Rule) -> bool:
        """Whether a route points at versions. See RuleForm."""
        destinations = rule.get("route") or ()
        known = {self._backends.front, *self._known}
        return bool(destinations) and all(self._is(each, known) for each in destinations)

    def is_added(self, rule: Rule) -> bool:
        """Whether Forge added the route; its name tells. See RuleForm."""
        return str(rule.get("name", "")).startswith(ADDED) and self.at_versions(rule)

    def key(self, rule: Rule) -> str:
        """Return its name and matches. See RuleForm."""
        return canonical([rule.get("name", ""), rule.get("match") or []])

    def undone(self, rule: Rule, before: Rule | None) -> Rule:
        """Return the route at the Service again, without Forge's mirrors. See RuleForm."""
        fresh = {key: value for key, value in rule.items() if key not in {"route", "mirror", "mirrors"}}
        if "mirror" in rule and not self._is({"destination": rule["mirror"]}, self._known):
            fresh["mirror"] = rule["mirror"]
        elif "mirror" in rule:
            fresh.pop("mirrorPercentage", None)
        if mirrors := [each for each in rule.get("mirrors") or () if not self._is(each, self._known)]:
            fresh["mirrors"] = mirrors
        if before is not None:
            return {**fresh, "route": before["route"]}
        reference = rule["route"][0]
        plain = {key: value for key, value in reference.items() if key != "weight"}
        host = str(reference["destination"]["host"])
        to = {**reference["destination"], "host": self._backends.front + host[len(_service(reference)) :]}
        return {**fresh, "route": [{**plain, "destination": to}]}

    def _split(self, rule: Rule, table: TrafficTable, position: int) -> list[Rule]:
        (reference,) = rule["route"]
        mirrored = self._mirrored(rule, reference, table.routes)
        weights = _reduced({version: weight for version, weight in table.weights.items() if weight})
        split = [{**self._to(version, reference), "weight": weight} for version, weight in weights.items()]
        narrowed = [
            self._narrowed(mirrored, reference, route, f"{position}-{number}")
            for number, route in enumerate(table.routes)
            if route.header or route.cookie
        ]
        return [*(each for each in narrowed if each["match"]), {**mirrored, "route": split}]

    def _narrowed(self, rule: Rule, reference: Rule, route: Route, place: str) -> Rule:
        wanted = _conditions(route)
        matches = [
            {**match, "headers": {**(match.get("headers") or {}), **wanted}}
            for match in rule.get("match") or [{}]
            # A match has one condition for a header: where the user's own has one, it keeps its requests.
            if not {name.lower() for name in match.get("headers") or {}} & set(wanted)
        ]
        name = f"{ADDED}{self._backends.service(route.version)}-{place}"
        return {**rule, "name": name, "match": matches, "route": [self._to(route.version, reference)]}

    def _mirrored(self, rule: Rule, reference: Rule, routes: tuple[Route, ...]) -> Rule:
        copies = [
            {
                "destination": self._to(each.version, reference)["destination"],
                "percentage": {"value": each.mirror / 100},
            }
            for each in routes
            if each.mirror
        ]
        if not copies:
            return rule
        if "mirror" in rule:
            raise UsageError(
                f"a route of {self._title} mirrors by itself",
                hint="write its `mirror` as one of `mirrors`, or remove it",
            )
        if len(copies) == 1 and not rule.get("mirrors"):
            return {**rule, "mirror": copies[0]["destination"], "mirrorPercentage": copies[0]["percentage"]}
        return {**rule, "mirrors": [*(rule.get("mirrors") or ()), *copies]}

    def _to(self, version: str, reference: Rule) -> Rule:
        """Return a destination like `reference` at a version's Service, with the end of its host as it was; no subset,
        which is one of the front's."""
        destination = {key: value for key, value in reference["destination"].items() if key != "subset"}
        host = str(destination["host"])
        destination["host"] = self._backends.service(version) + host[len(self._backends.front) :]
        return {**{key: value for key, value in reference.items() if key != "weight"}, "destination": destination}

    def _is(self, destination: Rule, names: Collection[str]) -> bool:
        host = str((destination.get("destination") or {}).get("host", ""))
        name, _, rest = host.partition(".")
        inside, _, domain = rest.partition(".")
        in_cluster = not domain or domain == "svc" or domain.startswith("svc.")
        return name in names and in_cluster and self._backends.is_here(inside or self._home)


def _service(destination: Rule) -> str:
    return str((destination.get("destination") or {}).get("host", "")).partition(".")[0]


def _reduced(weights: dict[str, int]) -> dict[str, int]:
    """Return weights as percent where they are whole ones, else in the smallest whole numbers: Istio takes any."""
    if all(weight % 100 == 0 for weight in weights.values()):
        return {version: weight // 100 for version, weight in weights.items()}
    divisor = math.gcd(*weights.values())
    return {version: weight // divisor for version, weight in weights.items()}


def _conditions(route: Route) -> dict[str, dict[str, Any]]:
    """Return what a request's headers have to be: an empty condition asks only that there is one."""
    wanted: dict[str, dict[str, Any]] = {}
    if route.header:
        wanted[route.header.lower()] = {"exact": route.value} if route.value else {}
    if route.cookie:
        value = re.escape(route.value) if route.value else "[^;]*"
        wanted["cookie"] = {"regex": f"^(.*;[ ]*)?{re.escape(route.cookie)}={value}([ ]*;.*)?$"}
    return wanted
