"""The objects of a version, made from its manifests, and kept with it."""

from __future__ import annotations

import base64
import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster import shops
from forge.adapters.kubernetes.naming import (
    ENVIRONMENT,
    MANAGED_BY,
    TOKEN,
    VERSION,
    VERSION_ID,
    annotation,
    environment_label,
    label,
    name_for_version,
    version_slug,
)
from forge.adapters.kubernetes.objects import split_objects
from forge.adapters.targets.kubernetes.settings import full_size, target_config
from forge.adapters.targets.kubernetes.stored import (
    LARGEST,
    _unpacked,
    all_objects,
    holder,
    holder_name,
    read_manifests,
)
from forge.adapters.targets.kubernetes.versions import hash_of_newest, objects_of, without_cluster_fields
from forge.model.errors import CorruptData, DependencyFailed, UsageError

MANIFESTS = (
    shops.deployment(mounts=True),
    shops.service(),
    shops.config_map(),
    shops.secret(),
    shops.config_map("features", a="1"),
)
IDS = st.text(min_size=1, max_size=80)


def made(version: str = "1.0", replicas: int | None = 2):
    return objects_of(split_objects(copy.deepcopy(MANIFESTS)), "production", version, replicas=replicas, token=7)


def test_every_object_says_whose_it_is() -> None:
    for item in made().every():
        assert label(item, MANAGED_BY) == "forge"
        assert label(item, ENVIRONMENT) == "production"
        assert label(item, VERSION) == version_slug("1.0")
        assert annotation(item, VERSION_ID) == "1.0"
        assert annotation(item, TOKEN) == "7"
        assert item["metadata"]["name"].endswith(version_slug("1.0"))


def test_a_workload_selects_its_own_pods_and_gives_up_no_capacity() -> None:
    workload = made().workload
    chosen = workload["spec"]["selector"]["matchLabels"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert chosen.items() <= labels.items()
    assert chosen != made("1.1").workload["spec"]["selector"]["matchLabels"]
    assert labels["app"] == "shop"
    assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert workload["spec"]["replicas"] == 2
    assert "replicas" not in made(replicas=None).workload["spec"]


def test_pods_read_the_copies_of_what_they_mount() -> None:
    objects = made()
    pod = objects.workload["spec"]["template"]["spec"]
    names = {item["kind"]: item["metadata"]["name"] for item in objects.mounted}
    assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": names["ConfigMap"]}}]
    assert pod["volumes"][0]["projected"]["sources"] == [{"secret": {"name": names["Secret"]}}]
    assert all(item["immutable"] is True for item in objects.mounted)
    assert {item["metadata"]["name"] for item in split_objects(MANIFESTS).shared} == {"features"}


def test_the_manifests_are_left_as_they_are() -> None:
    manifests = copy.deepcopy(MANIFESTS)
    objects_of(split_objects(manifests), "production", "1.0", replicas=1, token=1)
    assert tuple(manifests) == MANIFESTS


def test_a_versions_service_has_the_ports_and_no_address_of_the_users() -> None:
    public = shops.service()
    public["spec"] |= {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "clusterIP": "10.0.0.1"}
    public["spec"]["ports"][0]["nodePort"] = 30080
    parts = split_objects((shops.deployment(), public))
    service = objects_of(parts, "production", "1.0", replicas=1, token=1).service
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080}]
    assert service["spec"]["sessionAffinity"] == "ClientIP"
    assert "clusterIP" not in service["spec"]


@given(IDS, IDS)
def test_other_versions_have_other_slugs_that_are_labels(one, other) -> None:
    slug = version_slug(one)
    assert len(slug) <= 20
    assert slug.isascii()
    assert slug == slug.lower()
    assert slug[0].isalnum()
    assert slug[-1].isalnum()
    assert (slug == version_slug(other)) == (one == other)
    assert len(name_for_version("n" * 80, slug)) <= 63
    assert len(environment_label(one)) <= 63


def test_long_names_of_one_start_stay_apart() -> None:
    first, second = (name_for_version("a" * 60 + end, "1-0") for end in ("x", "y"))
    assert first != second
    assert first.endswith("-1-0")


