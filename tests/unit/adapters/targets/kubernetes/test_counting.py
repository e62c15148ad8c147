"""What runs of each version, counted from workloads and pods; and who else wrote to them."""

from __future__ import annotations

from forge.adapters.kubernetes.naming import ADOPTED, ENVIRONMENT, VERSION, VERSION_ID
from forge.adapters.targets.kubernetes.counting import (
    POD_HASH,
    TEMPLATE,
    WANTED,
    is_ready,
    restarts,
    seen_versions,
    template_mark,
    trimmed_pod,
)
from forge.adapters.targets.kubernetes.edits import edits_of, told_edits, trimmed_workload
from forge.adapters.targets.kubernetes.telling import told


def workload(version: str, replicas: int = 2, environment: str = "production", name: str = "", **annotations) -> dict:
    return {
        "kind": "Deployment",
        "metadata": {
            "name": name or f"shop-{version}",
            "labels": {ENVIRONMENT: environment, VERSION: version},
            "annotations": {VERSION_ID: version, **annotations},
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "shop"}}},
    }


def pod(version: str = "", name: str = "p", *, environment: str = "production", ready: bool = True, **more) -> dict:
    own = {ENVIRONMENT: environment, VERSION: version} if version else {}
    labels = {"app": "shop", **own, **more.pop("labels", {})}
    status = {"phase": more.pop("phase", "Running")}
    status["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]
    annotations = {VERSION_ID: version} if version else {}
    return {"metadata": {"name": name, "labels": labels, "annotations": annotations, **more}, "status": status}


def test_pods_are_counted_to_their_version_and_to_nobody_elses() -> None:
    pods = [
        pod("1.0", "a"),
        pod("1.0", "b", ready=False),
        pod("1.1", "c"),
        pod("1.0", "d", environment="staging"),
        pod(),
    ]
    versions = seen_versions(
        [workload("1.0"), workload("1.1", 1), workload("2.0", environment="staging")], pods, "production"
    )
    assert set(versions) == {"1.0", "1.1"}
    assert [each["metadata"]["name"] for each in versions["1.0"].pods] == ["a", "b"]
    counts = told(versions, [])
    assert (counts["1.0"].desired, counts["1.0"].running, counts["1.0"].ready) == (2, 2, 1)
    assert (counts["1.1"].desired, counts["1.1"].running, counts["1.1"].ready) == (1, 1, 1)


def test_a_version_without_a_pod_is_there_and_one_without_anything_is_not() -> None:
    counts = told(seen_versions([workload("1.0", 0)], [], "production"), [])
    assert (counts["1.0"].desired, counts["1.0"].running, counts["1.0"].message) == (0, 0, "")
    assert seen_versions([], [pod("1.0", phase="Succeeded")], "production") == {}


def test_pods_that_end_do_not_count_until_nothing_else_is_left() -> None:
    leaving = pod("1.0", "a", deletionTimestamp="now")
    counts = told(seen_versions([workload("1.0", 1)], [leaving, pod("1.0", "b")], "production"), [])
    assert (counts["1.0"].running, counts["1.0"].ready) == (1, 1)
    counts = told(seen_versions([], [leaving], "production"), [])
    assert (counts["1.0"].desired, counts["1.0"].running, counts["1.0"].ready) == (0, 1, 0)


def test_pods_of_what_was_adopted_are_told_by_the_hash_of_their_template() -> None:
    adopted = workload("1.0", name="shop", **{ADOPTED: "true", POD_HASH: "abc"})
    mine = pod(name="a", labels={"pod-template-hash": "abc"})
    other = pod(name="b", labels={"pod-template-hash": "xyz"})
    versions = seen_versions([adopted], [mine, other, pod("1.1", "c")], "production")
    assert [each["metadata"]["name"] for each in versions["1.0"].pods] == ["a"]
    assert set(versions) == {"1.0", "1.1"}


def test_only_ready_pods_that_stay_are_ready() -> None:
    assert is_ready(pod())
    assert not is_ready(pod(ready=False))
    assert not is_ready(pod(deletionTimestamp="now"))
    assert not is_ready({"metadata": {}})


def test_restarts_are_summed_over_containers() -> None:
    twice = {"status": {"containerStatuses": [{"restartCount": 2}, {"restartCount": 1}, {}]}}
    assert restarts([twice, {}]) == 3


def test_a_trimmed_pod_still_tells_all_that_is_asked() -> None:
    large = pod("1.0", "a", managedFields=[{"f": "x" * 1000}])
    large["spec"] = {
        "nodeName": "n",
        "volumes": [1],
        "containers": [{"name": "web", "image": "i", "env": ["x" * 1000]}],
    }
    large["metadata"]["annotations"]["other"] = "x" * 1000
    small = trimmed_pod(large)
    assert len(str(small)) < 700
    before, after = (seen_versions([workload("1.0")], [each], "production")["1.0"] for each in (large, small))
    assert told({"1.0": before}, []) == told({"1.0": after}, [])
    assert small["spec"] == {"nodeName": "n", "containers": [{"name": "web", "image": "i"}]}


def managed(manager: str, *fields: str, **more) -> dict:
    return {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {field: {} for field in fields}}, **more}


