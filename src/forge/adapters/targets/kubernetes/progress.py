"""Why replicas are not ready, in the first seconds: what a person would find with five commands. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from forge.adapters.kubernetes.objects import Object, mapping
from forge.adapters.targets.kubernetes.counting import condition, is_ready, phase

_IMAGE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable",
     "ImageInspectError", "SignatureValidationFailed"}
)  # fmt: skip
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreStartHookError"})
_STARTING = frozenset({"ContainerCreating", "PodInitializing", ""})
_STUCK_EVENTS = (
    "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedPostStartHook", "FailedScheduling",
    "FailedBinding",
)  # fmt: skip
LONGEST = 300
"""Characters of a reason: it stands in one line."""


class Details(msgspec.Struct, frozen=True):
    """What was asked about one pod beyond its status. `event`: newest warnings by reason; `line`: its last words."""

    events: dict[str, str] = {}
    line: str = ""


def why_not_ready(
    workload: Object | None, pods: Sequence[Object], expected: int, details: Mapping[str, Details] | None = None
) -> str:
    """Return the reasons, the most frequent first; empty when `expected` pods are ready.

    `details` is by the pod's name. `pods` are those that are not ending.
    """
    known = details or {}
    waiting = [pod for pod in pods if not is_ready(pod)]
    reasons = Counter(reason_of(pod, known.get(_name(pod), Details())) for pod in waiting)
    told = [reason if count == 1 else f"{count} replicas: {reason}" for reason, count in reasons.most_common(2)]
    if len(pods) < expected:
        missing = why_missing(workload, expected - len(pods))
        told.insert(0, missing) if _refused(workload) else told.append(missing)
    return "; ".join(told)


def why_missing(workload: Object | None, missing: int) -> str:
    """Return why there are fewer pods than are asked for."""
    if workload is None:
        return "its workload is not there"
    refused = _refused(workload)
    if refused:
        return f"no pod can be made: {refused}"
    if mapping(workload, "spec").get("paused"):
        return f"somebody paused {workload.get('kind', 'Deployment')} {_name(workload)}"
    return f"{missing} not started yet"


def reason_of(pod: Object, details: Details | None = None) -> str:
    """Return in words what one pod waits for."""
    details = details or Details()
    status = mapping(pod, "status")
    if phase(pod) == "Failed":
        return _short(f"ended: {status.get('reason') or 'failed'}: {status.get('message') or 'no message'}")
    unscheduled = condition(pod, "PodScheduled")
    if unscheduled.get("status") == "False":
        return _short(f"no node takes it: {unscheduled.get('message') or unscheduled.get('reason')}")
    for group in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(group) or ():
            told = _container(each, details, init=group.startswith("init"))
            if told:
                return _short(told)
    for event in _STUCK_EVENTS:
        if event in details.events:
            return _short(f"{event}: {details.events[event]}")
    return _short(_running(pod, details))


def _container(status: Mapping[str, Any], details: Details, *, init: bool) -> str:
    state = mapping(status, "state")
    name = f"{'init container' if init else 'container'} {status.get('name', '')}"
    waiting = mapping(state, "waiting")
    reason = str(waiting.get("reason") or "")
    if reason in _IMAGE:
        why = waiting.get("message") or reason
        return f"image {status.get('image') or ''} cannot be pulled: {why}".replace("  ", " ")
    if reason in _CONFIG:
        return f"{name} cannot be started: {waiting.get('message') or reason}"
    ended = mapping(state, "terminated") or mapping(status, "lastState", "terminated")
    if reason == "CrashLoopBackOff" or (ended and not status.get("ready") and not (init and _done(ended))):
        return _crash(name, ended, int(status.get("restartCount") or 0), details)
    if reason and reason not in _STARTING:
        return f"{name}: {reason}: {waiting.get('message') or 'no message'}"
    return ""


def _done(ended: Mapping[str, Any]) -> bool:
    return ended.get("exitCode") == 0


def _crash(name: str, ended: Mapping[str, Any], times: int, details: Details) -> str:
    why = "ran out of memory" if ended.get("reason") == "OOMKilled" else f"exits with {ended.get('exitCode', '?')}"
    often = f", restarted {times} times" if times > 1 else ""
    line = str(ended.get("message") or "").strip().rpartition("\n")[2] or details.line
    return f"{name} {why}{often}" + (f": {line}" if line else "")


def _running(pod: Object, details: Details) -> str:
    status = mapping(pod, "status")
    containers = status.get("containerStatuses") or []
    ready = condition(pod, "Ready")
    if containers and all(each.get("ready") for each in containers):
        node = mapping(pod, "spec").get("nodeName") or "its node"
        gates = [str(each) for each in (ready.get("message"),) if each]
        if ready.get("reason") == "ReadinessGatesNotReady":
            return f"its containers are ready, a readiness gate is not: {'; '.join(gates)}"
        return f"node {node} is not heard of any more"
    slow = [str(each.get("name", "")) for each in containers if "running" in mapping(each, "state")]
    if "Unhealthy" in details.events:
        return f"probe fails: {details.events['Unhealthy']}"
    if slow:
        probes = any(each.get("readinessProbe") for each in mapping(pod, "spec").get("containers") or ())
        return f"container {slow[0]} runs" + (
            ", its readiness probe does not pass yet" if probes else ", not ready yet"
        )
    return "starting"


def _refused(workload: Object | None) -> str:
    failed = condition(workload or {}, "ReplicaFailure")
    if failed.get("status") != "True":
        return ""
    return _short(str(failed.get("message") or failed.get("reason") or ""))


def _name(item: Object) -> str:
    return str(mapping(item, "metadata").get("name", ""))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
