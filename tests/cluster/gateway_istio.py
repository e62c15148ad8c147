"""Istio: VirtualServices become the rules of one door, as at a mesh's ingress gateway. It writes no status.

A short host `shop` is asked for as `shop.NAMESPACE` (or longer), since one door serves all namespaces.
"""

from __future__ import annotations

from cluster.gateway_model import Backend, Door, Match, Rule, Share, VirtualHost, World
from cluster.node_addresses import unprivileged
from cluster.node_api import Object

_SUFFIX = ".svc.cluster.local"


class Istio:
    """Reads VirtualServices and DestinationRules."""

    def __init__(self, address: str) -> None:
        self.address, self.port = address, unprivileged(80)

    def doors(self, world: World) -> list[Door]:
        """Return the one door."""
        hosts: dict[str, list[Rule]] = {}
        oldest_first = sorted(world.virtual_services.values(), key=lambda each: each["metadata"]["creationTimestamp"])
        for service in oldest_first:
            namespace = service["metadata"]["namespace"]
            rules = [rule for route in service["spec"].get("http", ()) for rule in _rules(route, namespace, world)]
            for host in service["spec"].get("hosts", ()):
                for domain in _domains(host, namespace):
                    hosts.setdefault(domain, []).extend(rules)
        served = tuple(VirtualHost((domain,), tuple(rules)) for domain, rules in sorted(hosts.items()))
        return [Door("istio", self.address, self.port, served)]


def _domains(host: str, namespace: str) -> list[str]:
    if host == "*" or host.endswith(_SUFFIX):
        return [host] if host == "*" else _domains(host.removesuffix(_SUFFIX).split(".")[0], host.split(".")[1])
    if "." in host:
        return [host]
    return [f"{host}.{namespace}", f"{host}.{namespace}.svc", f"{host}.{namespace}{_SUFFIX}"]


def _rules(route: Object, namespace: str, world: World) -> list[Rule]:
    destinations = route.get("route", ())
    only = len(destinations) == 1
    shares = tuple(
        Share(_backend(each["destination"], namespace, world), each.get("weight", 100 if only else 0),
              _set(each, "request"), _set(each, "response"))
        for each in destinations
    )  # fmt: skip
    mirrors = []
    for told, percentage in _mirrors(route):
        if backend := _backend(told, namespace, world):
            mirrors.append((backend, round(percentage * 10_000)))
    headers = _set(route, "request"), _set(route, "response")
    timeout = route.get("timeout") or "0s"
    return [Rule(_match(each), shares, tuple(mirrors), *headers, timeout) for each in route.get("match") or [{}]]


def _mirrors(route: Object) -> list[tuple[Object, float]]:
    found = [(each["destination"], each.get("percentage", {}).get("value", 100.0)) for each in route.get("mirrors", ())]
    if "mirror" in route:
        found.append((route["mirror"], route.get("mirrorPercentage", {}).get("value", 100.0)))
    return found


def _set(each: Object, way: str) -> tuple[tuple[str, str], ...]:
    told = each.get("headers", {}).get(way, {})
    return tuple({**told.get("add", {}), **told.get("set", {})}.items())


def _backend(destination: Object, namespace: str, world: World) -> Backend | None:
    name, _, rest = destination["host"].removesuffix(_SUFFIX).partition(".")
    home = rest.removesuffix(".svc") or namespace
    port = world.service_port(home, name, destination.get("port", {}).get("number"))
    labels = _subset(destination, name, home, world)
    if port is None or labels is None:
        return None
    version = next((value for key, value in labels if key.endswith("version")), world.version_of(home, name))
    return Backend(f"istio/{home}/{name}/{version}", home, name, port, labels)


def _subset(destination: Object, name: str, namespace: str, world: World) -> tuple[tuple[str, str], ...] | None:
    """Return the labels of the destination's subset; None where no DestinationRule has it."""
    if "subset" not in destination:
        return ()
    for (home, _), rule in world.destination_rules.items():
        if rule["spec"]["host"].removesuffix(_SUFFIX).split(".")[0] == name and home == namespace:
            for subset in rule["spec"].get("subsets", ()):
                if subset["name"] == destination["subset"]:
                    return tuple(sorted(subset.get("labels", {}).items()))
    return None


def _match(told: Object) -> Match:
    uri = told.get("uri", {})
    path = ("prefix", "/")
    for kind, specifier in (("exact", "path"), ("prefix", "prefix"), ("regex", "safe_regex")):
        if kind in uri:
            path = specifier, uri[kind]
    headers = [_header(name, value) for name, value in told.get("headers", {}).items()]
    headers += [
        {**_header(name, value), "invert_match": True} for name, value in told.get("withoutHeaders", {}).items()
    ]
    if "method" in told:
        headers.append(_header(":method", told["method"]))
    if "authority" in told:
        headers.append(_header(":authority", told["authority"]))
    queries = tuple({"name": name, "string_match": _text(value)} for name, value in told.get("queryParams", {}).items())
    return Match(path, tuple(headers), queries)


def _header(name: str, value: Object) -> Object:
    return {"name": name, "string_match": _text(value)} if value else {"name": name, "present_match": True}


def _text(value: Object) -> Object:
    return {"safe_regex": {"regex": value["regex"]}} if "regex" in value else dict(value)