def edited(*entries: dict, replicas: int = 2) -> dict:
    item = workload("1.0", replicas, **{WANTED: "2"})
    item["metadata"]["managedFields"] = [*entries]
    return item


def test_the_cluster_and_forge_are_nobody_else() -> None:
    item = edited(managed("forge", "f:template"), managed("kube-controller-manager", "f:replicas", subresource="scale"),
                  managed("anything", "f:x", subresource="status"), {"manager": "labels", "fieldsV1": {"f:metadata": {}}})  # fmt: skip
    assert edits_of(item) == {}
    assert told_edits(item, wanted=2) == ""


def test_who_scaled_and_who_edited_is_told() -> None:
    item = edited(managed("kubectl", "f:replicas"), managed("kubectl-edit", "f:template", "f:replicas"), replicas=5)
    assert edits_of(item) == {"kubectl": "scaled", "kubectl-edit": "edited"}
    assert told_edits(item, wanted=2) == (
        "somebody edited Deployment shop-1.0 (kubectl-edit); "
        "somebody scaled Deployment shop-1.0 to 5 where 2 are wanted (kubectl)"
    )
    assert told_edits(item, wanted=None) == "somebody edited Deployment shop-1.0 (kubectl-edit)"
    assert edits_of(edited(managed("a", "f:replicas"), managed("a", "f:template"))) == {"a": "edited"}


def test_a_trimmed_workload_remembers_who_edited_it() -> None:
    item = edited(managed("kubectl-edit", "f:template"))
    small = trimmed_workload(item)
    assert "managedFields" not in small["metadata"]
    assert edits_of(small) == edits_of(item) == {"kubectl-edit": "edited"}
    assert edits_of(trimmed_workload(small)) == edits_of(item)


def test_what_was_adopted_may_be_managed_by_others_but_not_changed() -> None:
    item = edited(managed("kubectl-client-side-apply", "f:template"))
    item["spec"]["template"] = {"spec": {"containers": [{"image": "shop:1"}]}}
    item["metadata"]["annotations"] |= {ADOPTED: "true", TEMPLATE: template_mark(item)}
    assert told_edits(item, wanted=2) == ""
    item["spec"]["template"]["spec"]["containers"][0]["image"] = "shop:2"
    assert told_edits(item, wanted=2) == "somebody changed the pods of Deployment shop-1.0 since it was adopted"


def test_an_autoscaled_version_is_told_in_its_own_units() -> None:
    stable = workload("1.0", 6, **{WANTED: "2"})
    arm = workload("1.1", 3, **{WANTED: "1"})
    scaler = {"metadata": {"name": "shop"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "shop-1.0"}}}
    pods = [pod("1.0", f"s{number}") for number in range(6)] + [pod("1.1", f"a{number}") for number in range(3)]
    counts = told(seen_versions([stable, arm], pods, "production"), [scaler])
    assert [(counts[key].desired, counts[key].ready, counts[key].message) for key in ("1.0", "1.1")] == [
        (2, 2, ""), (1, 1, ""),
    ]  # fmt: skip
