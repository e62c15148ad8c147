"""Kubernetes objects as plain data: what they are called, and which part each plays for an environment.

Nothing here reads a file or asks a cluster. An object is a mapping with `apiVersion`, `kind` and `metadata.name`
(`documents.py` and `rendering.py` make sure of it); everything below that may be of any shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

Object = dict[str, Any]

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
"""The kinds of `apps` that an environment may run."""
ROUTES = frozenset({"HTTPRoute", "GRPCRoute", "VirtualService", "Ingress"})
_CONTAINER_LISTS = ("containers", "initContainers")
_ORDER = (
    ("Namespace",),
    ("CustomResourceDefinition",),
    ("PriorityClass", "StorageClass", "IngressClass", "GatewayClass", "RuntimeClass"),
    ("ServiceAccount",),
    ("ClusterRole", "Role"),
    ("ClusterRoleBinding", "RoleBinding"),
    ("ResourceQuota", "LimitRange", "NetworkPolicy"),
    ("Secret", "ConfigMap"),
    ("PersistentVolume",),
    ("PersistentVolumeClaim",),
    ("Service",),
    ("PodDisruptionBudget",),
    ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "Job", "CronJob"),
    ("HorizontalPodAutoscaler",),
    ("Gateway",),
    ("Ingress", "HTTPRoute", "GRPCRoute", "VirtualService", "DestinationRule"),
)
_RANKS = {kind: rank for rank, kinds in enumerate(_ORDER) for kind in kinds}
_UNKNOWN_RANK = len(_ORDER)
_LAST = frozenset({"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService"})
"""They may refuse, or change, what comes after them."""
NEVER_PRUNED = frozenset(
    {"Namespace", "CustomResourceDefinition", "PersistentVolumeClaim", "PersistentVolume", "StorageClass"}
)
"""What would take data, or other people's objects, with it."""


class ObjectKey(msgspec.Struct, frozen=True, order=True):
    """Which object it is, whatever version of its API is spoken. `namespace` empty: the environment's, or none."""

    group: str
    kind: str
    namespace: str
    name: str

    @property
    def title(self) -> str:
        """How people call it: `Deployment/shop`, with its namespace where it names one."""
        return f"{self.kind}/{self.name}" + (f" in {self.namespace}" if self.namespace else "")


class Parts(msgspec.Struct, frozen=True):
    """The objects of one version by the part that each plays; together they are all objects, `mounted` ones twice
    where another object needs them too.

    `workload` becomes a copy of this version alone, as do the ConfigMaps and Secrets that its pods read (`mounted`).
    `service` is the one that clients ask. `autoscaler` scales the workload, so it has to follow the copies; `budgets`
    cover its pods. `routes` send requests to the service: who applies them again while a release is under way undoes
    the split of the traffic. `shared` is all the rest, in the order in which it is to be applied.
    """

    workload: Object
    service: Object | None = None
    mounted: tuple[Object, ...] = ()
    autoscaler: Object | None = None
    budgets: tuple[Object, ...] = ()
    routes: tuple[Object, ...] = ()
    shared: tuple[Object, ...] = ()


def key_of(item: Object) -> ObjectKey:
    """Return which object it is."""
    api = str(item.get("apiVersion", ""))
    metadata = mapping(item, "metadata")
    return ObjectKey(
        group=api.rpartition("/")[0],
        kind=str(item.get("kind", "")),
        namespace=str(metadata.get("namespace") or ""),
        name=str(metadata.get("name", "")),
    )


def mapping(item: Any, *path: str) -> dict[str, Any]:
    """Return the mapping at `path`; an empty one where there is none."""
    for step in path:
        item = item.get(step) if isinstance(item, dict) else None
    return item if isinstance(item, dict) else {}


def entries(item: Any, *path: str) -> list[dict[str, Any]]:
    """Return the mappings of the list at `path`; none where there is no list."""
    found = mapping(item, *path[:-1]).get(path[-1])
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def containers(workload: Object) -> Iterator[dict[str, Any]]:
    """Yield the containers of a workload's pods, those that run first included."""
    for key in _CONTAINER_LISTS:
        yield from entries(workload, "spec", "template", "spec", key)


