"""`ingress_nginx`: an Ingress for stable and a canary Ingress beside it, which the controller weighs against each other.

Source: the annotations of ingress-nginx (canary, canary-weight, canary-weight-total, canary-by-header,
canary-by-header-value, canary-by-header-pattern, canary-by-cookie). It knows one canary for an Ingress: two versions
at most, one of them by a header or a cookie.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.fencing import marked
from forge.adapters.kubernetes.kinds import INGRESS
from forge.adapters.kubernetes.naming import TOKEN, annotation, labels_of
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import (
    BEFORE,
    Backends,
    check_able,
    find_backends,
    owners,
    table_of,
)
from forge.adapters.routers.envoy import check_table
from forge.adapters.routers.originals import contains
from forge.adapters.routers.propagation import Propagation
from forge.adapters.routers.routed import RoutedObject, needs_front, told_gone
from forge.model.configs import IngressNginxRouterConfig
from forge.model.errors import UsageError
from forge.model.traffic import Route, TrafficTable
from forge.model.units import WHOLE

PREFIX = "nginx.ingress.kubernetes.io/"
_CANARYS_OWN = ("affinity", "affinity-mode", "affinity-canary-behavior", "load-balance", "upstream-hash-by")
"""What the controller reads of a canary itself, and not of its main Ingress; and all that begins `session-cookie-`."""
_CLASS = "kubernetes.io/ingress.class"


class IngressNginxRouter(RoutedObject):
    """The split of one environment behind ingress-nginx. See Router.

    A version takes over without a gap: the main Ingress is turned to it while the canary still sends its share there,
    and the canary goes, or gets the next version, only after that.
    """

    name = "ingress_nginx"
    split_at = ("spec", "rules")

    def __init__(
        self, cluster: Cluster, environment: str, config: IngressNginxRouterConfig,
        *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        super().__init__(cluster, environment, INGRESS, config.ingress, config.namespace, config.address)
        self.propagation = config.propagation
        self._propagation = Propagation(config.propagation, clock)

    @property
    def canary_name(self) -> str:
        """The name of the Ingress that Forge keeps beside the main one."""
        return f"{self._route}-forge-canary"

    async def apply(self, table: TrafficTable, token: int) -> None:
        """Write both Ingresses, in the order that leaves no gap. See Router."""
        check_table(table)
        check_able(table, self.name)
        self._check_namespace()
        backends, main = await self._allowed(table, token)
        present = main_version(main, backends)
        stable, arm = stable_and_arm(table, present)
        marked(main, token)
        wanted = canary_ingress(main, self.canary_name, table, backends, self._environment) if arm else None
        if wanted is not None:
            await self._check_no_other_canary(wanted)
        canary = await self._canary()
        moved = (canary is None) != (wanted is None) or (wanted is not None and not contains(canary, wanted))
        if stable == present and wanted is not None:
            await self._write_canary(canary, wanted, token)
        await self._write(lambda item: self._with_split(item, table, backends, token, moved=moved), backends, main)
        if stable != present and wanted is not None:
            await self._write_canary(canary, wanted, token)
        if wanted is None and canary is not None:
            await self._cluster.delete(INGRESS, self.canary_name, namespace=self._namespace)

    async def observed(self) -> TrafficTable | None:
        """Return the table, once the controller has had the time to take it over. See RoutedObject."""
        main, self.remark = await self._found(), ""
        if main is None:
            return await self._deleted()
        table = table_of(main)
        if table is None:
            return None
        backends = await find_backends(self._cluster, self._environment)
        canary = await self._canary()
        if gone := backends.gone(table):
            self.remark = told_gone(gone)
            return TrafficTable(weights_of(main, canary, backends), -1)
        if self.stands(main, table, backends) and self._canary_stands(main, canary, table, backends):
            return table if self._propagation.over(main) else table_of(main, BEFORE)
        who = [*owners(main, *self.split_at), *owners(canary or {}, "spec"), *owners(canary or {}, "metadata")]
        self.remark = f"Ingress {self._route} or its canary was changed by {who[0] if who else 'somebody'}: "
        self.remark += "Forge's split is written again"
        return TrafficTable(weights_of(main, canary, backends), -1)

    async def hand_back(self, token: int) -> None:
        """Remove the canary, and make the Ingress what it was before. See RoutedObject."""
        canary = await self._canary()
        if canary is not None:
            marked(canary, token)
            await self._cluster.delete(INGRESS, self.canary_name, namespace=self._namespace)
        await super().hand_back(token)

    def routed(self, item: Object, table: TrafficTable, backends: Backends) -> Object:
        """Return the main Ingress turned to the version that is not the canary's. See RoutedObject."""
        stable, _ = stable_and_arm(table, main_version(item, backends))
        known = {backends.front, *backends.ever(table_of(item))}
        needs_front([each for each in _services(item) if each in known], "Ingress", self._route, backends.front)
        return _turned(item, known, backends.service(stable))

    def restored(self, item: Object, backends: Backends) -> Object:
        """Return the main Ingress turned to the environment's Service. See RoutedObject."""
        return _turned(item, backends.ever(table_of(item)), backends.front)

    def stands(self, item: Object, table: TrafficTable, backends: Backends) -> bool:
        """Whether the main Ingress is turned to what the table has for it. See RoutedObject."""
        try:
            return bool(self.routed(item, table, backends)["spec"] == item["spec"])
        except UsageError:
            return False

    def splits(self, item: Object, backends: Backends) -> list[dict[str, int]]:
        """Return the split of the main Ingress without its canary. See RoutedObject."""
        return [each] if (each := weights_of(item, None, backends)) else []

    def confirmed(self, item: Object) -> bool:
        """Whether it is long enough ago that the controller has it. See RoutedObject."""
        return self._propagation.over(item)

    def begun(self, item: Object) -> Object:
        """Return the object with the time of its change. See RoutedObject."""
        return self._propagation.begun(item)

    async def _found_address(self, item: Object) -> str:
        scheme = "https" if item["spec"].get("tls") else "http"
        hosts = [rule.get("host") for rule in item["spec"].get("rules") or () if rule.get("host")]
        told = ((item.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        found = hosts or [each.get("hostname") or each.get("ip") for each in told]
        return f"{scheme}://{found[0]}" if found else ""

    def _check_namespace(self) -> None:
        if self._namespace and self._namespace != self._cluster.namespace:
            raise UsageError(
                f"Ingress {self._route} is in {self._namespace}, and can only send to Services of that namespace",
                hint=f"the environment's are in {self._cluster.namespace}: put the Ingress there",
            )

    async def _check_no_other_canary(self, wanted: Object) -> None:
        ours = set(_places(wanted))
        for item in (await self._cluster.objects(INGRESS))[0]:
            name = item["metadata"]["name"]
            other = name != self.canary_name and annotation(item, f"{PREFIX}canary") == "true"
            if other and ours & set(_places(item)):
                raise UsageError(
                    f"Ingress {name} is already the canary of {self._route}: ingress-nginx takes one",
                    hint=f"delete it: Forge keeps {self.canary_name}",
                )

    def _canary_stands(self, main: Object, canary: Object | None, table: TrafficTable, backends: Backends) -> bool:
        _, arm = stable_and_arm(table, main_version(main, backends))
        if not arm:
            return canary is None
        return contains(canary, canary_ingress(main, self.canary_name, table, backends, self._environment))

    async def _canary(self) -> Object | None:
        return await self._cluster.get(INGRESS, self.canary_name, self._namespace)

    async def _write_canary(self, known: Object | None, wanted: Object, token: int) -> None:
        if known is None:
            await self._cluster.create(marked(wanted, token))
        elif not contains(known, wanted):
            before = {name: known["metadata"][name] for name in ("namespace", "resourceVersion")}
            notes = {**wanted["metadata"]["annotations"], TOKEN: annotation(known, TOKEN)}
            fresh = {**wanted, "metadata": {**wanted["metadata"], **before, "annotations": notes}}
            await self._cluster.replace(marked(fresh, token), strict=True)


def stable_and_arm(table: TrafficTable, present: str) -> tuple[str, str]:
    """Return the version of the main Ingress and that of the canary, which may be none.

    `present`: the version that the main Ingress has now; it keeps it while it has any traffic. Raises UsageError for
    more than two versions, and for routes that a canary of ingress-nginx cannot do.
    """
    weighted = [version for version, weight in table.weights.items() if weight]
    asked = list(dict.fromkeys([*weighted, *(route.version for route in table.routes)]))
    if len(asked) > 2:
        raise UsageError(
            f"ingress-nginx splits traffic between two versions, and there are {len(asked)}: {', '.join(asked)}",
            hint="let releases wait for each other (`policy: {on_overlap: queue}`), or use gateway_api or istio",
        )
    stable = present if present in weighted else max(weighted, key=lambda version: table.weights[version])
    arm = next((version for version in asked if version != stable), "")
    if arm and any(route.version == stable for route in table.routes):
        raise UsageError(
            f"ingress-nginx sends requests by a header or a cookie to its canary ({arm}) only, not to {stable}"
        )
    return stable, arm


def main_version(main: Object, backends: Backends) -> str:
    """Return the version that the main Ingress is turned to; empty for the Service itself, or anything else."""
    versions = {name: version for version, name in backends.services.items()}
    return next((versions[name] for name in _services(main) if name in versions), "")


def canary_ingress(main: Object, name: str, table: TrafficTable, backends: Backends, environment: str) -> Object:
    """Return the canary Ingress: those paths of the main one that are the environment's, turned to the arm, with its
    weight and its routes."""
    _, arm = stable_and_arm(table, main_version(main, backends))
    own = annotations_of(main)
    notes = {key: value for key, value in own.items() if key == _CLASS or _is_canarys_own(key)}
    notes |= {
        f"{PREFIX}canary": "true",
        f"{PREFIX}canary-weight": str(table.weights.get(arm, 0)),
        f"{PREFIX}canary-weight-total": str(WHOLE),
    }
    for route in table.routes:
        if route.version == arm:
            added = _condition(route)
            if set(added) & set(notes):
                raise UsageError("ingress-nginx knows one header and one cookie that lead to the canary")
            notes |= added
    known = {backends.front, *backends.ever(table_of(main))}
    spec = main["spec"]
    fresh: dict[str, Any] = {key: spec[key] for key in ("ingressClassName",) if key in spec}
    rules = [_only(rule, known) for rule in spec.get("rules") or ()]
    if rules := [rule for rule in rules if rule["http"]["paths"]]:
        fresh["rules"] = rules
    if ((spec.get("defaultBackend") or {}).get("service") or {}).get("name") in known:
        fresh["defaultBackend"] = spec["defaultBackend"]
    metadata = {"name": name, "labels": labels_of(environment), "annotations": notes}
    if main["metadata"].get("namespace"):
        metadata["namespace"] = main["metadata"]["namespace"]
    item = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": fresh}
    return _turned(item, known, backends.service(arm))


def weights_of(main: Object, canary: Object | None, backends: Backends) -> dict[str, int]:
    """Return the split that both Ingresses make, in basis points by version."""
    stable = main_version(main, backends)
    arm = main_version(canary, backends) if canary is not None else ""
    if not stable:
        return {}
    if canary is None or not arm or arm == stable:
        return {stable: WHOLE}
    share, total = _number(canary, "canary-weight", 0), _number(canary, "canary-weight-total", 100)
    share = min(WHOLE, round(share * WHOLE / max(1, total)))
    return {version: weight for version, weight in ((stable, WHOLE - share), (arm, share)) if weight}


def annotations_of(item: Object) -> dict[str, str]:
    """Return an object's annotations."""
    return dict(item["metadata"].get("annotations") or {})


def _condition(route: Route) -> dict[str, str]:
    if route.header and route.cookie:
        raise UsageError("ingress-nginx sends requests by a header or by a cookie, not by both at once")
    if route.header and route.value:
        return {f"{PREFIX}canary-by-header": route.header, f"{PREFIX}canary-by-header-value": route.value}
    if route.header:
        return {f"{PREFIX}canary-by-header": route.header, f"{PREFIX}canary-by-header-pattern": ".*"}
    if route.value != "always":
        raise UsageError(
            f"ingress-nginx sends requests by a cookie only where its value is `always`, not `{route.value}`",
            hint=f"write `cookie: {route.cookie}, value: always`, or use a header",
        )
    return {f"{PREFIX}canary-by-cookie": route.cookie}


def _is_canarys_own(key: str) -> bool:
    name = key.removeprefix(PREFIX)
    return name != key and (name in _CANARYS_OWN or name.startswith("session-cookie-"))


def _number(item: Object, name: str, otherwise: int) -> int:
    text = annotation(item, PREFIX + name)
    return int(text) if text.isdecimal() else otherwise


def _backends(item: Object) -> Iterator[dict[str, Any]]:
    for rule in item["spec"].get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            yield path.get("backend") or {}
    yield item["spec"].get("defaultBackend") or {}


def _services(item: Object) -> list[str]:
    """Return the names of the Services that an Ingress sends to."""
    return [str(backend["service"]["name"]) for backend in _backends(item) if backend.get("service")]


def _places(item: Object) -> Iterator[tuple[str, str]]:
    """Yield the hosts and paths of an Ingress."""
    for rule in item["spec"].get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            yield str(rule.get("host", "")), str(path.get("path", "/"))


def _turned(item: Object, names: Iterable[str], service: str) -> Object:
    """Return an Ingress in which every Service of these names is replaced by one."""
    known = frozenset(names)

    def turned(backend: dict[str, Any]) -> dict[str, Any]:
        named = backend.get("service") or {}
        return {**backend, "service": {**named, "name": service}} if named.get("name") in known else backend

    spec = dict(item["spec"])
    if spec.get("defaultBackend"):
        spec["defaultBackend"] = turned(spec["defaultBackend"])
    if spec.get("rules"):
        spec["rules"] = [
            {
                **rule,
                "http": {
                    **rule["http"],
                    "paths": [{**path, "backend": turned(path.get("backend") or {})} for path in rule["http"]["paths"]],
                },
            }
            if rule.get("http")
            else rule
            for rule in spec["rules"]
        ]
    return {**item, "spec": spec}


def _only(rule: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    paths = [
        path
        for path in (rule.get("http") or {}).get("paths") or ()
        if ((path.get("backend") or {}).get("service") or {}).get("name") in names
    ]
    return {**rule, "http": {"paths": paths}}
