"""Every router of a cluster against the real control plane: what it writes is what clients get, and nobody is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cluster import gateway_shops, routed_shops, shops
from cluster.access import Kubectl
from cluster.fixtures import fresh_namespace
from cluster.gateway import FrontDoors
from cluster.gateway_load import Load, ask
from cluster.routed_shops import KINDS, door, open_router, routes
from cluster.sharing import Cluster
from forge.adapters.kubernetes.connection import Cluster as Connection
from forge.model.errors import DependencyFailed, StaleLease, UsageError
from forge.model.traffic import Route, TrafficTable, Version

pytestmark = pytest.mark.kubernetes
VERSIONS = ("1.0", "1.1", "1.2")
MANY_ARMS = ("gateway_api", "istio")
WITH_OBJECT = ("gateway_api", "istio", "ingress_nginx")


@pytest.fixture(scope="module")
def shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Versions 1.0, 1.1 and 1.2 of a shop, released by the target; every test brings its own route."""
    with fresh_namespace(cluster, "routed-shop") as name:
        artifact = shops.written(tmp_path_factory.mktemp("shop"), *routed_shops.manifests())

        async def begin() -> None:
            shop = shops.Shop(cluster.kubeconfig, name, artifact)
            for version in VERSIONS:
                await shop.ensure(Version(version), 1, None, 1)
            deadline = time.monotonic() + 40
            while sum(count.ready for count in (await shop.observe()).values()) < len(VERSIONS):
                assert time.monotonic() < deadline, await shop.observe()
                await asyncio.sleep(0.1)
            await shop.close()

        asyncio.run(begin())
        yield cluster.kubectl(name)


