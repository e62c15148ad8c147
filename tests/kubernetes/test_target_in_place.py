"""StatefulSets and DaemonSets on a real control plane: two versions share one workload, which rolls in place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from cluster import shops
from forge.adapters.kubernetes.kinds import DAEMON_SET, POD, STATEFUL_SET
from forge.adapters.kubernetes.naming import VERSION_ID, annotation
from forge.model.errors import DependencyFailed, StaleLease
from forge.model.traffic import Version

OLD, NEW, THIRD = Version("1.0"), Version("1.1"), Version("1.2")
PATIENCE = 30.0


async def opened(cluster, namespace, tmp_path, kind: str, **options) -> shops.Shop:
    artifact = shops.written(tmp_path, shops.deployment(kind=kind, replicas=3, **options), shops.service())
    return shops.Shop(cluster.kubeconfig, namespace, artifact)


@pytest.fixture
async def database(cluster, namespace, tmp_path) -> AsyncIterator[shops.Shop]:
    made = await opened(cluster, namespace, tmp_path, "StatefulSet")
    yield made
    await made.close()


@pytest.fixture
async def agents(cluster, namespace, tmp_path) -> AsyncIterator[shops.Shop]:
    made = await opened(cluster, namespace, tmp_path, "DaemonSet")
    yield made
    await made.close()


async def split(shop: shops.Shop) -> dict[str, int]:
    """Return how many ready pods there are of each version."""
    return {version: count.ready for version, count in (await shop.observe()).items()}


async def becomes(shop: shops.Shop, **expected: int) -> None:
    """Wait until the versions `v1_0=2` have so many ready pods, and nobody else is there."""
    wanted = {name[1:].replace("_", "."): number for name, number in expected.items()}
    deadline = time.monotonic() + PATIENCE
    while await split(shop) != wanted:
        assert time.monotonic() < deadline, (await shop.observe(), wanted)
        await asyncio.sleep(0.05)


async def versions_of_pods(shop: shops.Shop) -> dict[str, str]:
    pods, _ = await shop.cluster.objects(POD, labels="app=shop")
    return {pod["metadata"]["name"]: annotation(pod, VERSION_ID) for pod in pods}


async def test_a_stateful_set_rolls_pod_by_pod_from_the_last(database) -> None:
    await database.ensure(OLD, 3, None, 1)
    await becomes(database, v1_0=3)
    assert (await database.observe())["1.0"].desired == 3
    await database.ensure(NEW, 1, None, 1)
    await becomes(database, v1_0=2, v1_1=1)
    assert await versions_of_pods(database) == {"shop-0": "1.0", "shop-1": "1.0", "shop-2": "1.1"}
    counts = await database.observe()
    assert (counts["1.0"].desired, counts["1.1"].desired) == (3, 1)
    await database.ensure(OLD, 2, None, 1)
    await database.ensure(NEW, 3, None, 1)
    await becomes(database, v1_0=0, v1_1=3)
    await database.remove("1.0", 1)
    await becomes(database, v1_1=3)
    live, _ = await database.cluster.objects(STATEFUL_SET)
    assert [item["metadata"]["name"] for item in live] == ["shop"]
    await database.remove("1.1", 1)
    deadline = time.monotonic() + PATIENCE
    while await database.observe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_stateful_set_goes_back_to_what_it_was(database) -> None:
    await database.ensure(OLD, 3, None, 1)
    await becomes(database, v1_0=3)
    await database.ensure(NEW, 2, None, 1)
    await database.ensure(OLD, 1, None, 1)
    await becomes(database, v1_0=1, v1_1=2)
    await database.ensure(OLD, 3, None, 1)  # rolled back
    await becomes(database, v1_0=3, v1_1=0)
    await database.remove("1.1", 1)
    await becomes(database, v1_0=3)
    assert set((await versions_of_pods(database)).values()) == {"1.0"}


async def test_a_third_version_has_to_wait(database) -> None:
    await database.ensure(OLD, 3, None, 1)
    await database.ensure(NEW, 1, None, 1)
    with pytest.raises(DependencyFailed, match=r"1\.2 has to wait: 1\.1 and 1\.0 share the workload"):
        await database.ensure(THIRD, 1, None, 1)
    await database.remove("1.0", 1)
    await _until_all_are_of(database, "1.1")
    await database.ensure(Version("1.1"), 3, None, 1)
    await database.ensure(THIRD, 1, None, 1)
    await becomes(database, v1_1=2, v1_2=1)


async def _until_all_are_of(shop: shops.Shop, version: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while {*(await versions_of_pods(shop)).values()} != {version}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_roll_that_is_not_through_is_waited_for(database, tmp_path) -> None:
    await database.ensure(OLD, 3, None, 1)
    await becomes(database, v1_0=3)
    stuck = shops.written(
        tmp_path, shops.deployment(kind="StatefulSet", replicas=3, fail="never-ready"), name="stuck.yaml"
    )
    await database.ensure(NEW, 1, stuck, 1)
    await database.remove("1.0", 1)
    with pytest.raises(DependencyFailed, match=r"1\.2 has to wait: [23] pods are not of 1\.1 yet"):
        await database.ensure(THIRD, 1, None, 1)


async def test_an_old_token_changes_nothing_in_place_either(database) -> None:
    await database.ensure(OLD, 3, None, 5)
    with pytest.raises(StaleLease):
        await database.ensure(NEW, 1, None, 4)
    with pytest.raises(StaleLease):
        await database.remove("1.0", 4)
    await becomes(database, v1_0=3)


async def test_another_worker_goes_on_in_place(database) -> None:
    await database.ensure(OLD, 3, None, 1)
    await becomes(database, v1_0=3)
    other = shops.Shop(database.cluster._access.kubeconfig, database.cluster.namespace, "/nowhere")
    assert set(await other.observe()) == {"1.0"}
    await database.ensure(NEW, 1, None, 1)
    await becomes(database, v1_0=2, v1_1=1)
    await other.target.remove("1.1", 2)
    await becomes(database, v1_0=3)


async def test_a_daemon_set_replaces_as_many_pods_as_are_wished(agents, cluster) -> None:
    nodes = len(cluster.api("GET", "/api/v1/nodes")["items"])
    await agents.ensure(OLD, nodes, None, 1)
    await becomes(agents, v1_0=nodes)
    await agents.ensure(NEW, 1, None, 1)
    await becomes(agents, v1_0=nodes - 1, v1_1=1)
    await asyncio.sleep(1)
    assert await split(agents) == {"1.0": nodes - 1, "1.1": 1}
    live, _ = await agents.cluster.objects(DAEMON_SET)
    assert [item["metadata"]["name"] for item in live] == ["shop"]


async def test_a_daemon_set_goes_on_and_goes_back(agents, cluster) -> None:
    nodes = len(cluster.api("GET", "/api/v1/nodes")["items"])
    await agents.ensure(OLD, nodes, None, 1)
    await becomes(agents, v1_0=nodes)
    await agents.ensure(NEW, nodes, None, 1)
    await becomes(agents, v1_0=0, v1_1=nodes)
    await agents.remove("1.0", 1)
    await becomes(agents, v1_1=nodes)
    await agents.ensure(THIRD, 1, None, 1)
    await becomes(agents, v1_1=nodes - 1, v1_2=1)
    await agents.remove("1.2", 1)
    await becomes(agents, v1_1=nodes)


async def test_one_replica_of_a_daemon_set_is_all_of_its_nodes(agents, cluster) -> None:
    nodes = len(cluster.api("GET", "/api/v1/nodes")["items"])
    assert nodes > 1
    await agents.ensure(OLD, 1, None, 1)
    await becomes(agents, v1_0=1)
    await agents.ensure(NEW, 1, None, 1)
    await becomes(agents, v1_0=0, v1_1=1)
    assert [*(await versions_of_pods(agents)).values()] == ["1.1"] * nodes
    await agents.remove("1.0", 1)
    await becomes(agents, v1_1=1)
