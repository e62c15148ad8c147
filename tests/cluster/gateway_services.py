"""Plain Services, as kube-proxy serves their ClusterIPs: each connection goes to one ready endpoint."""

from __future__ import annotations

from cluster.gateway_model import Backend, Door, World
from cluster.node_addresses import AddressBlock, loopback, unprivileged
from cluster.node_api import Object

_NOT_SERVED = {"kube-system", "kube-public", "kube-node-lease"}
Endpoint = tuple[str, int, str]
"""Address to connect to, port, HEALTHY or DRAINING."""


class Services:
    """Gives every Service with a selector a loopback address: the end of its ClusterIP, in a block of its own."""

    def __init__(self, block: AddressBlock) -> None:
        self._block = block

    def address_of(self, service: Object) -> str:
        """Return where a Service is reached."""
        third, fourth = service["spec"]["clusterIP"].split(".")[2:]
        return self._block.at(int(third) * 256 + int(fourth))

    def doors(self, world: World) -> list[Door]:
        """Return a door for each TCP port of each Service."""
        found = []
        for (namespace, name), service in sorted(world.services.items()):
            spec = service["spec"]
            if namespace in _NOT_SERVED or not spec.get("selector") or spec.get("clusterIP") in (None, "", "None"):
                continue
            for port in spec.get("ports", ()):
                if port.get("protocol", "TCP") == "TCP":
                    number = port["port"]
                    backend = Backend(f"service/{namespace}/{name}/{number}", namespace, name, number)
                    title = f"service-{namespace}-{name}-{number}"
                    found.append(Door(title, self.address_of(service), unprivileged(number), plain=backend))
        return found


def endpoints_of(backend: Backend, world: World) -> list[Endpoint]:
    """Return where a backend's requests may go now.

    Pods that end get nothing new, unless none is ready: then those of them that still serve do, as with kube-proxy.
    """
    service = world.services.get((backend.namespace, backend.service))
    ports = service["spec"].get("ports", ()) if service else ()
    name = next((port.get("name", "") for port in ports if port["port"] == backend.port), None)
    ready: set[tuple[str, int]] = set()
    leaving: set[tuple[str, int]] = set()
    for endpoint, number in _listed(backend, name, world):
        conditions = endpoint.get("conditions", {})
        places = {(loopback(address), number) for address in endpoint["addresses"]}
        if conditions.get("ready", True):
            ready |= places
        elif conditions.get("terminating") and conditions.get("serving"):
            leaving |= places
    if not ready:
        return [(*place, "HEALTHY") for place in sorted(leaving)]
    return [(*place, "HEALTHY") for place in sorted(ready)] + [
        (*place, "DRAINING") for place in sorted(leaving - ready)
    ]


def _listed(backend: Backend, name: str | None, world: World) -> list[tuple[Object, int]]:
    found: list[tuple[Object, int]] = []
    for piece in world.slices_of(backend.namespace, backend.service):
        number = next((each["port"] for each in piece.get("ports") or () if each.get("name", "") == name), None)
        if number:
            listed = piece.get("endpoints") or ()
            found += [(each, number) for each in listed if not backend.subset or _has(each, backend, world)]
    return found


def _has(endpoint: Object, backend: Backend, world: World) -> bool:
    pod = world.pods.get((backend.namespace, endpoint.get("targetRef", {}).get("name", "")))
    labels = (pod["metadata"].get("labels") if pod else None) or {}
    return all(labels.get(key) == value for key, value in backend.subset)
