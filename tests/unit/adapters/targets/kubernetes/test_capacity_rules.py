"""Replicas of a configuration as pods of an autoscaler, and budgets: arithmetic that must not lose a pod."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.targets.kubernetes.capacity import (
    SCALE_TARGET,
    choose_holder,
    find_autoscaler,
    followed_only,
    in_replicas,
    kept_available,
    matches,
    pods_for,
    pointed_at,
    pointed_by,
    refused_by_budget,
    scaled_workload,
    unit_of,
)
from forge.adapters.targets.kubernetes.counting import WANTED, VersionSeen

COUNTS = st.integers(1, 50)


def pod(name: str, *, ready: bool = True, ending: bool = False, app: str = "shop") -> dict:
    metadata = {"name": name, "labels": {"app": app}, **({"deletionTimestamp": "now"} if ending else {})}
    status = "True" if ready else "False"
    return {"metadata": metadata, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}}


def seen(wanted: int, asked: int, ready: int | None = None, unready: int = 0, version: str = "1.0") -> VersionSeen:
    pods = [pod(f"r{number}") for number in range(asked if ready is None else ready)]
    pods += [pod(f"u{number}", ready=False) for number in range(unready)]
    workload = {
        "metadata": {"name": f"shop-{version}", "annotations": {WANTED: str(wanted)}},
        "spec": {"replicas": asked},
    }
    return VersionSeen(version, workload, tuple(pods))


def autoscaler(target: str, name: str = "shop", kind: str = "Deployment", **annotations: str) -> dict:
    return {
        "metadata": {"name": name, "resourceVersion": "7", "annotations": annotations},
        "spec": {"scaleTargetRef": {"kind": kind, "name": target}},
    }


def test_the_autoscaler_of_one_of_the_workloads_is_found() -> None:
    others = [
        autoscaler("cart"),
        autoscaler("shop", kind="StatefulSet"),
        autoscaler("shop-1", "b"),
        autoscaler("shop", "a"),
    ]
    assert find_autoscaler(others, "Deployment", ["shop", "shop-1"])["metadata"]["name"] == "a"
    assert find_autoscaler(others, "Deployment", ["nobody"]) is None
    assert scaled_workload(None) == ""


@pytest.mark.parametrize(
    ("wanted", "current", "holder"),
    [
        ({"a": 4, "b": 1}, "a", "a"),
        ({"a": 4, "b": 4}, "b", "b"),
        ({"a": 1, "b": 3}, "a", "b"),
        ({"a": 2, "b": 2}, "shop", "a"),
        ({"a": 0}, "a", ""),
        ({}, "a", ""),
    ],
)
def test_who_carries_the_most_is_scaled(wanted, current, holder) -> None:
    assert choose_holder(wanted, current) == holder


def test_pointing_elsewhere_remembers_where_it_began() -> None:
    change = pointed_at(autoscaler("shop"), "shop-1")
    assert change["metadata"] == {"resourceVersion": "7", "annotations": {SCALE_TARGET: "shop"}}
    assert change["spec"] == {"scaleTargetRef": {"name": "shop-1"}}
    again = pointed_at(autoscaler("shop-1", **{SCALE_TARGET: "shop"}), "shop-2")
    assert again["metadata"]["annotations"] == {SCALE_TARGET: "shop"}


def test_an_autoscaler_that_something_else_made_is_told_by_its_maker() -> None:
    made = autoscaler("shop")
    assert pointed_by(made) == ""
    made["metadata"]["ownerReferences"] = [
        {"kind": "Other", "name": "x"},
        {"kind": "ScaledObject", "name": "shop", "controller": True},
    ]
    assert pointed_by(made) == "ScaledObject shop"
    assert followed_only("ScaledObject shop").startswith("ScaledObject shop scales the workload")


def test_without_an_autoscaler_a_replica_is_a_pod() -> None:
    assert unit_of(None) == unit_of(seen(0, 4)) == unit_of(seen(4, 0)) == 1
    count = in_replicas(seen(3, 3, ready=2, unready=1), 3)
    assert (count.desired, count.running, count.ready) == (3, 3, 2)


def test_somebody_who_scaled_shows_as_another_number() -> None:
    assert in_replicas(seen(3, 5, ready=5), 3).desired == 5


def test_an_autoscalers_pods_count_in_proportion() -> None:
    assert unit_of(seen(4, 12)) == 3
    assert [pods_for(number, Fraction(3)) for number in (0, 1, 2)] == [0, 3, 6]
    assert [pods_for(number, Fraction(1, 2)) for number in (0, 1, 4)] == [0, 1, 2]
    whole = in_replicas(seen(1, 3), 3)
    assert (whole.desired, whole.running, whole.ready) == (1, 1, 1)
    part = in_replicas(seen(1, 3, ready=2, unready=1), 3)
    assert (part.desired, part.ready) == (1, 0)


def test_an_arm_that_lags_behind_shows_less_than_was_wanted() -> None:
    assert in_replicas(seen(2, 2), 4).desired == 1
    assert in_replicas(seen(2, 8), 4).desired == 4


@given(COUNTS, COUNTS, COUNTS, st.data())
def test_ready_is_never_more_than_the_pods_can_carry(full, stable_pods, wanted, data) -> None:
    unit = unit_of(seen(full, stable_pods))
    expected = pods_for(wanted, unit)
    ready = data.draw(st.integers(0, expected))
    count = in_replicas(seen(wanted, expected, ready=ready, unready=expected - ready), expected)
    assert count.desired == wanted
    assert 0 <= count.ready <= wanted
    assert count.ready * expected <= ready * wanted
    assert (count.ready == wanted) == (ready == expected) or expected < wanted
    assert (count.running == 0) == (expected == 0)


@given(COUNTS, COUNTS, COUNTS)
def test_an_arm_never_has_less_than_its_share(full, stable_pods, wanted) -> None:
    unit = unit_of(seen(full, stable_pods))
    assert Fraction(pods_for(wanted, unit), stable_pods) >= Fraction(wanted, full)


def budget(least: object, name: str = "pdb", **selector) -> dict:
    return {
        "metadata": {"name": name},
        "spec": {"minAvailable": least, "selector": selector or {"matchLabels": {"app": "shop"}}},
    }


def test_only_absolute_budgets_of_these_pods_count() -> None:
    budgets = [budget("50%"), budget(2), budget(3, "larger"), budget(9, "other", matchLabels={"app": "cart"})]
    assert kept_available(budgets, {"app": "shop"}) == (3, "larger")
    assert kept_available([], {"app": "shop"}) == (0, "")


def test_a_budget_holds_back_what_it_still_needs() -> None:
    versions = {"1.0": seen(3, 3), "1.1": seen(1, 1, version="1.1")}
    assert refused_by_budget([budget(3)], versions, "1.0", 2) == ""
    assert (
        refused_by_budget([budget(3)], versions, "1.0", 1)
        == "PodDisruptionBudget pdb wants 3 pods ready, and 2 would be left"
    )
    assert refused_by_budget([budget(5)], versions, "1.0", 0) == ""  # broken before already
    assert refused_by_budget([budget(3)], {"1.0": seen(3, 3)}, "1.0", 0) == ""  # nobody to take over
    assert refused_by_budget([budget(3)], versions, "9.9", 0) == ""
    unready = {"1.0": seen(3, 3), "1.1": seen(1, 1, ready=0, unready=3, version="1.1")}
    assert refused_by_budget([budget(3)], unready, "1.1", 0) == ""  # what is not ready is not missed


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ({}, True),
        ({"matchLabels": {"app": "shop"}}, True),
        ({"matchLabels": {"app": "cart"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "shop"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["shop"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Unheard"}]}, False),
    ],
)
def test_selectors_are_read_as_the_cluster_reads_them(selector, fits) -> None:
    assert matches(selector, {"app": "shop"}) is fits
