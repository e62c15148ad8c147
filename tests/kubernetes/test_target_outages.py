"""Forge killed at every write, an apiserver that restarts, a node that is lost: nothing is lost, and it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cluster import shops
from cluster.fixtures import fresh_namespace
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, POD, SECRET, SERVICE
from forge.adapters.kubernetes.naming import VERSION, label
from forge.model.errors import DependencyFailed
from forge.model.traffic import ReplicaCount, Version

PATIENCE = 30.0
MOST_WRITES = 40


class Killed(BaseException):
    """The process ended here."""


class Mortal:
    """Lets a connection do so many writes, and ends its process before or after the next."""

    def __init__(self, cluster: Cluster, writes: int, *, after: bool) -> None:
        self.left, self.after, self.died = writes, after, False
        self._ask = cluster._ask
        cluster._ask = self.ask  # type: ignore[method-assign]

    async def ask(self, method: str, *rest: Any) -> bytes:
        if method == "GET":
            return await self._ask(method, *rest)
        if self.left == 0 and not self.after:
            self._die()
        answer = await self._ask(method, *rest)
        if self.left == 0:
            self._die()
        self.left -= 1
        return answer

    def _die(self) -> None:
        self.died = True
        raise Killed


@pytest.fixture
def artifact(tmp_path) -> str:
    return shops.written(tmp_path, shops.deployment(mounts=True, replicas=1), shops.service(), shops.config_map(),
                         shops.secret(), shops.config_map("features", a="1"))  # fmt: skip


@pytest.fixture
async def opening(cluster, namespace, artifact) -> AsyncIterator[Callable[[], shops.Shop]]:
    made: list[shops.Shop] = []

    def open_shop() -> shops.Shop:
        made.append(shops.Shop(cluster.kubeconfig, namespace, artifact))
        return made[-1]

    yield open_shop
    for shop in made:
        await shop.close()


async def until(shop: shops.Shop, version: str, good: Callable[[ReplicaCount], bool]) -> ReplicaCount:
    deadline = time.monotonic() + PATIENCE
    counts: dict[str, ReplicaCount] = {}
    while True:
        try:
            counts = await shop.observe()
        except DependencyFailed:
            counts = {}
        if version in counts and good(counts[version]):
            return counts[version]
        assert time.monotonic() < deadline, counts
        await asyncio.sleep(0.05)


async def left_of_versions(shop: shops.Shop) -> list[str]:
    found = []
    for kind in (DEPLOYMENT, SERVICE, CONFIG_MAP, SECRET):
        items, _ = await shop.cluster.objects(kind)
        found += [f"{kind.name} {item['metadata']['name']}" for item in items if label(item, VERSION)]
    return found


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_every_write_another_worker_goes_on(opening, after) -> None:
    token = 1
    for writes in range(MOST_WRITES):
        version = Version(f"1.{writes}")
        first, second = opening(), opening()
        mortal = Mortal(first.cluster, writes, after=after)
        try:
            await first.ensure(version, 1, None, token)
        except Killed:
            pass
        await second.ensure(version, 1, None, token + 1)
        await until(second, version.id, lambda count: count.ready == 1)
        token += 2
        removing = opening()
        mortal_too = Mortal(removing.cluster, writes, after=after)
        try:
            await removing.remove(version.id, token)
        except Killed:
            pass
        await second.remove(version.id, token + 1)
        assert await left_of_versions(second) == []
        token += 2
        if not mortal.died and not mortal_too.died:
            assert writes > 5
            return
    pytest.fail(f"there were more than {MOST_WRITES} writes")


async def test_a_write_that_arrived_though_its_answer_was_lost_is_no_conflict(opening) -> None:
    shop = opening()
    ask = shop.cluster._ask
    lost: list[str] = []

    async def losing(method: str, path: str, *rest: Any) -> bytes:
        answer = await ask(method, path, *rest)
        if method != "GET" and path not in lost:
            lost.append(path)
            raise DependencyFailed(f"the answer to {method} {path} was lost")
        return answer

    shop.cluster._ask = losing  # type: ignore[method-assign]
    for _ in range(MOST_WRITES):
        try:
            await shop.ensure(Version("1.0"), 1, None, 1)
            break
        except DependencyFailed as error:
            assert "was lost" in error.message  # noqa: PT017
    else:
        pytest.fail("it never got through")
    assert len(lost) > 5
    await until(shop, "1.0", lambda count: count.ready == 1)


@pytest.mark.long
async def test_an_apiserver_that_restarts_is_told_and_nothing_is_lost(own_cluster, artifact) -> None:
    with fresh_namespace(own_cluster, "restart") as namespace:
        shop = shops.Shop(own_cluster.kubeconfig, namespace, artifact)
        await shop.ensure(Version("1.0"), 2, None, 1)
        await until(shop, "1.0", lambda count: count.ready == 2)
        await asyncio.to_thread(own_cluster.stop_apiserver)
        with pytest.raises(DependencyFailed, match="cluster "):
            await shop.ensure(Version("1.1"), 1, None, 1)
        with pytest.raises(DependencyFailed):
            await _observe_for(shop, 10)
        await asyncio.to_thread(own_cluster.start_apiserver)
        assert (await until(shop, "1.0", lambda count: count.ready == 2)).desired == 2
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                await shop.ensure(Version("1.1"), 1, None, 1)
                break
            except DependencyFailed:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.3)
        await until(shop, "1.1", lambda count: count.ready == 1)
        await shop.close()


async def _observe_for(shop: shops.Shop, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await shop.observe()
        await asyncio.sleep(0.1)


@pytest.mark.long
async def test_a_lost_node_is_told(own_cluster, artifact) -> None:
    with fresh_namespace(own_cluster, "lost-node") as namespace:
        shop = shops.Shop(own_cluster.kubeconfig, namespace, artifact)
        await shop.ensure(Version("1.0"), 4, None, 1)
        await until(shop, "1.0", lambda count: count.ready == 4)
        pods, _ = await shop.cluster.objects(POD, labels="app=shop")
        node = pods[0]["spec"]["nodeName"]
        own_cluster.kubectl().ok("annotate", "node", node, "forge.test/lost=true")
        count = await _told(shop, f"node {node} is not heard of any more", 90)
        assert count.ready < 4
        await shop.close()


async def _told(shop: shops.Shop, words: str, seconds: float) -> ReplicaCount:
    deadline = time.monotonic() + seconds
    while True:
        count = (await shop.observe())["1.0"]
        if words in count.message:
            return count
        assert time.monotonic() < deadline, count
        await asyncio.sleep(0.2)
