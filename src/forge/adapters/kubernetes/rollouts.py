"""What `kubectl rollout status` and `kubectl rollout undo` do, for workloads that Forge does not manage.

Source of the rules: the Deployment, StatefulSet and DaemonSet status fields of apps/v1, and the revision annotation of
ReplicaSets (`deployment.kubernetes.io/revision`) and the `revision` of ControllerRevisions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import CONTROLLER_REVISION, POD, REPLICA_SET, WORKLOADS, Kind
from forge.adapters.kubernetes.naming import annotation, selector
from forge.adapters.kubernetes.objects import Object, mapping
from forge.adapters.targets.kubernetes.inquiring import Inquiry
from forge.adapters.targets.kubernetes.progress import why_not_ready
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

LOOK = 0.5
TELL = 15.0
"""Seconds after which the same state is told again."""
UNDONE = "forge.dev/undone"
"""Annotation: the run that took the workload back, and the number that the revision has since."""
_REVISION = "deployment.kubernetes.io/revision"
_HASH = "pod-template-hash"


class Revision(msgspec.Struct, frozen=True, order=True):
    """One state that a workload was in: its number, and the template of its pods."""

    number: int
    template: dict[str, Any]


def parse_workload(text: str) -> tuple[Kind, str]:
    """Return kind and name of `Deployment/shop` (or `deployment/shop`). Raises UsageError."""
    kind, _, name = text.partition("/")
    known = {each.lower(): each for each in WORKLOADS}
    if kind.lower() not in known or not name:
        raise UsageError(f"`{text}` is no workload", hint=did_you_mean(kind, [*WORKLOADS]) or "write `Deployment/NAME`")
    return WORKLOADS[known[kind.lower()]], name


async def wait_for_rollout(
    cluster: Cluster, workload: str, timeout: float, say: Callable[[str], None], namespace: str = ""
) -> str:
    """Wait until every replica runs the newest template and is ready; return why not, if that is not so in time.

    `say` gets a line whenever the state changes: also, within seconds, why pods do not get ready.
    """
    kind, name = parse_workload(workload)
    inquiry, told, told_at, deadline = Inquiry(cluster), "", 0.0, time.monotonic() + timeout
    try:
        while True:
            live = await cluster.get(kind, name, namespace)
            if live is None:
                return f"{cluster.name} has no {kind.name} {name}"
            missing = unfinished(live)
            if not missing:
                say(f"{kind.name} {name} is rolled out")
                return ""
            pods, _ = await cluster.objects(POD, labels=_chosen(live), namespace=namespace)
            going = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
            fresh = [pod for pod in going if not _is_ready(pod)]
            why = why_not_ready(live, going, int(mapping(live, "spec").get("replicas", 1)), inquiry.details(fresh))
            words = f"{missing}: {why}" if why else missing
            now = time.monotonic()
            if words != told or now >= told_at + TELL:
                say(f"waiting for {kind.name} {name}: {words}")
                told, told_at = words, now
            if now >= deadline or _gave_up(live):
                return f"{kind.name} {name} did not get ready: {words}"
            await asyncio.sleep(LOOK)
    finally:
        await inquiry.close()


def unfinished(live: Object) -> str:
    """Return what a rollout waits for; empty when it is done. Pure."""
    spec, status = mapping(live, "spec"), mapping(live, "status")
    if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return "its controller has not seen the change yet"
    if live.get("kind") == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        updated, available, total = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0), wanted
    else:
        wanted = spec.get("replicas", 1)
        updated = status.get("updatedReplicas", 0)
        available, total = status.get("availableReplicas", status.get("readyReplicas", 0)), status.get("replicas", 0)
        if live.get("kind") == "StatefulSet" and status.get("currentRevision") == status.get("updateRevision"):
            updated = wanted
    if updated < wanted:
        return f"{updated} of {wanted} replicas are updated"
    if total > updated:
        return f"{total - updated} old replicas are ending"
    return f"{available} of {wanted} replicas are ready" if available < wanted else ""


async def undo(cluster: Cluster, workload: str, to: str, run: str, namespace: str = "") -> Revision:
    """Give a workload the template of an earlier revision (`to` empty: the one before); return which.

    Once a run: asked again by the same run, also after a crash or by another step, it changes nothing, since the one
    before would then be what it went back from. Raises UsageError when there is no such revision, Conflict when
    somebody changed the workload at the same moment.
    """
    kind, name = parse_workload(workload)
    live = await cluster.get(kind, name, namespace)
    if live is None:
        raise UsageError(f"{cluster.name} has no {kind.name} {name}")
    known = await revisions(cluster, {**live, "kind": kind.name}, namespace)
    by, _, number = annotation(live, UNDONE).partition(" ")
    done = next((each for each in known if by == run and str(each.number) == number), None)
    if done is not None:
        return done
    chosen = choose_revision(known, to, f"{kind.name} {name}")
    # The cluster gives the revision a new number: that of the next change.
    after = max(each.number for each in known) + (chosen.number != max(each.number for each in known))
    notes = {**(live["metadata"].get("annotations") or {}), UNDONE: f"{run} {after}"}
    change = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
        {"op": "add", "path": "/metadata/annotations", "value": notes},
        {"op": "replace", "path": "/spec/template", "value": chosen.template},
    ]
    await cluster.patch(kind, name, change, namespace=namespace)
    return chosen


def choose_revision(known: list[Revision], to: str, title: str) -> Revision:
    """Return the revision to go back to. Raises UsageError, with those that there are. Pure."""
    ordered = sorted(known)
    if not to or to == "previous":
        if len(ordered) < 2:
            raise UsageError(f"{title} has no earlier revision to go back to")
        return ordered[-2]
    numbers = [str(each.number) for each in ordered]
    if to not in numbers:
        raise UsageError(f"{title} has no revision {to}", hint=f"there are {', '.join(numbers) or 'none'}")
    return ordered[numbers.index(to)]


async def revisions(cluster: Cluster, live: Object, namespace: str = "") -> list[Revision]:
    """Return the states that the cluster remembers of a workload, oldest first."""
    uid = live["metadata"]["uid"]
    kind = REPLICA_SET if live["kind"] == "Deployment" else CONTROLLER_REVISION
    items, _ = await cluster.objects(kind, labels=_chosen(live), namespace=namespace)
    owned = [
        item for item in items if any(each.get("uid") == uid for each in item["metadata"].get("ownerReferences") or ())
    ]
    return sorted(_revision(item) for item in owned)


def _revision(item: Object) -> Revision:
    if item["kind"] == "ReplicaSet":
        template: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(item["spec"]["template"]))
        (template["metadata"].get("labels") or {}).pop(_HASH, None)
        return Revision(int(annotation(item, _REVISION) or 0), template)
    template = {key: value for key, value in item["data"]["spec"]["template"].items() if key != "$patch"}
    return Revision(int(item["revision"]), template)


def _chosen(live: Object) -> str:
    return selector(mapping(live, "spec", "selector", "matchLabels"))


def _is_ready(pod: Object) -> bool:
    return any(
        each.get("type") == "Ready" and each.get("status") == "True"
        for each in mapping(pod, "status").get("conditions") or ()
    )


def _gave_up(live: Object) -> bool:
    """Whether the Deployment's own deadline has passed: it waits no longer either."""
    conditions = mapping(live, "status").get("conditions") or ()
    return any(each.get("reason") == "ProgressDeadlineExceeded" for each in conditions)
