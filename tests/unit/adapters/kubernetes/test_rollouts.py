"""Rollouts of workloads that somebody else deploys: when they are done, and which revision comes before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.kubernetes.kinds import DAEMON_SET, DEPLOYMENT, STATEFUL_SET
from forge.adapters.kubernetes.rollouts import Revision, _revision, choose_revision, parse_workload, unfinished
from forge.model.errors import UsageError


def live(kind: str = "Deployment", wanted: int = 3, generation: int = 2, **status: Any) -> dict[str, Any]:
    told = {"observedGeneration": 2, **status}
    return {
        "kind": kind,
        "metadata": {"name": "shop", "generation": generation},
        "spec": {"replicas": wanted},
        "status": told,
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Deployment/shop", (DEPLOYMENT, "shop")),
        ("deployment/shop", (DEPLOYMENT, "shop")),
        ("StatefulSet/db", (STATEFUL_SET, "db")),
        ("daemonset/agent", (DAEMON_SET, "agent")),
    ],
)
def test_a_workload_by_its_kind_and_name(text, found) -> None:
    assert parse_workload(text) == found


@pytest.mark.parametrize("text", ["shop", "Deploymnt/shop", "Deployment/", "/shop", ""])
def test_anything_else_is_refused_in_words(text) -> None:
    with pytest.raises(UsageError, match="is no workload"):
        parse_workload(text)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (live(generation=3, updatedReplicas=3), "its controller has not seen the change yet"),
        (live(updatedReplicas=1, replicas=4), "1 of 3 replicas are updated"),
        (live(updatedReplicas=3, replicas=4, availableReplicas=3), "1 old replicas are ending"),
        (live(updatedReplicas=3, replicas=3, availableReplicas=2), "2 of 3 replicas are ready"),
        (live(updatedReplicas=3, replicas=3, availableReplicas=3), ""),
        (live(wanted=0), ""),
        (live("DaemonSet", desiredNumberScheduled=5, updatedNumberScheduled=4), "4 of 5 replicas are updated"),
        (live("DaemonSet", desiredNumberScheduled=5, updatedNumberScheduled=5, numberAvailable=5), ""),
        (live("StatefulSet", updatedReplicas=1, replicas=3, currentRevision="a", updateRevision="b"), "1 of 3 replicas are updated"),
        (live("StatefulSet", replicas=3, readyReplicas=3, currentRevision="b", updateRevision="b"), ""),
    ],
)  # fmt: skip
def test_what_a_rollout_waits_for(item, words) -> None:
    item["status"].setdefault("replicas", 0)
    assert unfinished(item) == words


@given(st.sets(st.integers(1, 50), min_size=2), st.data())
def test_the_revision_before_or_the_one_that_is_named(numbers, data) -> None:
    known = [Revision(number, {"n": number}) for number in numbers]
    assert choose_revision(known, "", "Deployment shop").number == sorted(numbers)[-2]
    assert choose_revision(known, "previous", "Deployment shop").number == sorted(numbers)[-2]
    named = data.draw(st.sampled_from(sorted(numbers)))
    assert choose_revision(known, str(named), "Deployment shop").template == {"n": named}


def test_what_is_not_there_is_told_with_what_is() -> None:
    with pytest.raises(UsageError, match="no earlier revision"):
        choose_revision([Revision(1, {})], "", "Deployment shop")
    with pytest.raises(UsageError, match="no revision 7") as raised:
        choose_revision([Revision(1, {}), Revision(3, {})], "7", "Deployment shop")
    assert raised.value.hint == "there are 1, 3"


def test_a_revision_is_the_template_without_what_the_cluster_added() -> None:
    template = {"metadata": {"labels": {"app": "shop", "pod-template-hash": "abc"}}, "spec": {"containers": []}}
    replica_set = {
        "kind": "ReplicaSet", "metadata": {"annotations": {"deployment.kubernetes.io/revision": "4"}},
        "spec": {"template": template},
    }  # fmt: skip
    assert _revision(replica_set) == Revision(4, {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": []}})
    assert template["metadata"]["labels"]["pod-template-hash"] == "abc"
    data = {"spec": {"template": {"$patch": "replace", "spec": {"containers": []}}}}
    controlled = {"kind": "ControllerRevision", "metadata": {}, "revision": 2, "data": data}
    assert _revision(controlled) == Revision(2, {"spec": {"containers": []}})