def find_workload(objects: Iterable[Object], wanted: str = "") -> Object:
    """Return the workload called `wanted` (`Deployment/shop` or `shop`), or the only one.

    Raises UsageError, with what there is, when it is not there or when there are several.
    """
    found = [item for item in objects if item.get("kind") in WORKLOADS and key_of(item).group == "apps"]
    titles = [f"{key_of(item).kind}/{key_of(item).name}" for item in found]
    if not found:
        raise UsageError(
            "the manifests hold no Deployment, StatefulSet or DaemonSet",
            hint="an environment is one workload; check the paths under `manifests`",
        )
    if wanted:
        same = [item for item, title in zip(found, titles, strict=True) if wanted in {title, title.partition("/")[2]}]
        if not same:
            raise UsageError(f"the manifests hold no workload `{wanted}`", hint=did_you_mean(wanted, titles))
        if len(same) > 1:
            raise UsageError(
                f"the manifests hold several workloads `{wanted}`", hint="write its kind too: `Deployment/NAME`"
            )
        return same[0]
    if len(found) > 1:
        raise UsageError(
            f"the manifests hold {len(found)} workloads: {_listed(titles)}",
            hint=f"say which one is released: `workload: {titles[0]}`",
        )
    return found[0]


def find_service(objects: Iterable[Object], workload: Object, wanted: str = "") -> Object | None:
    """Return the Service called `wanted`, or the only one that selects the workload's pods; None: there is none.

    Raises UsageError when `wanted` is not there or selects other pods, or when several could be meant.
    """
    services = [item for item in objects if item.get("kind") == "Service" and key_of(item).group == ""]
    home = key_of(workload).namespace
    labels = mapping(workload, "spec", "template", "metadata", "labels")
    fitting = [
        item
        for item in services
        if _together(key_of(item).namespace, home) and _selects(mapping(item, "spec", "selector"), labels)
    ]
    if wanted:
        named = [item for item in services if key_of(item).name == wanted]
        if not named:
            names = [key_of(item).name for item in services]
            hint = did_you_mean(wanted, names) or "add a Service to the manifests, or leave `service` out"
            raise UsageError(f"the manifests hold no Service `{wanted}`", hint=hint)
        for item in named:
            if item in fitting:
                return item
        raise UsageError(
            f"the Service `{wanted}` does not select the pods of {key_of(workload).title}",
            hint=f"its selector must fit their labels: {_labels(labels)}",
        )
    with_address = [item for item in fitting if mapping(item, "spec").get("clusterIP") != "None"] or fitting
    if len(with_address) > 1:
        names = [key_of(item).name for item in with_address]
        raise UsageError(
            f"several Services select the pods of {key_of(workload).title}: {_listed(names)}",
            hint=f"say which one clients ask: `service: {names[0]}`",
        )
    return with_address[0] if with_address else None


def split_objects(objects: Iterable[Object], workload: str = "", service: str = "") -> Parts:
    """Return the objects by the part that each plays. Raises UsageError as `find_workload` and `find_service` do."""
    everything = list(objects)
    main = find_workload(everything, workload)
    asked = find_service(everything, main, service)
    labels = mapping(main, "spec", "template", "metadata", "labels")
    home = key_of(main).namespace
    wanted = references(main)
    foreign = {name for item in everything if item is not main for name in references(item)}
    kinds: dict[str, list[Object]] = {"mounted": [], "budgets": [], "routes": [], "shared": []}
    autoscaler: Object | None = None
    for item in everything:
        key = key_of(item)
        if item is main or item is asked:
            continue
        if (key.kind, key.name) in wanted and _together(key.namespace, home) and key.group == "":
            kinds["mounted"].append(item)
            if (key.kind, key.name) in foreign:
                kinds["shared"].append(item)
        elif autoscaler is None and _scales(item, main):
            autoscaler = item
        elif key.kind == "PodDisruptionBudget" and _together(key.namespace, home) and _covers(item, labels):
            kinds["budgets"].append(item)
        elif key.kind in ROUTES and asked is not None and _points_at(item, key_of(asked)):
            kinds["routes"].append(item)
        else:
            kinds["shared"].append(item)
    return Parts(
        workload=main,
        service=asked,
        mounted=tuple(kinds["mounted"]),
        autoscaler=autoscaler,
        budgets=tuple(kinds["budgets"]),
        routes=tuple(kinds["routes"]),
        shared=in_apply_order(kinds["shared"]),
    )


def in_apply_order(objects: Iterable[Object]) -> tuple[Object, ...]:
    """Return objects so that each comes after what it needs: namespaces and types first, webhooks last."""
    return tuple(sorted(objects, key=lambda item: _rank(str(item.get("kind", "")))))


def _rank(kind: str) -> int:
    return _UNKNOWN_RANK + 1 if kind in _LAST else _RANKS.get(kind, _UNKNOWN_RANK)


class Pruning(msgspec.Struct, frozen=True):
    """Objects that were applied before and that nothing has any more: `gone` to be removed in this order, `kept` as
    their removal would take data or other people's objects with it."""

    gone: tuple[ObjectKey, ...] = ()
    kept: tuple[ObjectKey, ...] = ()