def test_what_only_the_cluster_writes_is_left_out() -> None:
    live = {
        "kind": "Deployment", "status": {"replicas": 1},
        "metadata": {"name": "a", "uid": "u", "resourceVersion": "3", "managedFields": [], "generation": 2,
                     "annotations": {"deployment.kubernetes.io/revision": "4", "kept": "yes"}},
    }  # fmt: skip
    fresh = without_cluster_fields(live)
    assert fresh == {"kind": "Deployment", "metadata": {"name": "a", "annotations": {"kept": "yes"}}}
    assert live["status"] == {"replicas": 1}


def test_the_newest_replica_set_names_the_pods() -> None:
    def replica_set(uid: str, revision: str, text: str) -> dict:
        return {"metadata": {"ownerReferences": [{"uid": uid}], "labels": {"pod-template-hash": text},
                             "annotations": {"deployment.kubernetes.io/revision": revision}}}  # fmt: skip

    deployment = {"metadata": {"uid": "d", "annotations": {"deployment.kubernetes.io/revision": "2"}}}
    sets = [replica_set("d", "1", "old"), replica_set("x", "2", "other"), replica_set("d", "2", "new")]
    assert hash_of_newest(sets, deployment) == "new"
    assert hash_of_newest(sets[:2], deployment) == ""


def test_manifests_are_kept_and_read_back_whole() -> None:
    item = holder("production", "1.0", MANIFESTS, 7)
    assert item["kind"] == "Secret"  # they hold one
    assert item["metadata"]["name"] == holder_name("production", "1.0")
    assert tuple(_unpacked(item["data"]["manifests"], "Secret x")) == MANIFESTS
    open_ones = holder("production", "1.0", MANIFESTS[:3], 7)
    assert open_ones["kind"] == "ConfigMap"
    assert tuple(_unpacked(open_ones["binaryData"]["manifests"], "ConfigMap x")) == MANIFESTS[:3]
    assert holder("production", "1.0", MANIFESTS, 7) == item


def test_all_objects_are_there_once() -> None:
    parts = split_objects((*MANIFESTS, shops.autoscaler(), shops.budget(1)))
    titles = [(item["kind"], item["metadata"]["name"]) for item in all_objects(parts)]
    assert sorted(titles) == sorted((item["kind"], item["metadata"]["name"]) for item in
                                    (*MANIFESTS, shops.autoscaler(), shops.budget(1)))  # fmt: skip


def test_what_is_too_large_is_not_kept() -> None:
    import secrets

    large = shops.config_map("large", text=secrets.token_hex(LARGEST))
    assert holder("production", "1.0", [large], 1) is None


@pytest.mark.parametrize("data", ["!", base64.b64encode(b"no gzip").decode(), ""])
def test_what_somebody_else_wrote_there_is_told(data) -> None:
    with pytest.raises(CorruptData, match="Secret x does not hold what Forge wrote there"):
        _unpacked(data, "Secret x")


def test_artifacts_that_are_no_manifests_are_told(tmp_path) -> None:
    for text in ("- a", "kind: Deployment", "a: [", "metadata: {name: x}"):
        (tmp_path / "m").write_text(text)
        with pytest.raises(UsageError, match="the artifact holds no manifests"):
            read_manifests(tmp_path / "m")
    with pytest.raises(DependencyFailed, match="cannot be read"):
        read_manifests(tmp_path / "missing")
    (tmp_path / "m").write_text("---\n" + yaml.safe_dump_all(MANIFESTS) + "---\n")
    assert read_manifests(tmp_path / "m") == MANIFESTS


def test_a_slip_in_the_configuration_is_told() -> None:
    with pytest.raises(UsageError, match="knows no option `manifest`") as caught:
        target_config({"manifest": "k8s"})
    assert caught.value.hint == "did you mean `manifests`?"
    with pytest.raises(UsageError, match="is wrong"):
        target_config({"replicas": "three"})
    assert full_size(target_config({}), shops.deployment(replicas=4)) == 4
    assert full_size(target_config({"replicas": 6}), shops.deployment(replicas=4)) == 6
    assert full_size(target_config({}), {"spec": {}}) == 1
