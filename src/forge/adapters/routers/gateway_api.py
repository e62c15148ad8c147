"""`gateway_api`: an HTTPRoute or GRPCRoute whose rules send weighted shares to the versions' Services.

Source of the fields: the Gateway API reference, gateway.networking.k8s.io/v1 (HTTPRouteRule, HTTPBackendRef,
RouteParentStatus).
"""

from __future__ import annotations

import json
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import GATEWAY, GRPC_ROUTE, HTTP_ROUTE
from forge.adapters.kubernetes.naming import ORIGINAL, annotation
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import Backends
from forge.adapters.routers.routed import RoutedObject, needs_front, shares
from forge.model.configs import GatewayApiRouterConfig
from forge.model.errors import UsageError
from forge.model.traffic import Route, TrafficTable

_KINDS = {"HTTPRoute": HTTP_ROUTE, "GRPCRoute": GRPC_ROUTE}


class GatewayApiRouter(RoutedObject):
    """The split of one environment behind a gateway."""

    name = "gateway_api"

    def __init__(self, cluster: Cluster, environment: str, config: GatewayApiRouterConfig) -> None:
        kind = _KINDS[config.kind]
        super().__init__(cluster, environment, kind, config.route, config.namespace, config.address)

    def routed(self, item: Object, table: TrafficTable, backends: Backends) -> Object:
        """Return the route with the table's split. See RoutedObject."""
        rules = original_rules(item, backends.front)
        fresh: Object = json.loads(json.dumps(item))
        needs_front(
            [rule for rule in rules if _ours(rule, backends.front)], self._kind.name, self._route, backends.front
        )
        fresh["spec"]["rules"] = split_rules(rules, table, backends)
        notes = fresh["metadata"].setdefault("annotations", {})
        notes[ORIGINAL] = json.dumps(rules, sort_keys=True)
        return fresh

    def restored(self, item: Object) -> Object:
        """Return the route with its own rules. See RoutedObject."""
        fresh: Object = json.loads(json.dumps(item))
        if annotation(item, ORIGINAL):
            fresh["spec"]["rules"] = json.loads(annotation(item, ORIGINAL))
        return fresh

    def weights(self, item: Object, backends: Backends) -> dict[str, int]:
        """Return the split of the first rule that has all versions. See RoutedObject."""
        versions = {name: version for version, name in backends.services.items()}
        best: dict[str, int] = {}
        for rule in item["spec"].get("rules") or ():
            found = {
                versions[ref["name"]]: int(ref.get("weight", 1))
                for ref in rule.get("backendRefs") or ()
                if ref.get("name") in versions and not _is_preview(rule, item)
            }
            if len(found) > len(best):
                best = found
        return shares(best)

    def confirmed(self, item: Object) -> bool:
        """Whether every gateway of the route accepted this generation and resolved its references."""
        generation = item["metadata"].get("generation", 0)
        told = (item.get("status") or {}).get("parents") or ()
        wanted = item["spec"].get("parentRefs") or ()
        good = sum(_accepted(parent.get("conditions") or (), generation) for parent in told)
        return bool(told) and good >= len(wanted)

    async def _found_address(self, item: Object) -> str:
        for parent in item["spec"].get("parentRefs") or ():
            namespace = parent.get("namespace") or self._namespace
            gateway = await self._cluster.get(GATEWAY, parent["name"], namespace)
            if gateway is not None:
                found = _address(gateway, parent.get("sectionName", ""))
                if found:
                    return found
        return ""


def original_rules(item: Object, front: str) -> list[dict[str, Any]]:
    """Return the rules as the user wrote them: what stands there while it still points at the Service (somebody applied
    the manifest again), else what was there before Forge split it."""
    rules: list[dict[str, Any]] = item["spec"].get("rules") or []
    if any(_ours(rule, front) for rule in rules) or not annotation(item, ORIGINAL):
        return rules
    kept: list[dict[str, Any]] = json.loads(annotation(item, ORIGINAL))
    return kept


def split_rules(rules: list[dict[str, Any]], table: TrafficTable, backends: Backends) -> list[dict[str, Any]]:
    """Return the rules with every one that points at the Service split by the table.

    Rules for headers come before the rule that they narrow; Gateway API prefers the more specific match anyway.
    Raises UsageError for a rule that splits by itself.
    """
    fresh: list[dict[str, Any]] = []
    for rule in rules:
        if not _ours(rule, backends.front):
            fresh.append(rule)
            continue
        (reference,) = rule["backendRefs"]
        mirrored = _with_mirrors(rule, reference, table.routes, backends)
        fresh += [_previewed(mirrored, reference, route, backends) for route in table.routes if route.header]
        split = [
            {**reference, "name": backends.service(version), "weight": weight}
            for version, weight in table.weights.items()
            if weight
        ]
        fresh.append({**mirrored, "backendRefs": split})
    return fresh


def _ours(rule: dict[str, Any], front: str) -> bool:
    names = [ref.get("name") for ref in rule.get("backendRefs") or ()]
    if front in names and len(names) > 1:
        raise UsageError(
            f"a rule splits traffic between {' and '.join(map(str, names))} by itself",
            hint=f"let it point at {front} alone: its versions are split by Forge",
        )
    return names == [front]


def _previewed(rule: dict[str, Any], reference: dict[str, Any], route: Route, backends: Backends) -> dict[str, Any]:
    header = {"type": "Exact", "name": route.header, "value": route.value}
    given: list[dict[str, Any]] = rule.get("matches") or [{}]
    matches = [{**match, "headers": [*(match.get("headers") or ()), header]} for match in given]
    only = {**reference, "name": backends.service(route.version)}
    only.pop("weight", None)
    return {**{key: value for key, value in rule.items() if key != "name"}, "matches": matches, "backendRefs": [only]}


def _with_mirrors(
    rule: dict[str, Any], reference: dict[str, Any], routes: tuple[Route, ...], backends: Backends
) -> dict[str, Any]:
    copies = [
        {
            "type": "RequestMirror",
            "requestMirror": {
                "backendRef": {key: value for key, value in reference.items() if key not in {"weight", "filters"}}
                | {"name": backends.service(route.version)},
                **({"fraction": {"numerator": route.mirror, "denominator": 10_000}} if route.mirror < 10_000 else {}),
            },
        }
        for route in routes
        if route.mirror
    ]
    return {**rule, "filters": [*(rule.get("filters") or ()), *copies]} if copies else rule


def _is_preview(rule: dict[str, Any], item: Object) -> bool:
    """Whether a rule was added for a header: it has one version, and one header more than any rule of the user's."""
    if len(rule.get("backendRefs") or ()) != 1:
        return False
    own = json.loads(annotation(item, ORIGINAL) or "[]")
    return not any((rule.get("matches") or []) == (each.get("matches") or []) for each in own)


def _accepted(conditions: Any, generation: int) -> bool:
    known = {each.get("type"): each for each in conditions}
    return all(
        known.get(kind, {}).get("status") == "True" and known[kind].get("observedGeneration", 0) >= generation
        for kind in ("Accepted", "ResolvedRefs")
    )


def _address(gateway: Object, section: str) -> str:
    addresses = (gateway.get("status") or {}).get("addresses") or ()
    listeners = [each for each in gateway["spec"].get("listeners") or () if section in {"", each.get("name")}]
    if not addresses or not listeners:
        return ""
    scheme = "https" if listeners[0].get("protocol") in {"HTTPS", "TLS"} else "http"
    port = int(listeners[0].get("port", 80))
    usual = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{addresses[0].get('value')}{'' if port == usual else f':{port}'}"
