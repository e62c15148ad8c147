"""What a manifest gives up: replicas that are away while a version is replaced, or that are asked too early."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from forge.adapters.kubernetes.objects import entries, key_of, mapping, split_objects
from forge.adapters.kubernetes.rendering import Manifest, replicas_of
from forge.model.diagnostics import Diagnostic

_PROBE_HINT = "add `readinessProbe: {httpGet: {path: /healthz, port: 8080}}`"


def capacity_warnings(
    manifests: Iterable[Manifest], *, workload: str = "", service: str = "", replicas: int = 0
) -> Iterator[Diagnostic]:
    """Yield a warning for each thing by which the workload gives up capacity, at its place in the file.

    `replicas` is what the environment sets instead of the manifest. Raises UsageError for a workload that is not there.
    """
    found = list(manifests)
    parts = split_objects((manifest.item for manifest in found), workload, service)
    main = next(manifest for manifest in found if manifest.item is parts.workload)
    kind = key_of(main.item).kind
    if kind == "Deployment":
        yield from _strategy(main)
    else:
        yield from _on_delete(main)
    if kind != "DaemonSet":
        yield from _single(main, replicas, mapping(parts.autoscaler, "spec").get("minReplicas", 1), parts.autoscaler)
    if parts.service is not None or kind == "Deployment":
        yield from _unready(main)


def _strategy(main: Manifest) -> Iterator[Diagnostic]:
    strategy = mapping(main.item, "spec", "strategy")
    if strategy.get("type") == "Recreate":
        message = "`Recreate` stops all replicas before the first of the next version starts"
        hint = "remove it: `maxUnavailable: 0` with `maxSurge: 1` keeps every replica until its successor is ready"
        yield main.problem("capacity", message, ("spec", "strategy", "type"), hint=hint, warning=True)
        return
    away = mapping(strategy, "rollingUpdate").get("maxUnavailable")
    if _is_some(away):
        message = f"`maxUnavailable: {away}` gives up capacity while replicas are replaced"
        hint = "`maxUnavailable: 0` with `maxSurge: 1` keeps every replica until its successor is ready"
        where = ("spec", "strategy", "rollingUpdate", "maxUnavailable")
        yield main.problem("capacity", message, where, hint=hint, warning=True)


def _on_delete(main: Manifest) -> Iterator[Diagnostic]:
    if mapping(main.item, "spec", "updateStrategy").get("type") == "OnDelete":
        message = "`OnDelete` replaces no pod by itself: a release would wait for somebody to delete them"
        hint = "remove it, or write `type: RollingUpdate`"
        yield main.problem("capacity", message, ("spec", "updateStrategy", "type"), hint=hint, warning=True)


def _single(main: Manifest, replicas: int, least: object, autoscaler: object) -> Iterator[Diagnostic]:
    written = replicas_of(main.item)
    if autoscaler is not None and written is None:
        written = least if isinstance(least, int) else 1
    count = replicas or (1 if written is None else written)
    if count != 1:
        return
    message = f"{key_of(main.item).title} has one replica: when it or its node goes, nobody answers"
    key = written is None or autoscaler is not None
    yield main.problem(
        "capacity", message, ("spec",) if key else ("spec", "replicas"), key=True, warning=True,
        hint=f"write `{'replicas' if autoscaler is None else 'minReplicas'}: 2` or more",
    )  # fmt: skip


def _unready(main: Manifest) -> Iterator[Diagnostic]:
    """Pods without a readiness probe are ready when their process begins; a sidecar's own probe does not help."""
    pod = mapping(main.item, "spec", "template", "spec")
    if not pod or any(mapping(container, "readinessProbe") for container in entries(pod, "containers")):
        return
    message = f"{key_of(main.item).title} has no readiness probe: it is asked before it can answer"
    where = ("spec", "template", "spec", "containers")
    yield main.problem("capacity", message, where, key=True, hint=_PROBE_HINT, warning=True)


def _is_some(count: Any) -> bool:
    """Tell whether a number, or a percentage, is more than none."""
    if isinstance(count, bool):
        return False
    if isinstance(count, (int, float)):
        return count > 0
    return isinstance(count, str) and count.rstrip("%").strip() not in {"0", ""}
