"""What a target may do is enough for all that it does; with one verb less, the refusal names it."""

from __future__ import annotations

import asyncio
import time

import pytest

from cluster import shops
from forge.adapters.kubernetes.objects import split_objects
from forge.adapters.targets.kubernetes.adoption import find_adoptable
from forge.adapters.targets.kubernetes.orphans import find_orphans
from forge.adapters.targets.kubernetes.stored import read_manifests
from forge.model.errors import DependencyFailed
from forge.model.traffic import Version


def rule(group: str, resource: str, verbs: str) -> dict:
    return {"apiGroups": [group], "resources": [resource], "verbs": verbs.split()}


RULES = [
    rule("", "configmaps", "get list create patch update delete"),
    rule("", "secrets", "get list create patch delete"),
    rule("", "services", "get list create patch delete"),
    rule("", "pods", "list watch"),
    rule("", "pods/log", "get"),
    rule("", "events", "list"),
    rule("apps", "deployments", "get list watch create patch delete"),
    rule("apps", "replicasets", "list"),
    rule("autoscaling", "horizontalpodautoscalers", "list watch create patch"),
    rule("policy", "poddisruptionbudgets", "get list create patch delete"),
]
"""What a release of Deployments needs in its namespace."""


def without(resource: str, verb: str) -> list[dict]:
    return [
        {**each, "verbs": [known for known in each["verbs"] if each["resources"] != [resource] or known != verb]}
        for each in RULES
    ]


@pytest.fixture
def artifact(tmp_path) -> str:
    return shops.written(
        tmp_path, shops.deployment(mounts=True, replicas=1), shops.service(), shops.config_map(), shops.secret(),
        shops.config_map("features", a="1"), shops.budget(1), shops.autoscaler(least=1),
    )  # fmt: skip


async def until_ready(shop: shops.Shop) -> None:
    deadline = time.monotonic() + 20
    while (count := (await shop.observe()).get("1.0")) is None or count.ready != 1:
        assert time.monotonic() < deadline, count
        await asyncio.sleep(0.05)


async def test_with_the_role_everything_works(service_account_kubeconfig, namespace, artifact) -> None:
    shop = shops.Shop(service_account_kubeconfig(RULES), namespace, artifact)
    parts = split_objects(read_manifests(artifact))
    assert await find_adoptable(shop.cluster, "production", parts) is None
    await shop.ensure(Version("1.0"), 1, None, 1)
    await until_ready(shop)
    lines = [line async for line in shop.logs("1.0", follow=False, tail=5)]
    assert len(lines) == 1
    await shop.ensure(Version("1.1"), 1, None, 1)
    await shop.ensure(Version("1.0"), 1, None, 2)
    await shop.remove("1.1", 2)
    await shop.remove("1.0", 2)
    await shop.close()


async def test_orphans_are_looked_for_where_one_may(service_account_kubeconfig, namespace, artifact) -> None:
    rules = [
        *RULES,
        rule("apps", "statefulsets", "list"),
        rule("apps", "daemonsets", "list"),
        rule("batch", "jobs", "list"),
    ]
    shop = shops.Shop(service_account_kubeconfig(rules), namespace, artifact)
    assert await find_orphans(shop.cluster, {}) == []
    await shop.close()


@pytest.mark.parametrize(
    ("resource", "verb", "told"),
    [
        ("configmaps", "create", "create configmaps"),
        ("deployments", "list", "list deployments.apps"),
        ("deployments", "create", "create deployments.apps"),
        ("services", "patch", "patch services"),
        ("secrets", "create", "create secrets"),
        ("poddisruptionbudgets", "create", "create poddisruptionbudgets.policy"),
        ("horizontalpodautoscalers", "list", "list horizontalpodautoscalers.autoscaling"),
    ],
)
async def test_with_one_verb_less_the_refusal_names_it(
    service_account_kubeconfig, namespace, artifact, resource, verb, told
) -> None:
    shop = shops.Shop(service_account_kubeconfig(without(resource, verb)), namespace, artifact)
    with pytest.raises(DependencyFailed, match=f"not allowed to {told} in namespace {namespace}") as caught:
        await shop.ensure(Version("1.0"), 1, None, 1)
    assert "permissions" in (caught.value.hint or "")
    await shop.close()


async def test_who_may_not_watch_pods_is_told_and_not_shown_old_numbers(
    service_account_kubeconfig, namespace, artifact
) -> None:
    shop = shops.Shop(service_account_kubeconfig(without("pods", "list")), namespace, artifact)
    with pytest.raises(DependencyFailed, match=f"not allowed to list pods in namespace {namespace}"):
        await shop.observe()
    await shop.close()


async def test_without_events_and_logs_releases_still_work(service_account_kubeconfig, namespace, artifact) -> None:
    rules = [each for each in RULES if each["resources"][0] not in {"events", "pods/log"}]
    shop = shops.Shop(service_account_kubeconfig(rules), namespace, artifact)
    await shop.ensure(Version("1.0"), 1, None, 1)
    await until_ready(shop)
    await shop.close()
