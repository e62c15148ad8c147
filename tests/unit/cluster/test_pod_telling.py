"""What the test cluster's nodes tell of a pod, and how they place its files, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.container import expanded, quantity, relocated
from cluster.node_addresses import AddressBlock, loopback, shown, unprivileged
from cluster.pod_failures import failure_of, how_lost, image_problem
from cluster.pod_status import Record, status_of

RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}


def pod(policy: str = "Always", **more: Any) -> dict[str, Any]:
    spec = {"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}], **more}
    return {"metadata": {"name": "p", "generation": 4}, "spec": spec, "status": {}}


def told(item: dict[str, Any], *, initialized: bool = True, **records: Record) -> dict[str, Any]:
    return status_of(item, records, "127.70.1.2", "2026-01-01T00:00:00Z", mounted=True, initialized=initialized)


def holds(status: dict[str, Any]) -> dict[str, str]:
    return {each["type"]: each["status"] for each in status["conditions"]}


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [("Always", (0, 0), "Running"), ("OnFailure", (0, 0), "Succeeded"), ("OnFailure", (0, 1), "Running"),
     ("Never", (0, 1), "Failed"), ("Never", (0, None), "Running")],
)  # fmt: skip
def test_the_phase_is_what_the_containers_came_to(policy: str, codes: tuple[int | None, ...], phase: str) -> None:
    records = {name: Record(RUNNING if code is None else ended(code)) for name, code in zip("ab", codes, strict=True)}
    assert told(pod(policy), **records)["phase"] == phase


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    status = told(pod(), a=Record(RUNNING, ready=True), b=Record(RUNNING))
    assert holds(status)["Ready"] == holds(status)["ContainersReady"] == "False"
    assert "unready status: [b]" in next(e["message"] for e in status["conditions"] if e["type"] == "Ready")
    status = told(pod(), a=Record(RUNNING, ready=True), b=Record(RUNNING, ready=True))
    assert holds(status)["Ready"] == "True"
    assert (status["podIP"], status["observedGeneration"]) == ("10.70.1.2", 4)


def test_a_gate_that_is_closed_keeps_it_from_being_ready() -> None:
    item = pod(readinessGates=[{"conditionType": "x/open"}])
    both = {"a": Record(RUNNING, ready=True), "b": Record(RUNNING, ready=True)}
    assert holds(told(item, **both))["Ready"] == "False"
    item["status"] = {"conditions": [{"type": "x/open", "status": "True", "lastTransitionTime": "t"}]}
    assert holds(told(item, **both))["Ready"] == "True"


def test_the_time_of_a_transition_is_kept() -> None:
    item = pod()
    item["status"] = {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "then"}]}
    times = {each["type"]: each["lastTransitionTime"] for each in told(item, a=Record(RUNNING))["conditions"]}
    assert times["Ready"] == "then"
    assert times["Initialized"] != "then"


def test_before_it_is_initialized_the_others_wait_and_a_failed_one_is_the_end() -> None:
    item = pod("Never", initContainers=[{"name": "first"}])
    status = told(item, initialized=False, first=Record(RUNNING))
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert told(item, initialized=False, first=Record(ended(2)))["phase"] == "Failed"


def test_a_life_that_ended_is_remembered_while_the_next_is_waited_for() -> None:
    record = Record(ended(3))
    record.wait("CrashLoopBackOff", "back-off")
    record.wait("ErrImagePull")
    assert record.last == ended(3)
    assert record.state == {"waiting": {"reason": "ErrImagePull"}}
    assert record.exit_code is None


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("/etc/app/x", "/v/app/x"), ("cat /etc/app;", "cat /v/app;"), ("--config=/etc/app", "--config=/v/app"),
     ("/etc/apple", "/etc/apple"), ("/my/etc/app", "/my/etc/app"), ("/etc/app/in/x", "/v/in/x"), ("/etc", "/etc")],
)  # fmt: skip
def test_places_are_written_as_folders_where_a_machine_has_no_namespaces(word: str, wanted: str) -> None:
    assert relocated(word, [(Path("/v/app"), "/etc/app"), (Path("/v/in"), "/etc/app/in/")]) == wanted


def test_references_in_words_are_filled_in() -> None:
    assert expanded("$(A)-$(B)-$$(A)", {"A": "1"}) == "1-$(B)-$(A)"
    assert (quantity("64Mi"), quantity("1G"), quantity("")) == (64 * 2**20, 1e9, 0.0)


def test_failures_are_known_by_name() -> None:
    item = {"metadata": {"annotations": {"forge.test/fail": "image-error"}}}
    assert failure_of(item) == "image-error"
    assert "not found" in image_problem(item, "nginx")
    assert not image_problem({"metadata": {}}, "nginx")
    assert image_problem({"metadata": {}}, "forge.test/gone")
    with pytest.raises(ValueError, match="none of never-ready"):
        failure_of({"metadata": {"annotations": {"forge.test/fail": "never-redy"}}})
    assert [how_lost({"metadata": {"annotations": {"forge.test/lost": each}}}) for each in ("true", "partitioned", "")] == [
        "dead", "partitioned", "",
    ]  # fmt: skip


def test_addresses_are_shown_as_others_and_no_two_programs_have_the_same() -> None:
    one, other = AddressBlock(), AddressBlock()
    try:
        assert one.number != other.number
        address = one.take()
        assert loopback(shown(address)) == address
        assert shown(address).startswith("10.")
        assert one.take() != address
    finally:
        one.close()
        other.close()
    assert (unprivileged(80), unprivileged(8080)) == (10080, 8080)
