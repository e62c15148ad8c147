"""Who shares a workload that rolls in place: two at most, and going back is a roll like any other."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.kubernetes.naming import ENVIRONMENT, VERSION, VERSION_ID
from forge.adapters.targets.kubernetes.inplace import (
    ROLLING,
    Rolling,
    after_ensure,
    after_remove,
    rolling_of,
    seen_in_place,
)
from forge.adapters.targets.kubernetes.telling import told
from forge.model.errors import DependencyFailed

ALONE = Rolling("1.0", "", {"1.0": 3}, 3)
HALF = Rolling("1.1", "1.0", {"1.0": 3, "1.1": 1}, 3)


def test_the_first_version_has_the_workload_alone_and_is_sized() -> None:
    first = after_ensure(Rolling(), "1.0", 3, 3)
    assert first == ALONE
    assert after_ensure(first, "1.0", 5, 3).size == 5
    assert first.updated == 3


def test_a_new_version_takes_as_many_places_as_it_may() -> None:
    half = after_ensure(ALONE, "1.1", 1, 3)
    assert half == HALF
    assert half.updated == 1
    assert after_ensure(half, "1.1", 2, 3).updated == 2
    assert after_ensure(half, "1.0", 2, 3).updated == 1  # the old one leaves as new ones come
    assert after_ensure(ALONE, "1.1", 0, 3) == ALONE


def test_the_old_version_coming_back_is_rolled_to() -> None:
    less = after_ensure(HALF, "1.0", 1, 3)
    back = after_ensure(less, "1.0", 3, 3)
    assert (back.current, back.previous, back.updated) == ("1.0", "1.1", 3)


def test_when_one_is_removed_the_other_has_it_all() -> None:
    on = after_remove(HALF, "1.0")
    assert (on.current, on.previous, on.updated) == ("1.1", "", 3)
    back = after_remove(HALF, "1.1")
    assert (back.current, back.previous, back.updated) == ("1.0", "", 3)
    assert after_remove(ALONE, "1.0") == Rolling()
    assert after_remove(ALONE, "9.9") == ALONE


def test_a_third_waits() -> None:
    with pytest.raises(DependencyFailed, match=r"1\.2 has to wait"):
        after_ensure(HALF, "1.2", 1, 3)


@given(st.lists(st.tuples(st.sampled_from(["1.0", "1.1", "1.2"]), st.integers(-1, 6)), max_size=30))
def test_whatever_is_asked_two_at_most_share_it_and_none_gets_more_than_there_is(asked) -> None:
    rolling = Rolling()
    for version, replicas in asked:
        try:
            rolling = after_remove(rolling, version) if replicas < 0 else after_ensure(rolling, version, replicas, 3)
        except DependencyFailed:
            assert {rolling.current, rolling.previous}.isdisjoint({version})
            continue
        assert 0 <= rolling.updated <= rolling.size
        assert rolling.current != rolling.previous or not rolling.current
        assert {rolling.current, rolling.previous} - {""} <= set(rolling.wanted)
        assert bool(rolling.current) or rolling == Rolling()


def test_what_is_written_on_the_workload_is_read_back() -> None:
    text = msgspec.json.encode(HALF).decode()
    assert rolling_of({"metadata": {"annotations": {ROLLING: text}}}) == HALF
    assert rolling_of({"metadata": {"annotations": {ROLLING: "nonsense"}}}) == Rolling()
    assert rolling_of(None) == Rolling()


def test_each_version_is_seen_with_its_own_number() -> None:
    text = msgspec.json.encode(HALF).decode()
    workload = {
        "kind": "StatefulSet",
        "metadata": {"name": "db", "labels": {ENVIRONMENT: "production"}, "annotations": {ROLLING: text}},
        "spec": {"replicas": 3},
    }
    labels = {ENVIRONMENT: "production", VERSION: "1-0"}
    pod = {
        "metadata": {"name": "db-0", "labels": labels, "annotations": {VERSION_ID: "1.0"}},
        "status": {"phase": "Running"},
    }
    seen = seen_in_place([workload], [pod], "production")
    assert {key: (each.wanted, len(each.pods)) for key, each in seen.items()} == {"1.0": (3, 1), "1.1": (1, 0)}
    assert seen_in_place([workload], [], "staging") == {}


def test_a_daemon_set_counts_nodes_in_replicas_of_the_configuration() -> None:
    rolling = Rolling("1.1", "1.0", {"1.0": 2, "1.1": 1}, 2)
    workload = {
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "labels": {ENVIRONMENT: "production"},
                     "annotations": {ROLLING: msgspec.json.encode(rolling).decode()}},
        "spec": {}, "status": {"desiredNumberScheduled": 6},
    }  # fmt: skip

    def pod(version: str, number: int) -> dict:
        labels = {ENVIRONMENT: "production", VERSION: version}
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        return {"metadata": {"name": f"{version}-{number}", "labels": labels, "annotations": {VERSION_ID: version}},
                "status": status}  # fmt: skip

    pods = [pod("1.1", number) for number in range(3)] + [pod("1.0", number) for number in range(3)]
    counts = told(seen_in_place([workload], pods, "production"), [])
    assert [(counts[key].desired, counts[key].ready) for key in ("1.0", "1.1")] == [(2, 1), (1, 1)]
    counts = told(seen_in_place([workload], pods[1:], "production"), [])
    assert counts["1.1"].ready == 0
    assert "not started yet" in counts["1.1"].message