@dataclass
class Routed:
    """One router with its route, where its clients ask."""

    name: str
    router: Any
    kubectl: Kubectl
    url: str
    host: str
    generation: int = 0

    async def split(self, weights: dict[str, int], *table: Route, token: int = 1) -> TrafficTable:
        """Apply a table and wait until it is observed."""
        self.generation += 1
        wanted = TrafficTable(weights, self.generation, table)
        await self.router.apply(wanted, token)
        await self.settles(wanted)
        return wanted

    async def settles(self, wanted: TrafficTable) -> None:
        deadline = time.monotonic() + 15
        while await self.router.observed() != wanted:
            assert time.monotonic() < deadline, (wanted, await self.router.observed(), self.router.remark)
            await asyncio.sleep(0.02)

    def load(self, **headers: str) -> Load:
        return Load(self.url, host=self.host, headers=headers)

    def ask(self, **headers: str) -> str:
        status, body, _ = ask(self.url, host=self.host, headers=headers)
        assert status == 200, body
        return body

    def live(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kubectl.json("get", KINDS[self.name], "shop")
        return found


@pytest.fixture
async def routed(request: pytest.FixtureRequest, shop: Kubectl, cluster: Cluster) -> AsyncIterator[Routed]:
    name, namespace = request.param, shop.namespace
    objects = routes(name, namespace)
    if objects:
        shop.apply(*objects)
    doors = FrontDoors(lambda path: cluster.api("GET", path))
    connection = routed_shops.access(cluster.kubeconfig, namespace)
    router: Any = open_router(name, connection)
    yield Routed(name, router, shop, *door(name, doors, namespace))
    for item in objects:
        shop("delete", item["kind"], item["metadata"]["name"], "--ignore-not-found", "--wait=false")
    shop("delete", "ingress", "shop-forge-canary", "--ignore-not-found", "--wait=false")
    await connection.close()


def with_routers(*names: str) -> Any:
    return pytest.mark.parametrize("routed", names, indirect=True)


async def counted(load: Load, requests: int) -> Counter[str]:
    """Let other things go on while clients get their answers; leave out what was under way."""
    await asyncio.to_thread(load.next, 8)
    return await asyncio.to_thread(load.next, requests)


def near(answers: Counter[str], weights: dict[str, int]) -> None:
    """Hold answers against weights, within five standard deviations of counting."""
    total = answers.total()
    for version in {*answers, *weights}:
        part = weights.get(version, 0) / 10_000
        allowed = 5 * (max(part * (1 - part), 0.001) / total) ** 0.5
        if part in {0.0, 1.0}:
            allowed = 0.0
        assert abs(answers[version] / total - part) <= allowed, (weights, answers)


@with_routers(*MANY_ARMS)
async def test_three_versions_share_the_traffic_and_no_request_fails(routed) -> None:
    await routed.split({"1.0": 10_000})
    steps = [
        {"1.0": 9000, "1.1": 1000},
        {"1.0": 6000, "1.1": 3000, "1.2": 1000},
        {"1.0": 2500, "1.1": 2500, "1.2": 5000},
        {"1.1": 3333, "1.2": 6667},
        {"1.2": 10_000},
    ]
    with routed.load() as load:
        for weights in steps:
            await routed.split(weights)
            near(await counted(load, 250), weights)
    assert not load.failures
    assert load.requests > 1000
    assert routed.router.remark == ""


@with_routers("ingress_nginx")
async def test_a_version_takes_over_behind_ingress_nginx_and_no_request_fails(routed) -> None:
    await routed.split({"1.0": 10_000})
    steps = [
        {"1.0": 9500, "1.1": 500},
        {"1.0": 5000, "1.1": 5000},
        {"1.1": 10_000},  # promoted
        {"1.1": 7000, "1.2": 3000},  # the next one, beside the new stable
        {"1.1": 10_000},  # rolled back
        {"1.2": 10_000},  # all at once
        {"1.0": 4000, "1.1": 6000},  # both others
    ]
    with routed.load() as load:
        for weights in steps:
            await routed.split(weights)
            near(await counted(load, 200), weights)
    assert not load.failures
    assert load.requests > 1000
    with pytest.raises(UsageError, match="between two versions, and there are 3"):
        await routed.split({"1.0": 8000, "1.1": 1000, "1.2": 1000})


@with_routers(*WITH_OBJECT)
async def test_a_header_leads_to_a_version_whatever_the_weights(routed) -> None:
    await routed.split({"1.0": 10_000}, Route("1.1", header="x-preview", value="yes"))
    assert {routed.ask(**{"x-preview": "yes"}) for _ in range(10)} == {"1.1"}
    assert {routed.ask(**{"x-preview": "no"}) for _ in range(10)} == {"1.0"}
    assert {routed.ask() for _ in range(10)} == {"1.0"}
    await routed.split({"1.0": 10_000}, Route("1.1", header="x-any"))
    assert {routed.ask(**{"x-any": word}) for word in ("a", "b", "never-mind")} == {"1.1"}
    assert {routed.ask(**{"x-preview": "yes"}) for _ in range(10)} == {"1.0"}


@with_routers("istio", "ingress_nginx")
async def test_a_cookie_leads_to_a_version(routed) -> None:
    await routed.split({"1.0": 10_000}, Route("1.1", cookie="beta", value="always"))
    for cookie in ("beta=always", "a=b; beta=always", "beta=always; c=d"):
        assert {routed.ask(cookie=cookie) for _ in range(5)} == {"1.1"}, cookie
    for cookie in ("beta=no", "alphabeta=always", "a=beta"):
        assert {routed.ask(cookie=cookie) for _ in range(5)} == {"1.0"}, cookie


@with_routers(*MANY_ARMS)
async def test_copies_go_to_a_version_whose_answers_nobody_sees(routed) -> None:
    await routed.split({"1.0": 10_000}, Route("1.2", mirror=10_000))
    word = f"copy-{routed.name}"
    assert {routed.ask(**{"x-seen": f"{word}-{number}"}) for number in range(10)} == {"1.0"}
    deadline = time.monotonic() + 10
    seen: set[str] = set()
    while len(seen) < 10 and time.monotonic() < deadline:
        lines = routed.kubectl.ok("logs", "deployment/shop-1-2-" + slug_end(routed), "--tail=-1").splitlines()
        seen = {line for line in lines if line.startswith(f"seen {word}-")}
        await asyncio.sleep(0.1)
    assert seen == {f"seen {word}-{number}" for number in range(10)}
    await routed.split({"1.0": 10_000}, Route("1.2", mirror=5000))
    for number in range(60):
        routed.ask(**{"x-seen": f"half-{word}-{number}"})
    await asyncio.sleep(0.5)
    lines = routed.kubectl.ok("logs", "deployment/shop-1-2-" + slug_end(routed), "--tail=-1").splitlines()
    assert 12 <= len([line for line in lines if line.startswith(f"seen half-{word}-")]) <= 48


def slug_end(routed: Routed) -> str:
    """What a version's slug has besides its digits, so that 1.2 and 1-2 are two."""
    names = routed.kubectl.ok("get", "deployments", "-o", "name").split()
    (found,) = [name for name in names if "/shop-1-2-" in name]
    return found.rpartition("-")[2]


@with_routers(*WITH_OBJECT)
async def test_what_is_none_of_forges_business_stays_and_all_is_given_back(routed) -> None:
    before = routed.live()
    await routed.split({"1.0": 5000, "1.1": 5000}, Route("1.1", header="x-preview", value="yes"))
    split = routed.live()
    assert split["spec"] != before["spec"]
    with routed.load() as load:
        await routed.split({"1.0": 9000, "1.1": 1000})
        await routed.router.hand_back(1)
        await asyncio.to_thread(load.next, 50)
    assert not load.failures
    # In effect: the Service sends to every version, also to those that had no share.
    assert {routed.ask() for _ in range(60)} == set(VERSIONS)
    after = routed.live()
    assert after["spec"] == before["spec"]
    for key in ("annotations", "labels"):
        assert after["metadata"].get(key) == before["metadata"].get(key)
    await routed.router.hand_back(1)
    assert routed.live()["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    assert routed.kubectl.json("get", "ingress")["items"] == ([after] if routed.name == "ingress_nginx" else [])


@with_routers(*WITH_OBJECT)
async def test_the_same_table_again_writes_nothing(routed) -> None:
    table = await routed.split({"1.0": 7500, "1.1": 2500})
    before = routed.live()
    for _ in range(3):
        await routed.router.apply(table, 1)
    assert routed.live() == before


EDITS: dict[str, Any] = {
    "gateway_api": [
        {"op": "replace", "path": "/spec/rules/1/backendRefs/0/weight", "value": 1},
        {"op": "replace", "path": "/spec/rules/1/backendRefs/1/weight", "value": 1},
        {"op": "replace", "path": "/spec/rules/1/timeouts/request", "value": "3s"},
    ],
    "istio": [
        {"op": "replace", "path": "/spec/http/0/route/0/weight", "value": 1},
        {"op": "replace", "path": "/spec/http/0/route/1/weight", "value": 1},
        {"op": "replace", "path": "/spec/http/0/timeout", "value": "3s"},
    ],
    "ingress_nginx": [
        {"op": "replace", "path": "/spec/rules/0/http/paths/0/backend/service/name", "value": "shop"},
        {"op": "replace", "path": "/spec/rules/0/http/paths/0/pathType", "value": "ImplementationSpecific"},
    ],
}


@with_routers(*WITH_OBJECT)
async def test_who_edits_the_split_is_named_and_put_right_but_other_edits_stay(routed) -> None:
    table = await routed.split({"1.0": 9000, "1.1": 1000})
    kind = KINDS[routed.name]
    edit = json.dumps(EDITS[routed.name])
    routed.kubectl.ok("patch", kind, "shop", "--type=json", "-p", edit, "--field-manager=somebody-in-a-hurry")
    seen = await routed.router.observed()
    assert seen.generation == -1
    assert seen.weights != table.weights
    assert "somebody-in-a-hurry" in routed.router.remark
    assert "shop" in routed.router.remark
    again = await routed.split(table.weights)
    assert routed.router.remark == ""
    assert "3s" in str(routed.live()["spec"]) or "ImplementationSpecific" in str(routed.live()["spec"])
    await routed.settles(again)


@with_routers("ingress_nginx")
async def test_a_canary_that_is_edited_or_deleted_is_put_right(routed) -> None:
    table = await routed.split({"1.0": 9000, "1.1": 1000})
    weight = "nginx.ingress.kubernetes.io/canary-weight=9999"
    routed.kubectl.ok("annotate", "ingress", "shop-forge-canary", weight, "--overwrite", "--field-manager=hurry")
    seen = await routed.router.observed()
    assert (seen.weights, seen.generation) == ({"1.0": 1, "1.1": 9999}, -1)
    assert "hurry" in routed.router.remark
    await routed.split(table.weights)
    routed.kubectl.ok("delete", "ingress", "shop-forge-canary")
    seen = await routed.router.observed()
    assert (seen.weights, seen.generation) == ({"1.0": 10_000}, -1)
    await routed.split(table.weights)
    with routed.load() as load:
        near(await counted(load, 300), table.weights)


@with_routers("ingress_nginx")
async def test_a_canary_of_somebody_else_is_told(routed) -> None:
    other = gateway_shops.ingress("theirs", "shop", routed.host, canary_weight="10")
    routed.kubectl.apply(other)
    with pytest.raises(UsageError, match="Ingress theirs is already the canary of shop"):
        await routed.split({"1.0": 9000, "1.1": 1000})
    routed.kubectl.ok("delete", "ingress", "theirs")
    await routed.split({"1.0": 9000, "1.1": 1000})


@with_routers(*WITH_OBJECT)
async def test_a_manifest_that_is_applied_again_is_split_again(routed) -> None:
    await routed.split({"1.0": 5000, "1.1": 5000})
    routed.kubectl.apply(*routes(routed.name, routed.kubectl.namespace))
    seen = await routed.router.observed()
    assert seen.generation == -1
    await routed.split({"1.0": 5000, "1.1": 5000})
    with routed.load() as load:
        near(await counted(load, 300), {"1.0": 5000, "1.1": 5000})
    assert not load.failures


@with_routers(*WITH_OBJECT)
async def test_a_route_that_is_not_forges_is_missed_in_words(routed) -> None:
    await routed.split({"1.0": 10_000})
    routed.kubectl.ok("delete", KINDS[routed.name], "shop")
    for call in (routed.router.observed(), routed.router.apply(TrafficTable({"1.1": 10_000}, 2), 1)):
        with pytest.raises(DependencyFailed, match=r"has no (HTTPRoute|VirtualService|Ingress) shop") as raised:
            await call
        assert "deleted it" in (raised.value.hint or "")


@with_routers(*WITH_OBJECT)
async def test_an_older_worker_changes_nothing(routed) -> None:
    await routed.split({"1.0": 10_000}, token=1)
    item = routed.live()
    notes = {"metadata": {"annotations": {"forge.dev/token": "2"}}}
    routed.kubectl.ok("patch", KINDS[routed.name], "shop", "--type=merge", "-p", json.dumps(notes))
    with pytest.raises(StaleLease, match="newer worker"):
        await routed.router.apply(TrafficTable({"1.1": 10_000}, 2), 1)  # the route was written by a newer one
    with pytest.raises(StaleLease, match="newer worker"):
        await routed.router.apply(TrafficTable({"1.1": 10_000}, 2), 0)  # the environment was
    with pytest.raises(StaleLease, match="newer worker"):
        await routed.router.hand_back(1)
    assert routed.live()["spec"] == item["spec"]


@with_routers("replicas")
async def test_without_a_router_the_ready_replicas_are_the_split_and_it_says_so(routed) -> None:
    table = await routed.split({"1.0": 9000, "1.1": 500, "1.2": 500})
    near(Counter(routed.ask() for _ in range(300)), dict.fromkeys(VERSIONS, 3333) | {"1.0": 3334})
    actual = await routed.router.actual()
    assert sorted(actual.values()) == [3333, 3333, 3334]
    assert await routed.router.observed() == table
    assert "1.1 33.33 % instead of 5 % (1 ready)" in routed.router.remark
    await routed.router.apply(TrafficTable({"1.0": 9500, "1.1": 500}, table.generation + 1), 1)
    seen = await routed.router.observed()
    assert (seen.weights, seen.generation) == (actual, table.generation + 1)
    assert "1.2 33.33 % instead of 0 % (1 ready)" in routed.router.remark
    with pytest.raises(UsageError, match="cannot send requests to a version by a header"):
        await routed.split({"1.0": 10_000}, Route("1.1", header="x"))


async def test_a_gateway_that_does_not_follow_is_not_believed(shop: Kubectl, cluster: Cluster) -> None:
    """The table before counts until the gateway has confirmed the new one."""
    namespace = shop.namespace
    shop.apply(*routes("gateway_api", namespace))
    connection: Connection = routed_shops.access(cluster.kubeconfig, namespace)
    doors = FrontDoors(lambda path: cluster.api("GET", path))
    routed = Routed("gateway_api", open_router("gateway_api", connection), shop, *door("gateway_api", doors, namespace))
    first = await routed.split({"1.0": 10_000})
    shop.ok("annotate", "gateway", "edge", "forge.test/frozen=yes", "--overwrite")
    await asyncio.sleep(0.3)
    second = TrafficTable({"1.0": 5000, "1.1": 5000}, 9)
    await routed.router.apply(second, 1)
    for _ in range(10):
        assert await routed.router.observed() == first
        assert routed.ask() == "1.0"
        await asyncio.sleep(0.03)
    shop.ok("annotate", "gateway", "edge", "forge.test/frozen-")
    await routed.settles(second)
    shop.ok("delete", "httproute", "shop")
    await connection.close()


@pytest.mark.parametrize("name", WITH_OBJECT)
async def test_a_route_of_the_manifests_that_somebody_deletes_is_made_again(
    name: str, cluster: Cluster, namespace: str, kubectl: Kubectl, tmp_path: Any
) -> None:
    objects = list(routes(name, namespace))
    artifact = shops.written(tmp_path, shops.deployment(), shops.service(), *objects)
    shop = shops.Shop(cluster.kubeconfig, namespace, artifact)
    await shop.ensure(Version("1.0"), 1, None, 1)
    router: Any = open_router(name, shop.cluster)
    table = TrafficTable({"1.0": 10_000}, 1)
    routed = Routed(name, router, kubectl, "", "")
    await patiently(lambda: router.apply(table, 1))
    await routed.settles(table)
    kubectl.ok("delete", KINDS[name], "shop")
    seen = await router.observed()
    assert (seen.weights, seen.generation) == ({}, -1)
    assert "was deleted by somebody: Forge makes it again" in router.remark
    await router.apply(TrafficTable({"1.0": 10_000}, 2), 1)
    await routed.settles(TrafficTable({"1.0": 10_000}, 2))
    labels = routed.live()["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "forge"
    await router.hand_back(1)
    assert "forge" not in str(routed.live()["metadata"].get("labels"))
    await shop.close()


async def patiently(act: Any, patience: float = 30.0) -> None:
    """Do what needs ready endpoints, as soon as there are some."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(DependencyFailed):
            await act()
            return
        await asyncio.sleep(0.1)
    await act()
