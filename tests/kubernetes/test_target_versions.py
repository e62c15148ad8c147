"""Versions of an environment on a real control plane: what they own, what they share, and what others do to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from cluster import shops
from forge.adapters.kubernetes import errors
from forge.adapters.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, POD, SECRET, SERVICE
from forge.adapters.kubernetes.naming import VERSION_ID, annotation, name_for_version, version_slug
from forge.adapters.targets.kubernetes.orphans import find_orphans, remove_orphan
from forge.model.errors import DependencyFailed, StaleLease, UsageError
from forge.model.traffic import ReplicaCount, Version

OLD, NEW = Version("1.0"), Version("1.1")
PATIENCE = 20.0


@pytest.fixture
async def shop(cluster, namespace, tmp_path) -> AsyncIterator[shops.Shop]:
    objects = (shops.deployment(mounts=True), shops.service(), shops.config_map(), shops.secret())
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
        await asyncio.sleep(0.05)


async def ready(shop: shops.Shop, version: str, number: int) -> ReplicaCount:
    return await until(shop, version, lambda count: count.ready == count.running == number)


async def gone(shop: shops.Shop, version: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while version in await shop.observe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def names(shop: shops.Shop, kind) -> set[str]:
    return {item["metadata"]["name"] for item in (await shop.cluster.objects(kind))[0]} - {"kube-root-ca.crt"}


async def test_a_version_owns_its_workload_service_and_what_it_mounts(shop) -> None:
    await shop.ensure(OLD, 2, None, 1)
    await ready(shop, "1.0", 2)
    own = name_for_version("shop", version_slug("1.0"))
    assert await names(shop, DEPLOYMENT) == {own}
    assert await names(shop, SERVICE) == {"shop", own}
    copies = {name_for_version(f"shop-{what}", version_slug("1.0")) for what in ("config", "secret")}
    assert copies <= await names(shop, CONFIG_MAP) | await names(shop, SECRET)
    assert "shop-config" not in await names(shop, CONFIG_MAP)
    await shop.remove("1.0", 1)
    await gone(shop, "1.0")
    assert await names(shop, DEPLOYMENT) == set()
    assert await names(shop, SERVICE) == {"shop"}
    assert await names(shop, CONFIG_MAP) == {"forge-production"}
    assert await names(shop, SECRET) == set()


async def test_a_service_selects_the_pods_of_its_version_alone(shop) -> None:
    await shop.ensure(OLD, 2, None, 1)
    await shop.ensure(NEW, 1, None, 1)
    await ready(shop, "1.0", 2)
    await ready(shop, "1.1", 1)
    for version, count in (("1.0", 2), ("1.1", 1)):
        service = await shop.cluster.get(SERVICE, name_for_version("shop", version_slug(version)))
        chosen = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
        pods, _ = await shop.cluster.objects(POD, labels=chosen)
        assert [annotation(pod, VERSION_ID) for pod in pods] == [version] * count
    everybody, _ = await shop.cluster.objects(POD, labels="app=shop")
    assert len(everybody) == 3


async def test_configuration_rolls_back_with_the_version(shop, tmp_path) -> None:
    await shop.ensure(OLD, 1, None, 1)
    changed = shops.written(tmp_path, shops.deployment(mounts=True), shops.service(), shops.secret(),
                            shops.config_map(COLOUR="blue"), name="new.yaml")  # fmt: skip
    await shop.ensure(NEW, 1, changed, 1)
    for version, colour in (("1.0", "red"), ("1.1", "blue")):
        await ready(shop, version, 1)
        copy = await shop.cluster.get(CONFIG_MAP, name_for_version("shop-config", version_slug(version)))
        assert copy["data"] == {"COLOUR": colour}
        assert copy["immutable"] is True
        workload = await shop.cluster.get(DEPLOYMENT, name_for_version("shop", version_slug(version)))
        container = workload["spec"]["template"]["spec"]["containers"][0]
        assert container["envFrom"][0]["configMapRef"]["name"] == copy["metadata"]["name"]


async def test_a_version_can_come_back_without_the_file_that_it_was_made_from(shop) -> None:
    await shop.ensure(OLD, 1, None, 1)
    await ready(shop, "1.0", 1)
    other = shops.Shop(shop.cluster._access.kubeconfig, shop.cluster.namespace, "/nowhere")
    await other.target.ensure(OLD, 2, None, 2)
    await ready(shop, "1.0", 2)
    with pytest.raises(DependencyFailed, match=r"the manifests of version 1\.1 are not there"):
        await other.target.ensure(NEW, 1, None, 2)
    await other.target.ensure(NEW, 0, None, 2)


async def test_what_all_versions_share_follows_the_newest_and_comes_back(shop, tmp_path) -> None:
    shared = [shops.config_map("features", a="1"), shops.config_map("only-old", a="1")]
    base = [shops.deployment(), shops.service()]
    old = shops.written(tmp_path, *base, *shared, name="old.yaml")
    new = shops.written(tmp_path, *base, shops.config_map("features", a="2"), shops.config_map("only-new", b="1"),
                        name="new.yaml")  # fmt: skip
    await shop.ensure(OLD, 1, old, 1)
    await shop.ensure(NEW, 1, new, 1)
    assert (await shop.cluster.get(CONFIG_MAP, "features"))["data"] == {"a": "2"}
    assert {"only-old", "only-new"} <= await names(shop, CONFIG_MAP)
    await shop.remove("1.1", 1)
    assert (await shop.cluster.get(CONFIG_MAP, "features"))["data"] == {"a": "1"}
    assert "only-new" not in await names(shop, CONFIG_MAP)
    await shop.ensure(NEW, 1, new, 1)
    await shop.remove("1.0", 1)
    assert "only-old" not in await names(shop, CONFIG_MAP)
    assert (await shop.cluster.get(CONFIG_MAP, "features"))["data"] == {"a": "2"}


async def test_somebody_elses_field_is_a_conflict_that_names_them(shop, kubectl, tmp_path) -> None:
    kubectl.ok("apply", "--server-side", "--field-manager=team-b", "-f", "-", stdin=shops.config_map("features", a="9"))
    mine = shops.written(tmp_path, shops.deployment(), shops.config_map("features", a="1"), name="mine.yaml")
    with pytest.raises(errors.Conflict, match=r"team-b manages .*data\.a"):
        await shop.ensure(OLD, 1, mine, 1)
    assert await names(shop, DEPLOYMENT) == set()


async def test_what_people_applied_by_hand_is_taken_over_once(shop, kubectl, tmp_path) -> None:
    kubectl.apply(shops.config_map("features", a="9"))
    mine = shops.written(tmp_path, shops.deployment(), shops.config_map("features", a="1"), name="mine.yaml")
    await shop.ensure(OLD, 1, mine, 1)
    assert (await shop.cluster.get(CONFIG_MAP, "features"))["data"] == {"a": "1"}


async def test_a_workload_that_forge_did_not_make_is_not_overwritten(shop, kubectl) -> None:
    name = name_for_version("shop", version_slug("1.0"))
    foreign = shops.deployment()
    foreign["metadata"]["name"] = name
    kubectl.apply(foreign)
    with pytest.raises(UsageError, match=f"Deployment {name} is there already"):
        await shop.ensure(OLD, 1, None, 1)


async def test_somebody_who_scales_is_told_and_put_right(shop, kubectl) -> None:
    await shop.ensure(OLD, 2, None, 1)
    await ready(shop, "1.0", 2)
    name = name_for_version("shop", version_slug("1.0"))
    kubectl.ok("scale", "deployment", name, "--replicas=4")
    count = await until(shop, "1.0", lambda count: count.desired == 4)
    assert f"somebody scaled Deployment {name} to 4 where 2 are wanted (kubectl)" in count.message
    await shop.ensure(OLD, 2, None, 1)
    assert (await ready(shop, "1.0", 2)).message == ""


async def test_somebody_who_edits_is_told_and_put_right(shop, kubectl) -> None:
    await shop.ensure(OLD, 1, None, 1)
    await ready(shop, "1.0", 1)
    name = name_for_version("shop", version_slug("1.0"))
    kubectl.ok("set", "image", f"deployment/{name}", "web=shop:evil")
    count = await until(shop, "1.0", lambda count: "edited" in count.message)
    assert f"somebody edited Deployment {name} (kubectl-set)" in count.message
    await shop.ensure(OLD, 1, None, 1)
    live = await shop.cluster.get(DEPLOYMENT, name)
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1.0"
    await until(shop, "1.0", lambda count: count.ready == 1 and not count.message)


async def test_what_somebody_deletes_is_made_again(shop, kubectl) -> None:
    await shop.ensure(OLD, 1, None, 1)
    await ready(shop, "1.0", 1)
    name = name_for_version("shop", version_slug("1.0"))
    kubectl.ok("delete", "deployment", name, "--wait=false")
    kubectl.ok("delete", "service", name)
    deadline = time.monotonic() + PATIENCE
    while (count := (await shop.observe()).get("1.0")) is not None and count.desired:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await shop.ensure(OLD, 1, None, 1)
    await until(shop, "1.0", lambda count: count.desired == count.ready == 1)
    assert await shop.cluster.get(SERVICE, name) is not None


async def test_a_copy_cannot_be_edited(shop, kubectl) -> None:
    await shop.ensure(OLD, 1, None, 1)
    name = name_for_version("shop-config", version_slug("1.0"))
    done = kubectl("patch", "configmap", name, "--type=merge", "-p", '{"data": {"COLOUR": "green"}}')
    assert done.returncode != 0
    assert "immutable" in done.stderr


async def test_a_newer_writer_shuts_the_older_out_also_from_single_objects(shop) -> None:
    await shop.ensure(OLD, 1, None, 3)
    other = shops.Shop(shop.cluster._access.kubeconfig, shop.cluster.namespace, shop.artifact)
    await other.ensure(OLD, 1, None, 7)
    for change in (shop.ensure(OLD, 0, None, 3), shop.remove("1.0", 6), shop.ensure(NEW, 1, None, 6)):
        with pytest.raises(StaleLease):
            await change
    assert (await ready(shop, "1.0", 1)).desired == 1
    live = await shop.cluster.get(DEPLOYMENT, name_for_version("shop", version_slug("1.0")))
    assert annotation(live, "forge.dev/token") == "7"


async def test_two_versions_at_the_same_time(shop) -> None:
    await asyncio.gather(*(shop.ensure(Version(f"1.{number}"), 1, None, 1) for number in range(4)))
    for number in range(4):
        await ready(shop, f"1.{number}", 1)
    await asyncio.gather(*(shop.remove(f"1.{number}", 1) for number in range(4)))
    assert await names(shop, DEPLOYMENT) == set()


async def test_a_namespace_that_is_going_away_is_told(shop) -> None:
    await shop.ensure(OLD, 1, None, 1)
    await shop.cluster.delete(NAMESPACE, shop.cluster.namespace)
    with pytest.raises(errors.Refused, match="being terminated") as caught:
        await shop.ensure(NEW, 1, None, 1)
    assert caught.value.hint == "the namespace is being deleted"


async def test_orphans_are_found_and_removed_one_by_one(shop, kubectl) -> None:
    await shop.ensure(OLD, 1, None, 1)
    await shop.ensure(NEW, 1, None, 1)
    assert await find_orphans(shop.cluster, {"production": ["1.0", "1.1"]}) == []
    orphans = await find_orphans(shop.cluster, {"production": ["1.1"]})
    assert {orphan.why for orphan in orphans} == {"environment production has no version 1.0"}
    assert {orphan.kind for orphan in orphans} == {"Deployment", "Service", "ConfigMap", "Secret"}
    for orphan in orphans:
        assert await remove_orphan(shop.cluster, orphan)
        assert not await remove_orphan(shop.cluster, orphan)
    assert await names(shop, DEPLOYMENT) == {name_for_version("shop", version_slug("1.1"))}
    everything = await find_orphans(shop.cluster, {"staging": []})
    assert {orphan.why for orphan in everything} == {"there is no environment production"}


async def test_observing_takes_microseconds_and_asks_nobody(shop) -> None:
    await shop.ensure(OLD, 2, None, 1)
    await ready(shop, "1.0", 2)
    started = time.perf_counter()
    for _ in range(100):
        await shop.observe()
    assert (time.perf_counter() - started) / 100 < 0.005


async def test_logs_are_followed_also_of_pods_that_come_later(shop) -> None:
    await shop.ensure(OLD, 1, None, 1)
    await ready(shop, "1.0", 1)
    lines = shop.logs(None, follow=True, tail=10)
    async with asyncio.timeout(PATIENCE):
        assert (await anext(lines)).startswith("1.0/")
        await shop.ensure(NEW, 1, None, 1)
        assert (await anext(lines)).startswith("1.1/")
    await lines.aclose()
