"""`gateway_api`: an HTTPRoute or GRPCRoute whose rules send weighted shares to the versions' Services.

Source of the fields: the Gateway API reference, gateway.networking.k8s.io/v1 (HTTPRouteRule, HTTPBackendRef,
RouteParentStatus). Cookies and sessions are not done: matching a cookie needs regular expressions and keeping a session
needs `sessionPersistence`, which gateways may or may not have, and a route cannot ask.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import GATEWAY, GRPC_ROUTE, HTTP_ROUTE
from forge.adapters.kubernetes.naming import ORIGINAL, annotation, name_for_version, version_slug
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import Backends, table_of, with_notes
from forge.adapters.routers.originals import Rule, RuleForm, canonical, contains, own_rules
from forge.adapters.routers.routed import RoutedObject, needs_front, shares
from forge.model.configs import GatewayApiRouterConfig
from forge.model.errors import UsageError
from forge.model.traffic import Route, TrafficTable

_KINDS = {"HTTPRoute": HTTP_ROUTE, "GRPCRoute": GRPC_ROUTE}


class GatewayApiRouter(RoutedObject):
    """The split of one environment behind a gateway."""

    name = "gateway_api"
    split_at = ("spec", "rules")

    def __init__(self, cluster: Cluster, environment: str, config: GatewayApiRouterConfig) -> None:
        kind = _KINDS[config.kind]
        super().__init__(cluster, environment, kind, config.route, config.namespace, config.address)

    def routed(self, item: Object, table: TrafficTable, backends: Backends) -> Object:
        """Return the route with the table's split. See RoutedObject."""
        form = GatewayRules(item, backends)
        own = form.own()
        needs_front([rule for rule in own if form.at_front(rule)], self._kind.name, self._route, backends.front)
        fresh = {**item, "spec": {**item["spec"], "rules": form.split(own, table)}}
        return with_notes(fresh, **{ORIGINAL: canonical(own)})

    def restored(self, item: Object, backends: Backends) -> Object:
        """Return the route with its own rules. See RoutedObject."""
        return {**item, "spec": {**item["spec"], "rules": GatewayRules(item, backends).own()}}

    def stands(self, item: Object, table: TrafficTable, backends: Backends) -> bool:
        """Whether the rules are split by the table. See RoutedObject."""
        form = GatewayRules(item, backends)
        try:
            return contains(form.rules, form.split(form.own(), table))
        except UsageError:
            return False

    def splits(self, item: Object, backends: Backends) -> list[dict[str, int]]:
        """Return the splits of rules that send to versions. See RoutedObject."""
        form = GatewayRules(item, backends)
        versions = {name: version for version, name in backends.services.items()}
        found: list[dict[str, int]] = []
        for rule in form.rules:
            references = [ref for ref in rule.get("backendRefs") or () if ref.get("name") in versions]
            if references and not form.is_added(rule):
                found.append(shares({versions[ref["name"]]: int(ref.get("weight", 1)) for ref in references}))
        return found

    def confirmed(self, item: Object) -> bool:
        """Whether every gateway of the route accepted all of this generation and resolved its references."""
        generation = item["metadata"].get("generation", 0)
        told = (item.get("status") or {}).get("parents") or ()
        wanted = item["spec"].get("parentRefs") or ()
        good = sum(_accepted(parent.get("conditions") or (), generation) for parent in told)
        return bool(told) and good >= len(wanted)

    async def _found_address(self, item: Object) -> str:
        for parent in item["spec"].get("parentRefs") or ():
            if parent.get("kind", "Gateway") != "Gateway":
                continue
            gateway = await self._cluster.get(GATEWAY, parent["name"], parent.get("namespace") or self._namespace)
            if gateway is not None and (found := _address(gateway, parent)):
                return found
        return ""


