"""The status of a pod as a kubelet writes it, from what its node knows of its containers. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from cluster.api import Object
from cluster.node_addresses import shown


@dataclass
class Record:
    """What is known of one container over all its lives; `state` and `last` are as in a containerStatus."""

    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Object = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    started: bool = False

    @property
    def exit_code(self) -> int | None:
        """The exit code of a container that has ended and is not waiting for another life."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    def wait(self, reason: str, message: str = "") -> None:
        """It does not run, and why; a life that has just ended is remembered as the last one."""
        if "terminated" in self.state:
            self.last = self.state
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self.ready = self.started = False


def status_of(
    pod: Object, records: dict[str, Record], ip: str, began: str, *, mounted: bool, initialized: bool
) -> Object:
    """Return the status; transition times are kept from the pod's own conditions where those say the same."""
    spec = pod["spec"]
    main = [_container(each, records, initialized) for each in spec["containers"]]
    init = [_container(each, records, initialized=True) for each in spec.get("initContainers", ())]
    phase = _phase(spec, main, init, initialized=initialized)
    unready = [each["name"] for each in main if not each["ready"]]
    status: Object = {
        "phase": phase, "observedGeneration": pod["metadata"].get("generation", 1),
        "conditions": _conditions(pod, phase, unready, mounted=mounted, initialized=initialized),
        "startTime": began, "hostIP": "127.0.0.1", "hostIPs": [{"ip": "127.0.0.1"}], "podIP": shown(ip),
        "podIPs": [{"ip": shown(ip)}], "qosClass": pod.get("status", {}).get("qosClass", "BestEffort"),
        "containerStatuses": main,
    }  # fmt: skip
    if init:
        status["initContainerStatuses"] = init
    return status


def _container(spec: Object, records: dict[str, Record], initialized: bool) -> Object:
    record = records.get(spec["name"])
    if record is None:
        reason = "ContainerCreating" if initialized else "PodInitializing"
        record = Record({"waiting": {"reason": reason}})
    image = spec.get("image", "")
    return {
        "name": spec["name"], "image": image, "imageID": f"process://{image}" if "running" in record.state else "",
        "state": record.state, "lastState": record.last, "restartCount": record.restarts,
        "ready": record.ready, "started": record.started,
    }  # fmt: skip


def _phase(spec: Object, main: list[Object], init: list[Object], *, initialized: bool) -> str:
    policy = spec.get("restartPolicy", "Always")
    failed = [each for each in init if each["state"].get("terminated", {}).get("exitCode")]
    if not initialized:
        return "Failed" if failed and policy == "Never" else "Pending"
    ended = [each["state"]["terminated"]["exitCode"] for each in main if "terminated" in each["state"]]
    if len(ended) == len(main) and policy != "Always":
        if not any(ended):
            return "Succeeded"
        if policy == "Never":
            return "Failed"
    begun = any("waiting" not in each["state"] or each["lastState"] for each in main)
    return "Running" if begun else "Pending"


def _conditions(pod: Object, phase: str, unready: list[str], *, mounted: bool, initialized: bool) -> list[Object]:
    before = {each["type"]: each for each in pod.get("status", {}).get("conditions", ())}
    gates = [each["conditionType"] for each in pod["spec"].get("readinessGates", ())]
    closed = [gate for gate in gates if before.get(gate, {}).get("status") != "True"]
    ended = phase in {"Succeeded", "Failed"}
    why: Object = {}
    if unready:
        words = f"containers with unready status: [{' '.join(unready)}]"
        why = {"reason": "PodCompleted"} if phase == "Succeeded" else {"reason": "ContainersNotReady", "message": words}
    gated = {"reason": "ReadinessGatesNotReady", "message": f'the status of pod readiness gate "{closed[0]}" is not '
             '"True"'} if closed else {}  # fmt: skip
    incomplete = {"reason": "ContainersNotInitialized", "message": "containers with incomplete status"}
    told = [
        ("PodReadyToStartContainers", mounted and not ended, {}),
        ("Initialized", initialized, {} if initialized else incomplete),
        ("ContainersReady", not unready, why),
        ("Ready", not unready and not closed, why or gated),
    ]
    made = []
    for kind, holds, reason in told:
        old = before.get(kind, {})
        since = old["lastTransitionTime"] if old.get("status") == str(holds) else now()
        made.append(
            {"type": kind, "status": str(holds), "lastTransitionTime": since, "reason": None, "message": None, **reason}
        )
    return made


def waiting_words(record: Any, container: str, pod: str) -> str:
    """Return what a kubelet answers who asks for the log of a container that has not begun."""
    reason = record.state.get("waiting", {}).get("reason", "ContainerCreating") if record else "ContainerCreating"
    return f'container "{container}" in pod "{pod}" is waiting to start: {reason}'


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
