"""Autoscalers and disruption budgets on a real control plane: followed, never fought."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from cluster import shops
from forge.adapters.kubernetes.kinds import AUTOSCALER, DEPLOYMENT
from forge.adapters.kubernetes.naming import name_for_version, version_slug
from forge.adapters.kubernetes.objects import split_objects
from forge.adapters.targets.kubernetes.adoption import find_adoptable
from forge.adapters.targets.kubernetes.handback import release_control
from forge.adapters.targets.kubernetes.stored import read_manifests
from forge.model.errors import DependencyFailed, UsageError
from forge.model.traffic import ReplicaCount, Version

OLD, NEW = Version("1.0"), Version("1.1")
PATIENCE = 40.0
"""The autoscaler looks every 15 seconds."""


@pytest.fixture
async def shop(cluster, namespace, tmp_path) -> AsyncIterator[shops.Shop]:
    objects = (shops.deployment(), shops.service(), shops.autoscaler(least=4))
    made = shops.Shop(cluster.kubeconfig, namespace, shops.written(tmp_path, *objects))
    yield made
    await made.close()


async def until(shop: shops.Shop, version: str, good: Callable[[ReplicaCount], bool]) -> ReplicaCount:
    deadline = time.monotonic() + PATIENCE
    while True:
        counts = await shop.observe()
        if version in counts and good(counts[version]):
            return counts[version]
        assert time.monotonic() < deadline, counts
        await asyncio.sleep(0.1)


async def pods(shop: shops.Shop, version: str) -> int:
    live = await shop.cluster.get(DEPLOYMENT, workload(version))
    return live["spec"]["replicas"] if live else -1


async def scaled(shop: shops.Shop) -> str:
    return str((await shop.cluster.get(AUTOSCALER, "shop"))["spec"]["scaleTargetRef"]["name"])


def workload(version: str) -> str:
    return name_for_version("shop", version_slug(version))


async def grown(shop: shops.Shop, version: str, number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while await pods(shop, version) != number:
        assert time.monotonic() < deadline, await pods(shop, version)
        await asyncio.sleep(0.2)


@pytest.mark.long
async def test_the_autoscaler_scales_stable_and_arms_follow_in_proportion(shop) -> None:
    await shop.ensure(OLD, 2, None, 1)
    assert await scaled(shop) == workload("1.0")
    await grown(shop, "1.0", 4)  # the autoscaler's least
    count = await until(shop, "1.0", lambda count: count.ready == 2)
    assert (count.desired, count.message) == (2, "")
    for _ in range(3):  # asked again, the autoscaler's number stays
        await shop.ensure(OLD, 2, None, 1)
        assert await pods(shop, "1.0") == 4
    await shop.ensure(NEW, 1, None, 1)
    assert await pods(shop, "1.1") == 2  # one of two replicas, where a replica is two pods today
    count = await until(shop, "1.1", lambda count: count.ready == 1)
    assert (count.desired, count.running) == (1, 1)
    assert await scaled(shop) == workload("1.0")
    await shop.ensure(NEW, 2, None, 1)
    assert await pods(shop, "1.1") == 4
    assert await scaled(shop) == workload("1.0")  # a tie keeps who has it
    await shop.ensure(OLD, 1, None, 1)
    assert await scaled(shop) == workload("1.1")
    assert await pods(shop, "1.1") == 4
    await shop.remove("1.0", 1)
    assert await scaled(shop) == workload("1.1")
    assert (await shop.observe())["1.1"].message == ""


@pytest.mark.long
async def test_an_arm_asks_for_more_when_stable_has_grown(shop, kubectl) -> None:
    await shop.ensure(OLD, 4, None, 1)
    await shop.ensure(NEW, 2, None, 1)
    await until(shop, "1.1", lambda count: count.ready == 2)
    kubectl.ok("patch", "hpa", "shop", "--type=merge", "-p", '{"spec": {"minReplicas": 8}}')
    await grown(shop, "1.0", 8)
    count = await until(shop, "1.1", lambda count: count.desired != 2)
    assert (count.desired, count.ready) == (1, 1)
    await shop.ensure(NEW, 2, None, 1)
    assert await pods(shop, "1.1") == 4
    await until(shop, "1.1", lambda count: count.desired == count.ready == 2)


async def test_the_autoscaler_follows_when_stable_is_removed(shop) -> None:
    await shop.ensure(OLD, 4, None, 1)
    await shop.ensure(NEW, 1, None, 1)
    assert await scaled(shop) == workload("1.0")
    await shop.remove("1.0", 1)
    assert await scaled(shop) == workload("1.1")


async def test_an_autoscaler_that_people_made_is_found_too(shop, kubectl, tmp_path) -> None:
    plain = shops.written(tmp_path, shops.deployment(), shops.service(), name="plain.yaml")
    kubectl.apply(shops.autoscaler(least=3))  # scales Deployment/shop, which Forge replaces
    await shop.ensure(OLD, 2, plain, 1)
    assert await scaled(shop) == workload("1.0")


async def test_a_budget_keeps_pods_that_are_still_needed(shop, tmp_path) -> None:
    artifact = shops.written(tmp_path, shops.deployment(), shops.service(), shops.budget(3), name="budget.yaml")
    await shop.ensure(OLD, 3, artifact, 1)
    await shop.ensure(NEW, 1, artifact, 1)
    await until(shop, "1.0", lambda count: count.ready == 3)
    await until(shop, "1.1", lambda count: count.ready == 1)
    await shop.ensure(OLD, 2, artifact, 1)
    with pytest.raises(DependencyFailed, match="PodDisruptionBudget shop wants 3 pods ready, and 2 would be left"):
        await shop.ensure(OLD, 1, artifact, 1)
    with pytest.raises(DependencyFailed, match="PodDisruptionBudget shop"):
        await shop.remove("1.0", 1)
    assert await pods(shop, "1.0") == 2
    await shop.ensure(NEW, 3, artifact, 1)
    await until(shop, "1.1", lambda count: count.ready == 3)
    await shop.remove("1.0", 1)
    await shop.remove("1.1", 1)  # the last may go: nobody is left to take over


async def test_an_autoscaler_that_no_version_has_any_more_goes(shop, tmp_path) -> None:
    plain = shops.written(tmp_path, shops.deployment(), shops.service(), name="plain.yaml")
    await shop.ensure(OLD, 1, None, 1)
    await shop.ensure(NEW, 2, plain, 1)
    assert await scaled(shop) == workload("1.1")
    await shop.remove("1.0", 1)
    assert await shop.cluster.get(AUTOSCALER, "shop") is None
    assert (await shop.observe())["1.1"].desired == 2


async def test_a_scaler_that_would_fight_is_refused(shop, kubectl, tmp_path) -> None:
    keda = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "shop"},
            "spec": {"scaleTargetRef": {"name": "shop"}}}  # fmt: skip
    artifact = shops.written(tmp_path, shops.deployment(), shops.service(), keda, name="keda.yaml")
    with pytest.raises(UsageError, match="ScaledObject shop scales the workload"):
        await shop.ensure(OLD, 1, artifact, 1)
    owner = shops.config_map("owner")
    kubectl.apply(owner)
    uid = kubectl.json("get", "configmap", "owner")["metadata"]["uid"]
    made = shops.autoscaler()
    made["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": True}
    ]
    kubectl.apply(made)
    plain = shops.written(tmp_path, shops.deployment(), shops.service(), name="plain.yaml")
    with pytest.raises(UsageError, match="ConfigMap owner scales the workload"):
        await shop.ensure(OLD, 1, plain, 1)


async def test_what_was_adopted_gives_its_autoscaler_to_who_replaces_it_and_gets_it_back(
    shop, kubectl, tmp_path
) -> None:
    kubectl.apply(shops.deployment(image="shop:1.0"), shops.service(), shops.autoscaler(least=2, most=2))
    kubectl.ok("rollout", "status", "deployment/shop", "--timeout=60s", timeout=70)
    artifact = shops.written(
        tmp_path, shops.deployment(), shops.service(), shops.autoscaler(least=2, most=2), name="new.yaml"
    )
    found = await find_adoptable(shop.cluster, "production", split_objects(read_manifests(artifact)))
    path = shops.written(tmp_path, *found.manifests, name="adopted.yaml")
    await shop.ensure(OLD, found.replicas, path, 1)
    assert await scaled(shop) == "shop"
    await shop.ensure(NEW, 2, artifact, 1)
    assert await scaled(shop) == "shop"
    await until(shop, "1.1", lambda count: count.ready == 2)
    await shop.remove("1.0", 1)
    assert await scaled(shop) == workload("1.1")
    await release_control(shop.cluster, "production", "1.1", 2, timeout=30)
    assert await scaled(shop) == "shop"
    live = kubectl.json("get", "hpa", "shop")
    assert "forge.dev" not in str(live["metadata"].get("annotations")) + str(live["metadata"].get("labels"))
