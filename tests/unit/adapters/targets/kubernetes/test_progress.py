"""Why replicas are not ready, from what a cluster says of pods: the reason that a person would look for."""

from __future__ import annotations

import pytest

from forge.adapters.targets.kubernetes.progress import LONGEST, Details, reason_of, why_missing, why_not_ready


def pod(name: str = "shop-x1", *, node: str = "node-1", probe: bool = False, **status) -> dict:
    container = {"name": "web", **({"readinessProbe": {"httpGet": {}}} if probe else {})}
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {"phase": "Running", **status},
    }


def waiting(reason: str, message: str = "", **more) -> dict:
    state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return pod(containerStatuses=[{"name": "web", "image": "shop:9", "ready": False, "state": state, **more}])


def ended(code: int, **more) -> dict:
    return {"terminated": {"exitCode": code, **more}}


def condition(kind: str, status: str, **more) -> dict:
    return {"type": kind, "status": status, **more}


def deployment(*conditions: dict, **spec) -> dict:
    return {"kind": "Deployment", "metadata": {"name": "shop"}, "spec": spec, "status": {"conditions": [*conditions]}}


READY = pod("ready", conditions=[condition("Ready", "True")])


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (waiting("ImagePullBackOff", "Back-off pulling image"), "image shop:9 cannot be pulled: Back-off pulling image"),
        (waiting("ErrImagePull"), "image shop:9 cannot be pulled: ErrImagePull"),
        (waiting("InvalidImageName", "bad ref"), "image shop:9 cannot be pulled: bad ref"),
        (waiting("CreateContainerConfigError", 'secret "x" not found'),
         'container web cannot be started: secret "x" not found'),
        (waiting("SomethingNew", "who knows"), "container web: SomethingNew: who knows"),
        (waiting("ContainerCreating"), "starting"),
        (waiting("CrashLoopBackOff", restartCount=4, lastState=ended(1)), "container web exits with 1, restarted 4 times"),
        (waiting("CrashLoopBackOff", lastState=ended(137, reason="OOMKilled")), "container web ran out of memory"),
        (waiting("CrashLoopBackOff", lastState=ended(2, message="a\nno config\n")), "container web exits with 2: no config"),
        (pod(containerStatuses=[{"name": "web", "ready": False, "restartCount": 1, "state": {"running": {}},
                                 "lastState": ended(3)}]), "container web exits with 3"),
        (pod(phase="Pending", conditions=[condition("PodScheduled", "False", message="0/2 nodes are available")]),
         "no node takes it: 0/2 nodes are available"),
        (pod(phase="Failed", reason="Evicted", message="low on memory"), "ended: Evicted: low on memory"),
        (pod(containerStatuses=[{"name": "web", "ready": False, "state": {"running": {}}}]), "container web runs, not ready yet"),
        (pod(probe=True, containerStatuses=[{"name": "web", "ready": False, "state": {"running": {}}}]),
         "container web runs, its readiness probe does not pass yet"),
        (pod(containerStatuses=[{"name": "web", "ready": True, "state": {"running": {}}}],
             conditions=[condition("Ready", "False")]), "node node-1 is not heard of any more"),
        (pod(containerStatuses=[{"name": "web", "ready": True, "state": {"running": {}}}],
             conditions=[condition("Ready", "False", reason="ReadinessGatesNotReady", message="lb not ready")]),
         "its containers are ready, a readiness gate is not: lb not ready"),
        (pod(phase="Pending"), "starting"),
        ({"metadata": {"name": "bare"}}, "starting"),
    ],
)  # fmt: skip
def test_each_state_has_its_words(broken, words) -> None:
    assert reason_of(broken) == words


def test_an_init_container_that_is_done_is_no_crash_and_one_that_fails_is() -> None:
    done = {"name": "migrate", "ready": True, "state": ended(0)}
    waits = {"name": "web", "ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}
    assert reason_of(pod(initContainerStatuses=[{**done, "ready": False}], containerStatuses=[waits])) == "starting"
    failed = {"name": "migrate", "ready": False, "restartCount": 2, "state": ended(1)}
    told = reason_of(pod(initContainerStatuses=[failed], containerStatuses=[waits]))
    assert told == "init container migrate exits with 1, restarted 2 times"


def test_what_was_asked_beyond_the_status_is_told_with_it() -> None:
    crash = waiting("CrashLoopBackOff", lastState=ended(1))
    assert reason_of(crash, Details(line="no database")) == "container web exits with 1: no database"
    unready = pod(containerStatuses=[{"name": "web", "ready": False, "state": {"running": {}}}])
    assert reason_of(unready, Details({"Unhealthy": "HTTP 503"})) == "probe fails: HTTP 503"
    assert reason_of(pod(phase="Pending"), Details({"FailedMount": "no volume"})) == "FailedMount: no volume"


def test_the_most_frequent_reason_comes_first_and_like_ones_are_counted() -> None:
    pods = [waiting("ErrImagePull"), waiting("ErrImagePull"), pod("c", phase="Pending"), READY]
    for number, each in enumerate(pods):
        each["metadata"]["name"] = f"p{number}"
    told = why_not_ready(deployment(), pods, 4)
    assert told == "2 replicas: image shop:9 cannot be pulled: ErrImagePull; starting"


def test_all_ready_is_no_reason() -> None:
    assert why_not_ready(deployment(), [READY], 1) == ""
    assert why_not_ready(None, [], 0) == ""


def test_pods_that_were_never_made_are_explained() -> None:
    refused = deployment(condition("ReplicaFailure", "True", message='pods "x" is forbidden: exceeded quota: small'))
    assert why_missing(refused, 2) == 'no pod can be made: pods "x" is forbidden: exceeded quota: small'
    assert why_not_ready(refused, [pod("a", phase="Pending")], 3).startswith("no pod can be made: ")
    assert why_missing(deployment(paused=True), 1) == "somebody paused Deployment shop"
    assert why_missing(deployment(condition("ReplicaFailure", "False")), 2) == "2 not started yet"
    assert why_missing(None, 1) == "its workload is not there"


def test_a_reason_is_one_line_of_bounded_length() -> None:
    told = reason_of(waiting("ErrImagePull", "line one\n  line two " + "x" * 1000))
    assert "\n" not in told
    assert len(told) == LONGEST
    assert told.endswith("…")
