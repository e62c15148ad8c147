"""A Deployment that lives already is adopted and handed back, under load, without one failed request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx2
import pytest

from cluster import shops
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, ENDPOINT_SLICE, POD, SERVICE
from forge.adapters.kubernetes.naming import ADOPTED, annotation, name_for_version, version_slug
from forge.adapters.kubernetes.objects import split_objects
from forge.adapters.targets.kubernetes.adoption import Found, find_adoptable
from forge.adapters.targets.kubernetes.handback import release_control
from forge.model.errors import StillRunning, UsageError
from forge.model.traffic import Version

PATIENCE = 30.0


@pytest.fixture
async def shop(cluster, namespace, tmp_path) -> AsyncIterator[shops.Shop]:
    artifact = shops.written(tmp_path, shops.deployment(image="shop:1.1", command=shops.PROGRAM), shops.service())
    made = shops.Shop(cluster.kubeconfig, namespace, artifact)
    yield made
    await made.close()


class Load:
    """Asks every ready endpoint of a Service, as a proxy would, as long as it runs."""

    def __init__(self, cluster: Cluster, service: str) -> None:
        self.cluster, self.service = cluster, service
        self.answers: list[str] = []
        self.failures: list[str] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with httpx2.AsyncClient(timeout=2, trust_env=False) as client:
            while True:
                labels = f"kubernetes.io/service-name={self.service}"
                slices, _ = await self.cluster.objects(ENDPOINT_SLICE, labels=labels)
                ready = [each["addresses"][0] for item in slices for each in item.get("endpoints") or ()
                         if each.get("conditions", {}).get("ready")]  # fmt: skip
                if not ready:
                    self.failures.append("no endpoint")
                for address in ready:
                    try:
                        answer = await client.get(f"http://{address}:8080/")
                        self.answers.append(answer.text)
                    except httpx2.HTTPError as error:
                        self.failures.append(repr(error))
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def up(shop: shops.Shop, kubectl) -> None:
    kubectl.apply(shops.deployment(image="shop:1.0", command=shops.PROGRAM, mounts=True), shops.service(),
                  shops.config_map(), shops.secret())  # fmt: skip
    kubectl.ok("rollout", "status", "deployment/shop", "--timeout=60s", timeout=70)


async def pod_names(shop: shops.Shop) -> set[str]:
    pods, _ = await shop.cluster.objects(POD, labels="app=shop")
    return {pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp")}


async def adopted(shop: shops.Shop, tmp_path) -> Found:
    from forge.adapters.targets.kubernetes.stored import read_manifests

    found = await find_adoptable(shop.cluster, "production", split_objects(read_manifests(shop.artifact)))
    assert found is not None
    path = shops.written(tmp_path, *found.manifests, name="adopted.yaml")
    await shop.ensure(Version(found.version_id, config={"replicas": found.replicas}), found.replicas, path, 1)
    return found


async def ready(shop: shops.Shop, version: str, number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (count := (await shop.observe()).get(version)) is None or count.ready != number:
        assert time.monotonic() < deadline, await shop.observe()
        await asyncio.sleep(0.05)


async def test_nothing_to_adopt_is_nothing(shop) -> None:
    from forge.adapters.targets.kubernetes.stored import read_manifests

    assert await find_adoptable(shop.cluster, "production", split_objects(read_manifests(shop.artifact))) is None


async def test_adopted_in_place_no_pod_is_touched(shop, kubectl, tmp_path) -> None:
    await up(shop, kubectl)
    before = await pod_names(shop)
    spec = kubectl.json("get", "deployment", "shop")["spec"]
    found = await adopted(shop, tmp_path)
    assert (found.version_id, found.replicas) == ("1.0", 2)
    await ready(shop, "1.0", 2)
    assert await pod_names(shop) == before
    assert kubectl.json("get", "deployment", "shop")["spec"] == spec
    service = await shop.cluster.get(SERVICE, name_for_version("shop", version_slug("1.0")))
    chosen = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
    pods, _ = await shop.cluster.objects(POD, labels=chosen)
    assert {pod["metadata"]["name"] for pod in pods} == before
    assert (await shop.observe())["1.0"].message == ""
    kubectl.ok("set", "image", "deployment/shop", "web=shop:evil")
    deadline = time.monotonic() + 10
    while "somebody changed the pods of Deployment shop since" not in (await shop.observe())["1.0"].message:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_release_after_adoption_and_back_again(shop, kubectl, tmp_path) -> None:
    await up(shop, kubectl)
    await adopted(shop, tmp_path)
    await shop.ensure(Version("1.1"), 2, None, 1)
    await ready(shop, "1.1", 2)
    assert set(await shop.observe()) == {"1.0", "1.1"}
    await shop.remove("1.0", 1)
    live = kubectl.json("get", "deployment", "shop")
    assert live["spec"]["replicas"] == 0
    assert annotation(live, ADOPTED) == "true"
    assert set(await shop.observe()) == {"1.1"}
    back = str(tmp_path / "adopted.yaml")
    await shop.ensure(Version("1.0"), 2, back, 1)
    await ready(shop, "1.0", 2)
    assert kubectl.json("get", "deployment", "shop")["spec"]["replicas"] == 2
    await shop.remove("1.1", 1)


async def test_what_was_adopted_and_is_gone_comes_back_as_a_version_like_others(shop, kubectl, tmp_path) -> None:
    await up(shop, kubectl)
    await adopted(shop, tmp_path)
    await shop.ensure(Version("1.1"), 1, None, 1)
    await shop.remove("1.0", 1)
    kubectl.ok("delete", "deployment", "shop")
    await shop.ensure(Version("1.0"), 1, str(tmp_path / "adopted.yaml"), 1)
    await ready(shop, "1.0", 1)
    own = await shop.cluster.get(DEPLOYMENT, name_for_version("shop", version_slug("1.0")))
    container = own["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"][0]["configMapRef"]["name"] == name_for_version("shop-config", version_slug("1.0"))


async def test_one_in_the_middle_of_a_rollout_is_not_adopted(shop, kubectl, tmp_path) -> None:
    await up(shop, kubectl)
    kubectl.ok("patch", "deployment", "shop", "--type=merge", "-p",
               '{"spec": {"template": {"metadata": {"annotations": {"forge.test/fail": "never-ready"}}}}}')  # fmt: skip
    deadline = time.monotonic() + 10
    while kubectl.json("get", "deployment", "shop")["status"].get("updatedReplicas") != 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    with pytest.raises(UsageError, match="Deployment shop is in the middle of a rollout"):
        await adopted(shop, tmp_path)


async def test_one_of_another_environment_is_not_adopted(shop, kubectl, tmp_path) -> None:
    await up(shop, kubectl)
    kubectl.ok("label", "deployment", "shop", "forge.dev/environment=staging")
    with pytest.raises(UsageError, match="Deployment shop belongs to environment staging"):
        await adopted(shop, tmp_path)


@pytest.mark.long
async def test_adopted_released_and_handed_back_under_load(shop, kubectl, tmp_path) -> None:
    await up(shop, kubectl)
    load = Load(shop.cluster, "shop")
    await adopted(shop, tmp_path)
    await ready(shop, "1.0", 2)
    await shop.ensure(Version("1.1"), 2, None, 1)
    await ready(shop, "1.1", 2)
    restored = asyncio.Event()

    async def restore() -> None:
        assert kubectl.json("get", "deployment", "shop")["status"].get("readyReplicas") == 2
        restored.set()

    done = await release_control(shop.cluster, "production", "1.1", 2, restore_routes=restore, timeout=60)
    await load.stop()
    assert restored.is_set()
    assert load.failures == []
    assert len(load.answers) > 20
    assert "Deployment shop runs 1.1 with 2 replicas" in done
    workloads, _ = await shop.cluster.objects(DEPLOYMENT)
    assert [item["metadata"]["name"] for item in workloads] == ["shop"]
    assert workloads[0]["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1.1"
    assert "envFrom" not in workloads[0]["spec"]["template"]["spec"]["containers"][0]
    left = [item["metadata"] for kind in (SERVICE, CONFIG_MAP, DEPLOYMENT) for item in
            (await shop.cluster.objects(kind, labels="app.kubernetes.io/managed-by=forge"))[0]]  # fmt: skip
    assert left == []
    assert await shop.observe() == {}


async def test_handing_back_what_was_only_adopted_touches_no_pod(shop, kubectl, tmp_path) -> None:
    await up(shop, kubectl)
    before = await pod_names(shop)
    await adopted(shop, tmp_path)
    await release_control(shop.cluster, "production", "1.0", 2)
    assert await pod_names(shop) == before
    live = kubectl.json("get", "deployment", "shop")
    assert "forge" not in str({**live["metadata"], "managedFields": None, "namespace": None})
    assert [item["metadata"]["name"] for item in (await shop.cluster.objects(SERVICE))[0]] == ["shop"]


async def test_handing_back_what_does_not_get_ready_takes_nothing_away(shop, kubectl) -> None:
    await shop.ensure(Version("1.1"), 1, None, 1)
    await ready(shop, "1.1", 1)
    kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"},
                   "spec": {"hard": {"pods": "1"}}})  # fmt: skip
    await asyncio.sleep(1)
    with pytest.raises(StillRunning, match=r"0 of 1 replicas ready: no pod can be made: .*exceeded quota: full"):
        await release_control(shop.cluster, "production", "1.1", 2, timeout=3)
    await ready(shop, "1.1", 1)
    kubectl.ok("delete", "resourcequota", "full")
    await release_control(shop.cluster, "production", "1.1", 2, timeout=30)
    assert [item["metadata"]["name"] for item in (await shop.cluster.objects(DEPLOYMENT))[0]] == ["shop"]


async def test_handing_back_an_unknown_version_is_told(shop) -> None:
    await shop.ensure(Version("1.1"), 1, None, 1)
    with pytest.raises(UsageError, match=r"no manifests of version 9\.9 of production"):
        await release_control(shop.cluster, "production", "9.9", 2)
