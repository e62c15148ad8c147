"""What a pod's status says to somebody who waits for its command."""

from __future__ import annotations

from typing import Any

import pytest

from forge.adapters.kubernetes.pods import (
    ContainerState,
    container_state,
    job_end,
    lost,
    memory_limit,
    obstacle,
    why_ended,
)


def pod(
    state: dict[str, Any] | None = None, *, name: str = "step", image: str = "web:1", **status: Any
) -> dict[str, Any]:
    statuses = [{"name": name, "image": image, "state": state}] if state is not None else []
    containers = [{"name": "step", "resources": {"limits": {"memory": "64Mi"}}}]
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": containers},
        "status": {"containerStatuses": statuses, **status},
    }


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, ContainerState()),
        ({}, ContainerState()),
        ({"waiting": {"reason": "ContainerCreating"}}, ContainerState("waiting", "ContainerCreating")),
        ({"running": {"startedAt": "now"}}, ContainerState("running")),
        ({"terminated": {"exitCode": 0, "reason": "Completed"}}, ContainerState("ended", "Completed", "", 0)),
        ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, ContainerState("ended", "OOMKilled", "", 137)),
        ({"terminated": {"reason": "Unknown"}}, ContainerState("ended", "Unknown", "", -1)),
    ],
)
def test_a_containers_state(state: dict[str, Any] | None, expected: ContainerState) -> None:
    assert container_state(pod(state), "step") == expected


def test_init_containers_are_found_and_others_are_not() -> None:
    found = pod(initContainerStatuses=[{"name": "deliver", "state": {"running": {}}}])
    assert container_state(found, "deliver").phase == "running"
    assert container_state(found, "other") == ContainerState()
    assert container_state({}, "step") == ContainerState()


@pytest.mark.parametrize(
    ("reason", "message", "patience"),
    [
        ("ErrImagePull", "manifest unknown: no such tag", 0.0),
        ("ImagePullBackOff", 'Back-off pulling image "x": not found', 0.0),
        ("ErrImagePull", "pull access denied", 0.0),
        ("InvalidImageName", "", 0.0),
        ("ErrImagePull", "dial tcp: i/o timeout", 20.0),
        ("ImagePullBackOff", "Back-off pulling image", 20.0),
    ],
)
def test_an_image_that_cannot_be_had_is_told_and_given_up_when_that_is_sure(
    reason: str, message: str, patience: float
) -> None:
    found = obstacle(pod({"waiting": {"reason": reason, "message": message}}), 600.0)
    assert found is not None
    assert found.patience == patience
    assert found.words.startswith("the image web:1 cannot be had: ")
    assert reason in found.words


def test_patience_is_never_longer_than_what_is_given() -> None:
    found = obstacle(pod({"waiting": {"reason": "ErrImagePull", "message": "timeout"}}), 2.0)
    assert found is not None
    assert found.patience == 2.0


def test_a_missing_secret_is_told() -> None:
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "registry" not found'}}
    found = obstacle(pod(waiting), 600.0)
    assert found is not None
    assert found.words == ('the container cannot be started: CreateContainerConfigError: secret "registry" not found')


def test_a_pod_that_no_node_takes_waits_as_long_as_it_may() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: cpu"}
    found = obstacle(pod(conditions=[condition]), 600.0)
    assert found is not None
    assert (found.words, found.patience) == ("no node takes the pod: 0/3 nodes: cpu", 600.0)


def test_a_pod_on_its_way_meets_no_obstacle() -> None:
    scheduled = {"type": "PodScheduled", "status": "True"}
    assert obstacle(pod({"waiting": {"reason": "ContainerCreating"}}, conditions=[scheduled]), 600.0) is None
    assert obstacle(pod({"running": {}}), 600.0) is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"reason": "Evicted", "message": "The node was low on memory"},
         "the node gave the pod up: Evicted: The node was low on memory"),
        ({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
         "the pod was taken away: PreemptionByScheduler"),
        ({}, ""),
        ({"conditions": [{"type": "DisruptionTarget", "status": "False"}]}, ""),
    ],
)  # fmt: skip
def test_a_pod_that_was_taken_away_is_told_from_a_command_that_failed(status: dict[str, Any], words: str) -> None:
    assert lost(pod(**status)) == words


def test_a_pod_that_is_being_deleted_was_deleted_by_somebody() -> None:
    gone = pod({"running": {}})
    gone["metadata"]["deletionTimestamp"] = "now"
    assert lost(gone) == "the pod was deleted by somebody else"


def test_memory_that_ran_out_is_told_with_the_limit() -> None:
    state = ContainerState("ended", "OOMKilled", "", 137)
    assert why_ended(pod(), "step", state) == "out of memory: it needed more than its limit of 64Mi"
    without = {"spec": {"containers": [{"name": "step"}]}}
    assert why_ended(without, "step", state) == "out of memory: it needed more than what its node has"
    assert why_ended(pod(), "step", ContainerState("ended", "Error", "", 1)) == ""
    assert memory_limit(without, "step") == ""


def test_a_command_that_is_not_there_is_told() -> None:
    state = ContainerState("ended", "StartError", "exec: no such file", 128)
    assert why_ended(pod(), "step", state) == "it could not be started: exec: no such file"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ("", "")),
        ([{"type": "Suspended", "status": "False"}], ("", "")),
        ([{"type": "SuccessCriteriaMet", "status": "True"}], ("", "")),
        ([{"type": "Complete", "status": "True", "reason": "CompletionsReached"}], ("complete", "CompletionsReached")),
        ([{"type": "FailureTarget", "status": "True"},
          {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}],
         ("failed", "BackoffLimitExceeded: too often")),
    ],
)  # fmt: skip
def test_a_jobs_end_is_in_its_conditions(conditions: list[dict[str, Any]], expected: tuple[str, str]) -> None:
    assert job_end({"status": {"conditions": conditions}}) == expected
    assert job_end({}) == ("", "")
