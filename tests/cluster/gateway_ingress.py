"""Ingresses as ingress-nginx serves them, with its canary annotations, at one door.

Which of the two backends gets a request: the canary's header, then its cookie, then its weight. A path has one
canary at most; a second one counts for nothing, as there.
"""

from __future__ import annotations

import re

from cluster.gateway_model import Backend, Door, Match, Rule, Share, StatusPatch, VirtualHost, World
from cluster.node_addresses import unprivileged
from cluster.node_api import Object

CLASS = "nginx"
_PREFIX = "nginx.ingress.kubernetes.io/"
Path = tuple[str, str, str]
"""Host ("*" for any), path type, path."""


class IngressNginx:
    """Reads Ingresses of the class `nginx`."""

    def __init__(self, address: str) -> None:
        self.address, self.port = address, unprivileged(80)

    def doors(self, world: World) -> list[Door]:
        """Return the one door."""
        ours = self._ours(world)
        canaries: dict[tuple[str, Path], tuple[Object, Object]] = {}
        for ingress in ours:
            if _is_canary(ingress):
                for path, backend in _paths(ingress):
                    canaries.setdefault((ingress["metadata"]["namespace"], path), (ingress, backend))
        hosts: dict[str, list[Rule]] = {}
        for ingress in ours:
            if _is_canary(ingress):
                continue
            for path, backend in _paths(ingress):
                canary = canaries.get((ingress["metadata"]["namespace"], path))
                hosts.setdefault(path[0], []).extend(_rules(ingress, path, backend, canary, world))
        served = tuple(VirtualHost((host,), _longest_first(rules)) for host, rules in sorted(hosts.items()))
        return [Door("nginx", self.address, self.port, served)]

    def statuses(self, world: World) -> list[StatusPatch]:
        """Return the address of every Ingress that does not tell it yet."""
        status = {"loadBalancer": {"ingress": [{"ip": self.address}]}}
        base = "/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}"
        return [
            StatusPatch(base.format_map(each["metadata"]), status)
            for each in self._ours(world)
            if [a.get("ip") for a in each.get("status", {}).get("loadBalancer", {}).get("ingress", ())]
            != [self.address]
        ]

    def _ours(self, world: World) -> list[Object]:
        found = [each for each in world.ingresses.values() if _class_of(each) == CLASS]
        return sorted(found, key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]))


def _class_of(ingress: Object) -> str:
    old = (ingress["metadata"].get("annotations") or {}).get("kubernetes.io/ingress.class", "")
    return ingress["spec"].get("ingressClassName") or old


def _annotation(ingress: Object, name: str) -> str:
    return str((ingress["metadata"].get("annotations") or {}).get(_PREFIX + name, ""))


def _is_canary(ingress: Object) -> bool:
    return _annotation(ingress, "canary") == "true"


def _paths(ingress: Object) -> list[tuple[Path, Object]]:
    found = [
        ((rule.get("host", "*"), each["pathType"], each.get("path", "/")), each["backend"]["service"])
        for rule in ingress["spec"].get("rules", ())
        for each in rule.get("http", {}).get("paths", ())
    ]
    if default := ingress["spec"].get("defaultBackend", {}).get("service"):
        found.append((("*", "Prefix", "/"), default))
    return found


def _port(backend: Object, namespace: str, world: World) -> int | None:
    told = backend.get("port", {})
    return world.service_port(namespace, backend["name"], told.get("number", told.get("name")))


def _rules(
    ingress: Object, path: Path, backend: Object, canary: tuple[Object, Object] | None, world: World
) -> list[Rule]:
    namespace, name = ingress["metadata"]["namespace"], ingress["metadata"]["name"]
    stat = f"nginx/{namespace}/{name}/{backend['name']}"
    port = _port(backend, namespace, world)
    main = Backend(f"{stat}/-", namespace, backend["name"], port) if port else None
    other: Backend | None = None
    if canary is not None and (port := _port(canary[1], namespace, world)):
        second = canary[1]["name"]
        other = Backend(f"{stat}/{namespace}-{second}-{port}", namespace, second, port)
    if canary is None or other is None:
        return [Rule(_match(path, []), (Share(main, 1),))]
    rules = [
        Rule(_match(path, headers), (Share(other if wanted else main, 1),)) for headers, wanted in _decided(canary[0])
    ]
    weight, total = int(_annotation(canary[0], "canary-weight") or 0), _annotation(canary[0], "canary-weight-total")
    whole = int(total or 100)
    shares = (Share(main, max(0, whole - weight)), Share(other, min(weight, whole)))
    return [*rules, Rule(_match(path, []), shares)]


def _decided(canary: Object) -> list[tuple[list[Object], bool]]:
    """Return what, in a request, decides before any weight, and whether for the canary."""
    found: list[tuple[list[Object], bool]] = []
    header = _annotation(canary, "canary-by-header")
    value, pattern = _annotation(canary, "canary-by-header-value"), _annotation(canary, "canary-by-header-pattern")
    if header and value:
        found.append(([_header(header, {"exact": value})], True))
    elif header and pattern:
        found.append(([_header(header, {"safe_regex": {"regex": f".*{pattern}.*"}})], True))
    elif header:
        found += [([_header(header, {"exact": word})], word == "always") for word in ("always", "never")]
    if cookie := _annotation(canary, "canary-by-cookie"):
        for word in ("always", "never"):
            regex = rf"(?:.*;\s*)?{re.escape(cookie)}={word}\s*(?:;.*)?"
            found.append(([_header("cookie", {"safe_regex": {"regex": regex}})], word == "always"))
    return found


def _header(name: str, text: Object) -> Object:
    return {"name": name, "string_match": text}


def _match(path: Path, headers: list[Object]) -> Match:
    _, kind, text = path
    prefix = text.rstrip("/")
    specifier = ("path", text) if kind == "Exact" else ("path_separated_prefix", prefix) if prefix else ("prefix", "/")
    return Match(specifier, tuple(headers), precedence=(int(kind == "Exact"), len(text)))


def _longest_first(rules: list[Rule]) -> tuple[Rule, ...]:
    return tuple(sorted(rules, key=lambda rule: [-each for each in rule.match.precedence]))