class GatewayRules(RuleForm):
    """The rules of one route, and what of them is about the environment."""

    def __init__(self, item: Object, backends: Backends) -> None:
        self.rules: list[Rule] = item["spec"].get("rules") or []
        self._backends = backends
        self._home = str(item["metadata"].get("namespace", ""))
        self._noted: list[Rule] = json.loads(annotation(item, ORIGINAL) or "[]")
        table = table_of(item)
        self._known = backends.ever(table)
        self._routes = table.routes if table else ()

    def own(self) -> list[Rule]:
        """Return the rules without any split."""
        return own_rules(self.rules, self._noted, self)

    def split(self, rules: Iterable[Rule], table: TrafficTable) -> list[Rule]:
        """Return the rules with every one that points at the Service split by the table.

        Rules for headers come before the rule that they narrow; Gateway API prefers the more specific match anyway.
        """
        return [each for rule in rules for each in (self._split(rule, table) if self.at_front(rule) else [rule])]

    def at_front(self, rule: Rule) -> bool:
        """Whether a rule points at the Service alone. See RuleForm."""
        references = rule.get("backendRefs") or ()
        fronts = [ref for ref in references if self._is(ref, {self._backends.front})]
        others = [str(ref.get("name")) for ref in references if not self._is(ref, {self._backends.front, *self._known})]
        if fronts and others:
            raise UsageError(
                f"a rule splits traffic between {self._backends.front} and {' and '.join(others)} by itself",
                hint=f"let it point at {self._backends.front} alone: its versions are split by Forge",
            )
        return bool(fronts) and len(references) == 1

    def at_versions(self, rule: Rule) -> bool:
        """Whether a rule points at versions. See RuleForm."""
        references = rule.get("backendRefs") or ()
        return bool(references) and all(self._is(ref, {self._backends.front, *self._known}) for ref in references)

    def is_added(self, rule: Rule) -> bool:
        """Whether a rule narrows another by a header of the table, to that one version. See RuleForm."""
        references: list[Rule] = rule.get("backendRefs") or []
        matches: list[Rule] = rule.get("matches") or []
        if len(references) != 1 or not matches or not self._is(references[0], self._known):
            return False
        (only,) = references
        return any(
            route.header
            and only.get("name") == self._service(route.version)
            and all(_header(route) in (match.get("headers") or ()) for match in matches)
            for route in self._routes
        )

    def key(self, rule: Rule) -> str:
        """Return its matches. See RuleForm."""
        return canonical(rule.get("matches") or [])

    def undone(self, rule: Rule, before: Rule | None) -> Rule:
        """Return the rule at the Service again, without Forge's mirrors. See RuleForm."""
        given = (before or {}).get("filters") or ()
        filters = [each for each in rule.get("filters") or () if each in given or not self._is_copy(each)]
        fresh = {key: value for key, value in rule.items() if key not in {"filters", "backendRefs"}}
        if filters:
            fresh["filters"] = filters
        if before is not None:
            return {**fresh, "backendRefs": before["backendRefs"]}
        reference = {key: value for key, value in rule["backendRefs"][0].items() if key != "weight"}
        return {**fresh, "backendRefs": [{**reference, "name": self._backends.front}]}

    def _split(self, rule: Rule, table: TrafficTable) -> list[Rule]:
        (reference,) = rule["backendRefs"]
        copies = [self._copy(route, reference) for route in table.routes if route.mirror]
        filters = [*(rule.get("filters") or ()), *copies]
        mirrored = {**rule, "filters": filters} if copies else rule
        split = [self._to(version, reference, weight) for version, weight in table.weights.items() if weight]
        narrowed = [self._narrowed(mirrored, reference, route) for route in table.routes if route.header]
        return [*(each for each in narrowed if each["matches"]), {**mirrored, "backendRefs": split}]

    def _narrowed(self, rule: Rule, reference: Rule, route: Route) -> Rule:
        # A match has one condition for a header: where the user's own rule has one, that rule keeps its requests.
        matches = [
            {**match, "headers": [*(match.get("headers") or []), _header(route)]}
            for match in rule.get("matches") or [{}]
            if route.header.lower() not in {str(each.get("name")).lower() for each in match.get("headers") or ()}
        ]
        fresh = {key: value for key, value in rule.items() if key != "name"}
        return {**fresh, "matches": matches, "backendRefs": [self._to(route.version, reference, 1)]}

    def _to(self, version: str, reference: Rule, weight: int) -> Rule:
        return {**reference, "name": self._backends.service(version), "weight": weight}

    def _copy(self, route: Route, reference: Rule) -> Rule:
        backend = {key: value for key, value in reference.items() if key not in {"weight", "filters"}}
        mirror: Rule = {"backendRef": backend | {"name": self._backends.service(route.version)}}
        if route.mirror < 10_000:
            mirror["fraction"] = {"numerator": route.mirror, "denominator": 10_000}
        return {"type": "RequestMirror", "requestMirror": mirror}

    def _is_copy(self, one: Rule) -> bool:
        return self._is((one.get("requestMirror") or {}).get("backendRef") or {}, self._known)

    def _is(self, reference: Rule, names: Collection[str]) -> bool:
        a_service = reference.get("kind", "Service") == "Service" and not reference.get("group")
        here = self._backends.is_here(str(reference.get("namespace") or self._home))
        return a_service and here and reference.get("name") in names

    def _service(self, version: str) -> str:
        gone = name_for_version(self._backends.front, version_slug(version))
        return self._backends.services.get(version, gone)


def _header(route: Route) -> dict[str, Any]:
    if not route.value:
        return {"type": "RegularExpression", "name": route.header, "value": ".*"}
    return {"type": "Exact", "name": route.header, "value": route.value}


def _accepted(conditions: Any, generation: int) -> bool:
    known = {each.get("type"): each for each in conditions}
    if known.get("PartiallyInvalid", {}).get("status") == "True":
        return False
    return all(
        known.get(kind, {}).get("status") == "True" and known[kind].get("observedGeneration", 0) >= generation
        for kind in ("Accepted", "ResolvedRefs")
    )


def _address(gateway: Object, parent: Rule) -> str:
    addresses = (gateway.get("status") or {}).get("addresses") or ()
    listeners = [
        each
        for each in gateway["spec"].get("listeners") or ()
        if parent.get("sectionName") in {None, each.get("name")} and parent.get("port") in {None, each.get("port")}
    ]
    if not addresses or not listeners:
        return ""
    scheme = "https" if listeners[0].get("protocol") in {"HTTPS", "TLS"} else "http"
    port = int(listeners[0].get("port", 80))
    usual = {"http": 80, "https": 443}[scheme]
    host = str(addresses[0].get("value"))
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{'' if port == usual else f':{port}'}"
