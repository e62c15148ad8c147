"""The Roles for routers in the docs: with them everything works, with less the missing verb is named."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import routed_shops, shops
from cluster.access import Kubectl
from cluster.routed_shops import open_router, routes
from cluster.sharing import Cluster
from forge.model.configs import ReplicasRouterConfig
from forge.model.errors import DependencyFailed, ForgeError
from forge.model.traffic import TrafficTable, Version

pytestmark = pytest.mark.kubernetes
DOCS = Path(__file__).parents[2] / "docs" / "kubernetes" / "routers.md"
TABLES = [
    TrafficTable({"1.0": 10_000}, 1),
    TrafficTable({"1.0": 9000, "1.1": 1000}, 2),
    TrafficTable({"1.0": 5000, "1.1": 5000}, 3),
    TrafficTable({"1.1": 10_000}, 4),
]


def documented(router: str) -> list[dict[str, Any]]:
    """Return the rules in the docs: those of all routers, and of this one."""
    text = DOCS.read_text().partition("## Permissions")[2]
    found = {"": yaml.safe_load(re.findall(r"```yml\n(.*?)```", text, re.DOTALL)[0])}
    for name, block in re.findall(r"For `(\w+)`.*?```yml\n(.*?)```", text, re.DOTALL):
        found[name] = yaml.safe_load(block)
    return [*found[""], *found[router]]


def opened(router: str, kubeconfig: Path, namespace: str) -> tuple[Any, Any]:
    cluster = routed_shops.access(kubeconfig, namespace)
    found: Any = open_router(router, cluster)
    if router == "replicas":
        found._config = ReplicasRouterConfig()
    return cluster, found


async def used(router: Any, tables: list[TrafficTable] = TABLES) -> None:
    """Do all that a release does with a router."""
    for table in tables:
        await router.apply(table, 1)
        await settled(router, table)
    await router.address()
    await router.hand_back(1)


async def settled(router: Any, table: TrafficTable) -> None:
    import asyncio

    deadline = time.monotonic() + 15
    while not shown(await router.observed(), table):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def shown(seen: TrafficTable | None, table: TrafficTable) -> bool:
    """Whether the table was taken in; nobody takes replicas away here, so `replicas` cannot show it exactly."""
    return seen == table or (seen is not None and seen.generation == table.generation and len(seen.weights) > 1)


@pytest.fixture
async def shop(request: Any, cluster: Cluster, namespace: str, kubectl: Kubectl, tmp_path: Path) -> str:
    """Two versions, and the route of the router that the test is about."""
    from asyncio import sleep

    objects = routes(request.getfixturevalue("router"), namespace)
    if objects:
        kubectl.apply(*objects)
    shop = shops.Shop(cluster.kubeconfig, namespace, shops.written(tmp_path, shops.deployment(), shops.service()))
    for version in ("1.0", "1.1"):
        await shop.ensure(Version(version), 1, None, 1)
    deadline = time.monotonic() + 30
    while len(kubectl.json("get", "endpointslices")["items"]) < 3 or not all(
        endpoint["conditions"]["ready"]
        for item in kubectl.json("get", "endpointslices")["items"]
        for endpoint in item.get("endpoints") or [{"conditions": {"ready": False}}]
    ):
        assert time.monotonic() < deadline
        await sleep(0.1)
    await shop.close()
    return namespace


@pytest.mark.parametrize("router", routed_shops.ROUTERS)
async def test_the_role_in_the_docs_is_enough(
    router: str, shop: str, service_account_kubeconfig: Callable[..., Path]
) -> None:
    kubeconfig = service_account_kubeconfig(documented(router), "all")
    cluster, found = opened(router, kubeconfig, shop)
    await used(found)
    await cluster.close()


def missing(router: str) -> list[tuple[str, str]]:
    """Return the verbs that a release with this router cannot do without."""
    own = {
        "gateway_api": [("update", "httproutes"), ("get", "httproutes"), ("get", "gateways")],
        "istio": [("update", "virtualservices")],
        "ingress_nginx": [("list", "ingresses"), ("create", "ingresses"), ("delete", "ingresses")],
        "replicas": [("get", "services"), ("update", "configmaps")],
    }
    return [*own[router], ("list", "endpointslices"), ("list", "services"), ("get", "configmaps")]


@pytest.mark.parametrize("router", ["gateway_api", "ingress_nginx"])
async def test_with_less_the_missing_verb_is_named(
    router: str, shop: str, service_account_kubeconfig: Callable[..., Path]
) -> None:
    for number, (verb, resource) in enumerate(missing(router)):
        rules = [
            {**rule, "verbs": [each for each in rule["verbs"] if resource not in rule["resources"] or each != verb]}
            for rule in documented(router)
        ]
        kubeconfig = service_account_kubeconfig([rule for rule in rules if rule["verbs"]], f"less-{number}")
        cluster, found = opened(router, kubeconfig, shop)
        with pytest.raises(ForgeError) as raised:
            await used(found)
        assert isinstance(raised.value, DependencyFailed), raised.value
        assert f"not allowed to {verb} {resource}" in raised.value.message
        assert f"namespace {shop}" in raised.value.message
        assert "permissions.md" in (raised.value.hint or "")
        await cluster.close()
