"""What a pod's status says, as far as somebody who waits for its command wants to know: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Pod = Mapping[str, Any]
SURE = re.compile(
    r"not found|unauthorized|denied|forbidden|manifest unknown|does not exist|invalid reference|no match", re.IGNORECASE
)
"""What a registry says that trying again does not change."""
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_HOPELESS = {"InvalidImageName", "ErrImageNeverPull"}
_CONFIGURATION = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}


class ContainerState(msgspec.Struct, frozen=True):
    """`waiting` before it runs. `exit_code` is set when it has ended; `reason` and `message` are the node's words."""

    phase: Literal["waiting", "running", "ended"] = "waiting"
    reason: str = ""
    message: str = ""
    exit_code: int | None = None


class Obstacle(msgspec.Struct, frozen=True):
    """What keeps a pod from running. `patience`: for how many seconds it may still go away by itself."""

    words: str
    patience: float


def container_state(pod: Pod, name: str) -> ContainerState:
    """Return the state of a container, or of an init container, of that name."""
    for status in _statuses(pod):
        if status.get("name") != name:
            continue
        state = status.get("state") or {}
        if ended := state.get("terminated"):
            return ContainerState(
                "ended", str(ended.get("reason") or ""), str(ended.get("message") or ""), int(ended.get("exitCode", -1))
            )
        if "running" in state:
            return ContainerState("running")
        waiting = state.get("waiting") or {}
        return ContainerState("waiting", str(waiting.get("reason") or ""), str(waiting.get("message") or ""))
    return ContainerState()


def obstacle(pod: Pod, patience: float) -> Obstacle | None:
    """Return what keeps the pod from running now, None when it is on its way. `patience`: the longest of all."""
    for status in _statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in _IMAGE:
            sure = reason in _HOPELESS or SURE.search(message) is not None
            words = f"the image {status.get('image') or ''} cannot be had: {_joined(reason, message)}"
            return Obstacle(words, 0.0 if sure else min(20.0, patience))
        if reason in _CONFIGURATION:
            return Obstacle(f"the container cannot be started: {_joined(reason, message)}", min(5.0, patience))
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Obstacle(f"no node takes the pod: {condition.get('message') or condition.get('reason')}", patience)
    return None


def lost(pod: Pod) -> str:
    """Return why the pod ended without its command having ended by itself; empty when it did, or runs."""
    status = pod.get("status") or {}
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if reason in {
        "Evicted",
        "NodeLost",
        "Shutdown",
        "NodeShutdown",
        "Terminated",
        "Preempting",
        "UnexpectedAdmissionError",
    }:
        return f"the node gave the pod up: {_joined(reason, message)}"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            told = _joined(str(condition.get("reason") or ""), str(condition.get("message") or ""))
            return f"the pod was taken away: {told}"
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return "the pod was deleted by somebody else"
    return ""


def why_ended(pod: Pod, name: str, state: ContainerState) -> str:
    """Return what an exit code does not tell: that memory ran out, and how much it may have. Empty: nothing."""
    if state.reason == "OOMKilled":
        limit = memory_limit(pod, name)
        of = f"its limit of {limit}" if limit else "what its node has"
        return f"out of memory: it needed more than {of}"
    if state.reason in {"ContainerCannotRun", "StartError"}:
        return f"it could not be started: {state.message or state.reason}"
    return ""


def memory_limit(pod: Pod, name: str) -> str:
    """Return the memory limit of a container as it is written; empty: it has none."""
    for container in (pod.get("spec") or {}).get("containers") or ():
        if container.get("name") == name:
            return str(((container.get("resources") or {}).get("limits") or {}).get("memory") or "")
    return ""


def job_end(job: Mapping[str, Any]) -> tuple[Literal["", "complete", "failed"], str]:
    """Return how a Job ended (empty: it has not) and its controller's words about it."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in {"Complete", "Failed"}:
            words = _joined(str(condition.get("reason") or ""), str(condition.get("message") or ""))
            return ("complete" if condition["type"] == "Complete" else "failed"), words
    return "", ""


def _statuses(pod: Pod) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _joined(reason: str, message: str) -> str:
    return f"{reason}: {message}" if reason and message else message or reason or "no reason was given"