def prunable(before: Iterable[ObjectKey], still: Iterable[ObjectKey]) -> Pruning:
    """Return what of `before` is not in `still` (which holds the objects of *all* versions that are there)."""
    lost = sorted(set(before) - set(still), key=lambda key: (-_rank(key.kind), key.kind, key.namespace, key.name))
    return Pruning(
        gone=tuple(key for key in lost if key.kind not in NEVER_PRUNED),
        kept=tuple(key for key in lost if key.kind in NEVER_PRUNED),
    )


def references(item: Object) -> set[tuple[str, str]]:
    """Return (kind, name) of each ConfigMap and Secret that the pods of an object read; of a CronJob's too."""
    found: set[tuple[str, str]] = set()
    for pod in _pods(item):
        for holder, key, kind in _reference_places(pod):
            name = holder.get(key)
            if isinstance(name, str) and name:
                found.add((kind, name))
    return found


def with_references(workload: Object, names: dict[tuple[str, str], str]) -> Object:
    """Return a copy of a workload whose pods read other ConfigMaps and Secrets: `names` by (kind, name)."""
    copy: Object = msgspec.json.decode(msgspec.json.encode(workload))
    for pod in _pods(copy):
        for holder, key, kind in _reference_places(pod):
            name = holder.get(key)
            if isinstance(name, str) and (kind, name) in names:
                holder[key] = names[kind, name]
    return copy


def _pods(item: Object) -> Iterator[dict[str, Any]]:
    """Yield the specifications of pods that an object holds."""
    paths: dict[str, tuple[str, ...]] = {
        "Pod": ("spec",),
        "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    }
    path = paths.get(str(item.get("kind")), ("spec", "template", "spec"))
    pod = mapping(item, *path)
    if pod:
        yield pod


def _reference_places(pod: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield (mapping, its key, kind) of each place of a pod's specification that names a ConfigMap or a Secret."""
    for volume in entries(pod, "volumes"):
        yield mapping(volume, "configMap"), "name", "ConfigMap"
        yield mapping(volume, "secret"), "secretName", "Secret"
        for source in entries(volume, "projected", "sources"):
            yield mapping(source, "configMap"), "name", "ConfigMap"
            yield mapping(source, "secret"), "name", "Secret"
    for key in (*_CONTAINER_LISTS, "ephemeralContainers"):
        for container in entries(pod, key):
            for source in entries(container, "envFrom"):
                yield mapping(source, "configMapRef"), "name", "ConfigMap"
                yield mapping(source, "secretRef"), "name", "Secret"
            for variable in entries(container, "env"):
                yield mapping(variable, "valueFrom", "configMapKeyRef"), "name", "ConfigMap"
                yield mapping(variable, "valueFrom", "secretKeyRef"), "name", "Secret"


def _together(namespace: str, other: str) -> bool:
    """Tell whether two objects are in one namespace, where an object that names none is where the others are."""
    return namespace == other or not namespace or not other


def _selects(selector: dict[str, Any], labels: dict[str, Any]) -> bool:
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def _covers(budget: Object, labels: dict[str, Any]) -> bool:
    selector = mapping(budget, "spec", "selector")
    return set(selector) == {"matchLabels"} and _selects(mapping(selector, "matchLabels"), labels)


def _scales(item: Object, workload: Object) -> bool:
    if item.get("kind") not in {"HorizontalPodAutoscaler", "ScaledObject"}:
        return False
    target = mapping(item, "spec", "scaleTargetRef")
    key = key_of(workload)
    return (
        _together(key_of(item).namespace, key.namespace)
        and target.get("name") == key.name
        and target.get("kind", "Deployment") == key.kind
    )


def _points_at(route: Object, service: ObjectKey) -> bool:
    """Tell whether a route names the Service as a backend, in any of the forms of its kind."""
    names = {service.name} | {
        f"{service.name}.{rest}" for rest in _host_ends(service.namespace or key_of(route).namespace)
    }
    return any(isinstance(name, str) and name in names for name in _backends(mapping(route, "spec")))


def _host_ends(namespace: str) -> tuple[str, ...]:
    if not namespace:
        return ()
    return (namespace, f"{namespace}.svc", f"{namespace}.svc.cluster.local")


def _backends(spec: dict[str, Any]) -> Iterator[Any]:
    for rule in entries(spec, "rules"):
        for backend in entries(rule, "backendRefs"):
            yield backend.get("name")
        for path in entries(rule, "http", "paths"):
            yield mapping(path, "backend", "service").get("name")
    yield mapping(spec, "defaultBackend", "service").get("name")
    for protocol in ("http", "tcp", "tls"):
        for route in entries(spec, protocol):
            for destination in entries(route, "route"):
                yield mapping(destination, "destination").get("host")


def _labels(labels: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items()) or "they have none"


def _listed(names: list[str]) -> str:
    shown = [f"`{name}`" for name in names[:5]]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(shown) + more
