"""`ingress_nginx`: an Ingress for stable and a canary Ingress beside it, which the controller weighs against each other.

Source: the annotations of ingress-nginx (canary, canary-weight, canary-weight-total, canary-by-header,
canary-by-header-value, canary-by-cookie). It knows one canary for an Ingress: two versions at most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import Conflict
from forge.adapters.kubernetes.fencing import marked, token_of
from forge.adapters.kubernetes.kinds import INGRESS
from forge.adapters.kubernetes.naming import ORIGINAL, TOKEN, TRAFFIC, annotation, labels_of
from forge.adapters.kubernetes.objects import Object
from forge.adapters.routers.backends import (
    Backends,
    check_endpoints,
    find_backends,
    table_of,
    with_table,
    without_notes,
)
from forge.adapters.routers.base import Capability
from forge.adapters.routers.envoy import check_table
from forge.adapters.routers.propagation import WRITTEN_AT, Propagation
from forge.adapters.routers.routed import ATTEMPTS, needs_front
from forge.model.configs import ROUTER_CAPABILITIES, IngressNginxRouterConfig
from forge.model.errors import DependencyFailed, StaleLease, UsageError
from forge.model.traffic import TrafficTable
from forge.model.units import WHOLE

PREFIX = "nginx.ingress.kubernetes.io/"


class IngressNginxRouter:
    """The split of one environment behind ingress-nginx. See Router.

    A version takes over without a gap: the canary carries everything before the main Ingress is turned to it, and
    goes only after that.
    """

    capabilities: frozenset[Capability] = ROUTER_CAPABILITIES["ingress_nginx"]  # type: ignore[assignment]

    def __init__(
        self, cluster: Cluster, environment: str, config: IngressNginxRouterConfig,
        *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._environment = environment
        self._config = config
        self._propagation = Propagation(config.propagation, clock)

    @property
    def canary_name(self) -> str:
        """The name of the Ingress that Forge keeps beside the main one."""
        return f"{self._config.ingress}-forge-canary"

    async def apply(self, table: TrafficTable, token: int) -> None:
        """Write both Ingresses, in the order that leaves no gap. See Router."""
        check_table(table)
        backends = await find_backends(self._cluster, self._environment)
        main = await self._main()
        stable, arm = stable_and_arm(table, main_version(main, backends))
        await check_endpoints(self._cluster, backends, table)
        if token < token_of(main):
            raise StaleLease(f"Ingress {self._config.ingress} was written by a newer worker")
        if arm:
            await self._write_canary(
                canary_ingress(main, self.canary_name, table, arm, backends, self._environment), token
            )
        await self._write_main(lambda item: with_table(self.routed(item, stable, backends), table, token))
        if not arm:
            await self._cluster.delete(INGRESS, self.canary_name, namespace=self._config.namespace)

    async def observed(self) -> TrafficTable | None:
        """Return the table, once the controller has had the time to take it over. See Router."""
        main = await self._main()
        table = table_of(main)
        if table is None:
            return None
        backends = await find_backends(self._cluster, self._environment)
        canary = await self._cluster.get(INGRESS, self.canary_name, self._config.namespace)
        actual = weights_of(main, canary, backends)
        if actual != {version: weight for version, weight in table.weights.items() if weight}:
            return TrafficTable(actual, -1)
        return table if self._propagation.over(main) else None

    async def address(self) -> str:
        """Return where clients reach the environment: the Ingress' own address, or its host. See Router."""
        if self._config.address:
            return self._config.address
        main = await self._main()
        scheme = "https" if main["spec"].get("tls") else "http"
        hosts = [rule.get("host") for rule in main["spec"].get("rules") or () if rule.get("host")]
        told = ((main.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        found = hosts or [each.get("hostname") or each.get("ip") for each in told]
        return f"{scheme}://{found[0]}" if found else ""

    async def hand_back(self, token: int) -> None:
        """Make the Ingress what it was before, and remove the canary."""
        del token
        await self._write_main(lambda item: without_notes(restored(item), ORIGINAL, TRAFFIC, WRITTEN_AT))
        await self._cluster.delete(INGRESS, self.canary_name, namespace=self._config.namespace)

    def routed(self, item: Object, stable: str, backends: Backends) -> Object:
        """Return the main Ingress turned to one version, everything else as it was. Pure but for the time of change."""
        known = {backends.front, *backends.names}
        needs_front(
            [each for each in _services(item) if each["name"] in known], "Ingress", self._config.ingress, backends.front
        )
        fresh: Object = json.loads(json.dumps(item))
        original = annotation(item, ORIGINAL)
        if not original or any(each["name"] == backends.front for each in _services(item)):
            fresh["metadata"].setdefault("annotations", {})[ORIGINAL] = json.dumps(item["spec"], sort_keys=True)
        for service in _services(fresh):
            if service["name"] in known:
                service["name"] = backends.service(stable)
        return self._propagation.begun(fresh)

    async def _main(self) -> Object:
        found = await self._cluster.get(INGRESS, self._config.ingress, self._config.namespace)
        if found is None:
            raise DependencyFailed(
                f"{self._cluster.name} has no Ingress {self._config.ingress}",
                hint="somebody deleted it, or it was never applied: put it into the manifests",
            )
        return found

    async def _write_main(self, change: Callable[[Object], Object]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._cluster.replace(change(await self._main()))
            except Conflict:
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    async def _write_canary(self, wanted: Object, token: int) -> None:
        known = await self._cluster.get(INGRESS, self.canary_name, self._config.namespace)
        if known is not None:
            marked(known, token)  # refuses a stale token
        wanted["metadata"]["annotations"][TOKEN] = str(token)
        await self._cluster.apply(wanted)


def stable_and_arm(table: TrafficTable, present: str) -> tuple[str, str]:
    """Return the version of the main Ingress and that of the canary, which may be none.

    `present`: the version that the main Ingress has now; it keeps it while it has any traffic. Raises UsageError for
    more than two versions, and for what a canary of ingress-nginx cannot do.
    """
    weighted = [version for version, weight in table.weights.items() if weight]
    asked = list(dict.fromkeys([*weighted, *(route.version for route in table.routes)]))
    if len(asked) > 2:
        raise UsageError(
            f"ingress-nginx splits traffic between two versions, and there are {len(asked)}: {', '.join(asked)}",
            hint="let releases wait for each other (`policy: {on_overlap: queue}`), or use gateway_api or istio",
        )
    if any(route.mirror for route in table.routes):
        raise UsageError("ingress-nginx mirrors to an address, not to a version")
    stable = present if present in weighted else max(weighted, key=lambda version: table.weights[version])
    return stable, next((version for version in asked if version != stable), "")


def main_version(main: Object, backends: Backends) -> str:
    """Return the version that the main Ingress is turned to; empty for the Service itself, or anything else."""
    versions = {name: version for version, name in backends.services.items()}
    return next((versions[each["name"]] for each in _services(main) if each["name"] in versions), "")


def canary_ingress(
    main: Object, name: str, table: TrafficTable, arm: str, backends: Backends, environment: str
) -> Object:
    """Return the canary Ingress: the rules of the main one, turned to the arm, with its weight and its routes."""
    notes = {
        f"{PREFIX}canary": "true",
        f"{PREFIX}canary-weight": str(table.weights.get(arm, 0)),
        f"{PREFIX}canary-weight-total": str(WHOLE),
    }
    for route in table.routes:
        if route.version == arm and route.header:
            notes |= {f"{PREFIX}canary-by-header": route.header, f"{PREFIX}canary-by-header-value": route.value}
        elif route.version == arm and route.cookie:
            if route.value != "always":
                raise UsageError(
                    f"ingress-nginx sends requests by a cookie only where its value is `always`, not `{route.value}`",
                    hint=f"write `cookie: {route.cookie}, value: always`, or use a header",
                )
            notes[f"{PREFIX}canary-by-cookie"] = route.cookie
    spec: dict[str, Any] = json.loads(json.dumps(main["spec"]))
    spec.pop("tls", None)  # the main Ingress ends TLS for both
    metadata = {"name": name, "labels": labels_of(environment), "annotations": notes}
    if main["metadata"].get("namespace"):
        metadata["namespace"] = main["metadata"]["namespace"]
    fresh = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}
    known = {backends.front, *backends.names}
    for service in _services(fresh):
        if service["name"] in known:
            service["name"] = backends.service(arm)
    return fresh


def restored(item: Object) -> Object:
    """Return the main Ingress as it was before Forge routed it."""
    fresh: Object = json.loads(json.dumps(item))
    if annotation(item, ORIGINAL):
        fresh["spec"] = json.loads(annotation(item, ORIGINAL))
    return fresh


def weights_of(main: Object, canary: Object | None, backends: Backends) -> dict[str, int]:
    """Return the split that both Ingresses make, in basis points by version."""
    stable = main_version(main, backends)
    arm = main_version(canary, backends) if canary is not None else ""
    if not stable:
        return {}
    if canary is None or not arm or arm == stable:
        return {stable: WHOLE}
    total = int(annotation(canary, f"{PREFIX}canary-weight-total") or "100")
    share = round(int(annotation(canary, f"{PREFIX}canary-weight") or "0") * WHOLE / max(1, total))
    return {version: weight for version, weight in ((stable, WHOLE - share), (arm, share)) if weight}


def _services(item: Object) -> list[dict[str, Any]]:
    """Return the Services that an Ingress names, to be read or changed in place."""
    spec = item["spec"]
    backends = [
        path.get("backend") for rule in spec.get("rules") or () for path in (rule.get("http") or {}).get("paths") or ()
    ]
    backends.append(spec.get("defaultBackend"))
    return [backend["service"] for backend in backends if backend and backend.get("service")]
