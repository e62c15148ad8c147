"""The Gateway API: Gateways become doors, HTTPRoutes their rules, and both are told what came of them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

from cluster.gateway_model import Backend, Door, Match, Rule, Share, StatusPatch, VirtualHost, World
from cluster.node_addresses import unprivileged
from cluster.node_api import Object

CONTROLLER = "forge.test/gateway"
FROZEN = "forge.test/frozen"
"""Annotation of a Gateway whose controller takes no changes of its routes any more (until it is taken away)."""
_API = "/apis/gateway.networking.k8s.io/v1"


class GatewayApi:
    """Reads GatewayClasses, Gateways and HTTPRoutes. `address_of` gives each Gateway a loopback address."""

    def __init__(self, address_of: Callable[[str, str], str]) -> None:
        self._address_of = address_of
        self._taken: dict[tuple[str, str], Object] = {}
        """Routes as they were last taken: a frozen gateway stays with them."""

    def doors(self, world: World) -> list[Door]:
        """Return a door for each port of each Gateway that is ours."""
        found, routes = [], _by_parent(self._routes(world))
        for key, gateway in sorted(self._ours(world).items()):
            for port in sorted({each["port"] for each in gateway["spec"]["listeners"]}):
                hosts: dict[str, list[Rule]] = {}
                for route in routes.get(key, ()):
                    for domain in _domains(gateway, route, port, world):
                        hosts.setdefault(domain, []).extend(_rules(route, world))
                address = self._address_of(*key)
                ordered = tuple(
                    VirtualHost((domain,), _by_precedence(rules)) for domain, rules in sorted(hosts.items())
                )
                found.append(Door(f"gateway-{key[0]}-{key[1]}-{port}", address, unprivileged(port), ordered))
        return found

    def statuses(self, world: World) -> list[StatusPatch]:
        """Return what differs from what the objects' statuses say."""
        ours, routes = self._ours(world), self._routes(world)
        attached = _by_parent(routes)
        wanted = [_class_status(each) for each in world.gateway_classes.values() if _is_ours(each)]
        wanted += [self._gateway_status(key, each, attached.get(key, []), world) for key, each in ours.items()]
        wanted += [self._route_status(route, ours, world) for route in routes]
        return [patch for patch in wanted if patch is not None]

    def _ours(self, world: World) -> dict[tuple[str, str], Object]:
        names = {key[1] for key, each in world.gateway_classes.items() if _is_ours(each)}
        return {key: each for key, each in world.gateways.items() if each["spec"]["gatewayClassName"] in names}

    def _routes(self, world: World) -> list[Object]:
        """Return the routes, oldest first; those of a frozen gateway as they were before."""
        ours, found = self._ours(world), {}
        for key, route in world.http_routes.items():
            parents = [ours.get(_parent_key(ref, route)) for ref in route["spec"].get("parentRefs", ())]
            frozen = any(FROZEN in (each["metadata"].get("annotations") or {}) for each in parents if each)
            found[key] = self._taken.get(key, route) if frozen else route
        self._taken = found
        return sorted(
            found.values(), key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"])
        )

    def _route_status(self, route: Object, ours: dict[tuple[str, str], Object], world: World) -> StatusPatch | None:
        meta, told = route["metadata"], (route.get("status") or {}).get("parents") or []
        parents = [each for each in told if each.get("controllerName") != CONTROLLER]
        others = len(parents)
        for reference in route["spec"].get("parentRefs", ()):
            gateway = ours.get(_parent_key(reference, route))
            if gateway is None:
                continue
            before = next(
                (e for e in told if e.get("controllerName") == CONTROLLER and e["parentRef"] == reference), {}
            )
            facts = [_accepted(gateway, route, reference, world), _resolved(route, world)]
            conditions = conditions_of(meta["generation"], facts, before.get("conditions", []))
            parents.append({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
        if parents == told or (len(parents) == others and not told):
            return None
        return StatusPatch(f"{_API}/namespaces/{meta['namespace']}/httproutes/{meta['name']}", {"parents": parents})

    def _gateway_status(
        self, key: tuple[str, str], gateway: Object, attached: list[Object], world: World
    ) -> StatusPatch | None:
        before, generation = gateway.get("status") or {}, gateway["metadata"]["generation"]
        listeners = []
        for listener in gateway["spec"]["listeners"]:
            old = next((each for each in before.get("listeners", ()) if each["name"] == listener["name"]), {})
            routes = [r for r in attached if listener in _listeners(gateway, r, None, world)]
            facts = [("Accepted", True, "Accepted", ""), ("Programmed", True, "Programmed", ""),
                     ("ResolvedRefs", True, "ResolvedRefs", "")]  # fmt: skip
            listeners.append({
                "name": listener["name"], "attachedRoutes": len(routes),
                "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
                "conditions": conditions_of(generation, facts, old.get("conditions", [])),
            })  # fmt: skip
        facts = [("Accepted", True, "Accepted", ""), ("Programmed", True, "Programmed", "")]
        status = {
            "addresses": [{"type": "IPAddress", "value": self._address_of(*key)}],
            "conditions": conditions_of(generation, facts, before.get("conditions", [])), "listeners": listeners,
        }  # fmt: skip
        return StatusPatch(f"{_API}/namespaces/{key[0]}/gateways/{key[1]}", status) if status != before else None


Fact = tuple[str, bool, str, str]
"""A condition's type, whether it holds, its reason and message."""


def conditions_of(generation: int, facts: list[Fact], before: list[Object]) -> list[Object]:
    """Return conditions as controllers write them: the time of transition stays while the status does."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    known = {each["type"]: each for each in before}
    made = []
    for kind, holds, reason, message in facts:
        old = known.get(kind, {})
        since = old.get("lastTransitionTime", now) if old.get("status") == str(holds) else now
        made.append({
            "type": kind, "status": str(holds), "reason": reason, "message": message,
            "observedGeneration": generation, "lastTransitionTime": since,
        })  # fmt: skip
    return made


def _is_ours(gateway_class: Object) -> bool:
    return bool(gateway_class["spec"]["controllerName"] == CONTROLLER)


def _class_status(gateway_class: Object) -> StatusPatch | None:
    meta, before = gateway_class["metadata"], (gateway_class.get("status") or {}).get("conditions", [])
    conditions = conditions_of(meta["generation"], [("Accepted", True, "Accepted", "")], before)
    path = f"{_API}/gatewayclasses/{meta['name']}"
    return StatusPatch(path, {"conditions": conditions}) if conditions != before else None


def _by_parent(routes: list[Object]) -> dict[tuple[str, str], list[Object]]:
    found: dict[tuple[str, str], list[Object]] = {}
    for route in routes:
        for key in {_parent_key(each, route) for each in route["spec"].get("parentRefs", ())}:
            found.setdefault(key, []).append(route)
    return found


def _parent_key(reference: Object, route: Object) -> tuple[str, str]:
    return reference.get("namespace", route["metadata"]["namespace"]), reference["name"]


def _listeners(gateway: Object, route: Object, port: int | None, world: World) -> list[Object]:
    """Return the listeners of a gateway that a route is attached to."""
    meta, found = gateway["metadata"], []
    for reference in route["spec"].get("parentRefs", ()):
        if _parent_key(reference, route) != (meta["namespace"], meta["name"]):
            continue
        wanted = reference.get("sectionName"), reference.get("port")
        found += [
            each
            for each in gateway["spec"]["listeners"]
            if wanted[0] in (None, each["name"])
            and wanted[1] in (None, each["port"])
            and port in (None, each["port"])
            and _allows(gateway, each, route)
        ]
    return found


def _allows(gateway: Object, listener: Object, route: Object) -> bool:
    chosen = listener.get("allowedRoutes", {}).get("namespaces", {}).get("from", "Same")
    return chosen == "All" or route["metadata"]["namespace"] == gateway["metadata"]["namespace"]


def _domains(gateway: Object, route: Object, port: int, world: World) -> list[str]:
    """Return the host names that a route has at a port: those that both the listener and the route are for."""
    found: set[str] = set()
    for listener in _listeners(gateway, route, port, world):
        own, wanted = listener.get("hostname"), route["spec"].get("hostnames") or []
        if not own or not wanted:
            found |= set(wanted or [own or "*"])
        else:
            found |= {name for name in wanted if _covers(own, name)} | {own for name in wanted if _covers(name, own)}
    return sorted(found)


def _covers(wide: str, name: str) -> bool:
    return wide == name or (wide.startswith("*.") and name.removeprefix("*").endswith(wide[1:]))


def _accepted(gateway: Object, route: Object, reference: Object, world: World) -> Fact:
    alone = {**route, "spec": {**route["spec"], "parentRefs": [reference]}}
    if any(_allows(gateway, each, route) for each in gateway["spec"]["listeners"]):
        attached = _listeners(gateway, alone, None, world)
        if not attached:
            return "Accepted", False, "NoMatchingParent", "no listener has that name or port"
        if not any(_domains(gateway, alone, each["port"], world) for each in attached):
            return "Accepted", False, "NoMatchingListenerHostname", "no listener has a hostname of the route"
        return "Accepted", True, "Accepted", "Route is accepted"
    return "Accepted", False, "NotAllowedByListeners", "no listener allows routes of this namespace"


def _resolved(route: Object, world: World) -> Fact:
    for rule in route["spec"].get("rules", ()):
        mirrored = [each["requestMirror"]["backendRef"] for each in rule.get("filters", ()) if "requestMirror" in each]
        for reference in [*rule.get("backendRefs", ()), *mirrored]:
            namespace = reference.get("namespace", route["metadata"]["namespace"])
            where = f"{reference.get('kind', 'Service')} {namespace}/{reference['name']}"
            if reference.get("kind", "Service") != "Service" or reference.get("group", ""):
                return "ResolvedRefs", False, "InvalidKind", f"{where} cannot be a backend"
            if namespace != route["metadata"]["namespace"]:
                return "ResolvedRefs", False, "RefNotPermitted", f"{where} is in another namespace"
            if _backend(reference, route, world) is None:
                return "ResolvedRefs", False, "BackendNotFound", f"{where} port {reference.get('port')} not found"
    return "ResolvedRefs", True, "ResolvedRefs", "Resolved all the Object references for the Route"


def _backend(reference: Object, route: Object, world: World) -> Backend | None:
    namespace, name = route["metadata"]["namespace"], reference["name"]
    if reference.get("namespace", namespace) != namespace or reference.get("kind", "Service") != "Service":
        return None
    port = world.service_port(namespace, name, reference.get("port"))
    return None if port is None else Backend(f"gateway/{namespace}/{name}/{port}", namespace, name, port)


def _rules(route: Object, world: World) -> list[Rule]:
    made: list[Rule] = []
    for rule in route["spec"].get("rules", ()):
        filters = rule.get("filters", ())
        shares = tuple(_share(each, route, world) for each in rule.get("backendRefs", ()))
        mirrors = tuple(each for one in filters if "requestMirror" in one and (each := _mirror(one, route, world)))
        timeout = rule.get("timeouts", {}).get("request", "60s")
        headers = _headers(filters, "requestHeaderModifier"), _headers(filters, "responseHeaderModifier")
        matches = [_match(each) for each in rule.get("matches") or [{}]]
        made += [Rule(each, shares, mirrors, *headers, _seconds(timeout)) for each in matches]
    return made


def _share(reference: Object, route: Object, world: World) -> Share:
    filters = reference.get("filters", ())
    return Share(
        _backend(reference, route, world), reference.get("weight", 1), _headers(filters, "requestHeaderModifier"),
        _headers(filters, "responseHeaderModifier"),
    )  # fmt: skip


def _mirror(one: Object, route: Object, world: World) -> tuple[Backend, int] | None:
    told = one["requestMirror"]
    backend = _backend(told["backendRef"], route, world)
    fraction = told.get("fraction", {})
    part = fraction["numerator"] / fraction.get("denominator", 100) if fraction else told.get("percent", 100) / 100
    return (backend, round(part * 1_000_000)) if backend else None


def _headers(filters: Any, kind: str) -> tuple[tuple[str, str], ...]:
    found = [one[kind] for one in filters if kind in one]
    return tuple((each["name"], each["value"]) for one in found for each in [*one.get("set", ()), *one.get("add", ())])


def _match(told: Object) -> Match:
    path = told.get("path", {})
    kind, value = path.get("type", "PathPrefix"), path.get("value", "/")
    prefix = value.rstrip("/")
    specifier = {
        "Exact": ("path", value), "RegularExpression": ("safe_regex", value),
        "PathPrefix": ("path_separated_prefix", prefix) if prefix else ("prefix", "/"),
    }[kind]  # fmt: skip
    headers = [{"name": each["name"], "string_match": _text(each)} for each in told.get("headers", ())]
    if method := told.get("method"):
        headers.append({"name": ":method", "string_match": {"exact": method}})
    queries = tuple({"name": each["name"], "string_match": _text(each)} for each in told.get("queryParams", ()))
    precise = (kind == "Exact", len(value), bool(method), len(told.get("headers", ())), len(queries))
    return Match(specifier, tuple(headers), queries, tuple(map(int, precise)))


def _text(each: Object) -> Object:
    regular = each.get("type", "Exact") == "RegularExpression"
    return {"safe_regex": {"regex": each["value"]}} if regular else {"exact": each["value"]}


def _by_precedence(rules: list[Rule]) -> tuple[Rule, ...]:
    """Return the most precise first; among equals the oldest, as they come."""
    return tuple(sorted(rules, key=lambda rule: [-each for each in rule.match.precedence]))


def _seconds(duration: str) -> str:
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", duration)
    return f"{sum(float(number) * units[unit] for number, unit in parts):g}s"
