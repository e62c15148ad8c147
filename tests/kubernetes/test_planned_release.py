"""What a release would do, as a real apiserver plays it through; and that nothing was done."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import yaml

from cluster import shops
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.diffing import ObjectChange
from forge.adapters.kubernetes.objects import split_objects
from forge.adapters.targets.kubernetes.planned import PlannedRelease, planned_release
from forge.model.configs import KubernetesAccess
from forge.model.errors import DependencyFailed
from forge.model.traffic import Version

OBJECTS = [
    shops.deployment(mounts=True), shops.service(), shops.config_map(), shops.secret(), shops.budget(1),
    {**shops.config_map("lookup", A="1")},
]  # fmt: skip
HTTP_ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "shop"},
    "spec": {"parentRefs": [{"name": "public"}], "rules": [{"backendRefs": [{"name": "shop", "port": 80}]}]},
}  # fmt: skip


@pytest.fixture
async def cluster_of_test(cluster: Any, namespace: str) -> AsyncIterator[Cluster]:
    made = Cluster(KubernetesAccess(kubeconfig=str(cluster.kubeconfig), namespace=namespace))
    yield made
    await made.close()


@pytest.fixture
async def released(cluster: Any, namespace: str, tmp_path: Any) -> AsyncIterator[shops.Shop]:
    """Version 1.0 of OBJECTS runs."""
    shop = shops.Shop(cluster.kubeconfig, namespace, shops.written(tmp_path, *OBJECTS))
    await shop.ensure(Version("1.0", "a" * 64, config={"replicas": 2}), 2, None, 1)
    yield shop
    await shop.close()


async def plan(cluster: Cluster, objects: list[dict[str, Any]], replicas: int = 2) -> PlannedRelease:
    return await planned_release(cluster, "production", split_objects(objects), replicas=replicas)


def by_title(planned: PlannedRelease) -> dict[str, ObjectChange]:
    return {change.object: change for change in planned.changes}


def fields(change: ObjectChange) -> dict[str, tuple[str | None, str | None]]:
    return {one.path: (one.before, one.after) for one in change.fields}


def edited(change: Callable[[list[dict[str, Any]]], Any]) -> list[dict[str, Any]]:
    objects = copy.deepcopy(OBJECTS)
    change(objects)
    return objects


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = objects[0]["spec"]["template"]["spec"]["containers"][0]
    return found


async def test_in_an_empty_namespace_everything_is_new_and_nothing_is_made(
    cluster_of_test: Cluster, kubectl: Any
) -> None:
    planned = await plan(cluster_of_test, [*OBJECTS, HTTP_ROUTE])
    assert {change.outcome for change in planned.changes} == {"new"}
    assert planned.compared_with == ""
    assert kubectl.json("get", "deployments,services,secrets,httproutes")["items"] == []


async def test_the_same_manifests_change_nothing(released: shops.Shop) -> None:
    planned = await plan(released.cluster, OBJECTS)
    assert planned.compared_with == "1.0"
    told = {change.object: (change.outcome, fields(change)) for change in planned.changes}
    assert {outcome for outcome, _ in told.values()} == {"same"}, told


async def test_every_field_that_a_release_changes_is_told_and_no_other(released: shops.Shop) -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        container(objects)["image"] = "shop:2"
        container(objects)["env"].append({"name": "MODE", "value": "live"})
        del container(objects)["volumeMounts"]
        objects[1]["spec"]["ports"][0]["targetPort"] = 9090
        objects[2]["data"]["COLOUR"] = "blue"
        objects[3]["stringData"] = {"key": "hunter3", "more": "x"}
        objects[4]["spec"]["minAvailable"] = 2

    found = by_title(await plan(released.cluster, edited(change), replicas=3))
    pod = "spec.template.spec.containers[web]"
    assert fields(found["Deployment/shop"]) == {
        f"{pod}.env[MODE].name": (None, '"MODE"'),
        f"{pod}.env[MODE].value": (None, '"live"'),
        f"{pod}.image": ('"shop:1.0"', '"shop:2"'),
        f"{pod}.volumeMounts[secret].mountPath": ('"/secret"', None),
        f"{pod}.volumeMounts[secret].name": ('"secret"', None),
        "spec.replicas": ("2", "3"),
    }
    assert fields(found["Service/shop"]) == {"spec.ports[http].targetPort": ("8080", "9090")}
    assert fields(found["ConfigMap/shop-config"]) == {"data.COLOUR": ('"red"', '"blue"')}
    assert fields(found["Secret/shop-secret"]) == {
        "data.key": ("(secret, 7 bytes)", "(secret, 7 bytes)"), "data.more": (None, "(secret, 1 bytes)"),
    }  # fmt: skip
    assert fields(found["PodDisruptionBudget/shop"]) == {"spec.minAvailable": ("1", "2")}
    assert found["ConfigMap/lookup"].outcome == "same"


async def test_what_the_manifests_do_not_have_any_more_is_listed(released: shops.Shop) -> None:
    found = by_title(await plan(released.cluster, edited(lambda objects: objects.pop())))
    assert found["ConfigMap/lookup"].outcome == "removed"


async def test_what_somebody_else_manages_is_told_in_words(released: shops.Shop, kubectl: Any) -> None:
    taken = {**shops.config_map("lookup", A="9")}
    kubectl.ok("apply", "--server-side", "--force-conflicts", "--field-manager=payroll", "-f", "-", stdin=[taken])
    change = by_title(await plan(released.cluster, OBJECTS))["ConfigMap/lookup"]
    assert change.outcome == "changed"
    assert fields(change) == {"data.A": ('"9"', '"1"')}
    assert change.note.startswith("payroll manages .data.A")


async def test_what_the_cluster_would_refuse_is_told_and_the_rest_too(cluster_of_test: Cluster) -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        container(objects)["ports"] = [{"containerPort": 99999}]
        objects.append({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}})

    found = by_title(await plan(cluster_of_test, edited(change)))
    assert found["Deployment/shop"].outcome == "refused"
    assert "must be between 1 and 65535" in found["Deployment/shop"].note
    assert found["Widget/a"].outcome == "refused"
    assert "has no Widget of example.com/v1" in found["Widget/a"].note
    assert found["Service/shop"].outcome == "new"


async def test_a_deployment_that_is_there_is_what_the_first_release_is_held_against(
    cluster_of_test: Cluster, kubectl: Any
) -> None:
    kubectl.apply(*OBJECTS)
    kubectl.ok("scale", "deployment/shop", "--replicas=4")
    found = by_title(await plan(cluster_of_test, edited(lambda objects: container(objects).update(image="shop:2"))))
    assert fields(found["Deployment/shop"]) == {
        "spec.replicas": ("4", "2"), "spec.template.spec.containers[web].image": ('"shop:1.0"', '"shop:2"'),
    }  # fmt: skip
    assert found["Service/shop"].outcome == "same"


async def test_a_route_that_is_there_is_left_to_the_router(cluster_of_test: Cluster, kubectl: Any) -> None:
    kubectl.apply(HTTP_ROUTE)
    assert by_title(await plan(cluster_of_test, [*OBJECTS, HTTP_ROUTE]))["HTTPRoute/shop"].outcome == "left"


async def test_who_an_autoscaler_scales_is_no_change(released: shops.Shop) -> None:
    found = by_title(await plan(released.cluster, [*OBJECTS, shops.autoscaler()]))
    assert found["HorizontalPodAutoscaler/shop"].outcome == "new"
    assert found["Deployment/shop"].outcome == "same", "its size is the autoscaler's to say"


async def test_pods_that_cannot_be_there_twice_are_changed_in_place(cluster_of_test: Cluster, kubectl: Any) -> None:
    stateful = shops.deployment(kind="StatefulSet")
    kubectl.apply(stateful, shops.service())
    changed = copy.deepcopy(stateful)
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "shop:2"
    found = by_title(await plan(cluster_of_test, [changed, shops.service()]))
    assert fields(found["StatefulSet/shop"]) == {"spec.template.spec.containers[web].image": ('"shop:1.0"', '"shop:2"')}


async def test_a_namespace_that_is_not_there_refuses_everything_in_words(cluster: Any) -> None:
    nowhere = Cluster(KubernetesAccess(kubeconfig=str(cluster.kubeconfig), namespace="nowhere"))
    try:
        planned = await plan(nowhere, OBJECTS[:2])
        assert {change.outcome for change in planned.changes} == {"refused"}
        assert 'namespaces "nowhere" not found' in planned.changes[0].note
    finally:
        await nowhere.close()


async def test_a_cluster_that_is_away_is_told_as_such(tmp_path: Any, cluster: Any) -> None:
    access = yaml.safe_load(cluster.kubeconfig.read_text())
    access["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    config = tmp_path / "kubeconfig"
    config.write_text(yaml.safe_dump(access))
    away = Cluster(KubernetesAccess(kubeconfig=str(config), namespace="default"))
    try:
        with pytest.raises(DependencyFailed):
            await plan(away, OBJECTS)
    finally:
        await away.close()
