"""Releases to a real cluster by the command itself, with users who notice every failed request."""

from __future__ import annotations

import pytest

from cluster.releases import settings_map

ROUTERS = ("gateway_api", "istio", "ingress_nginx")


@pytest.mark.parametrize("router", ROUTERS)
def test_a_good_canary_is_promoted_and_a_bad_one_comes_back(project, router) -> None:
    """Nobody who was not sent to the bad version meets an error."""
    shop = project(router)
    shop.run("1.0")
    with shop.users() as users:
        told = shop.run("1.1")
        assert "1.1 is stable" in told
        assert users.share(1.0) == {"1.1": 1.0}
        assert users.failed == {}
        told = shop.run("1.2", bad="0.5", code=1)
        assert "carries nothing any more, 1.1 serves" in told
        assert users.share(1.0) == {"1.1": 1.0}
    assert set(users.failed) == {"500 1.2"}
    shown = shop.environment()
    assert shown["stable"] == "1.1"
    assert [arm["version"] for arm in shown["arms"] if arm["set_weight"]] == ["1.1"]


def test_what_lives_there_is_adopted_under_load_and_released_on(project, kubectl) -> None:
    """No pod restarts by it, and nobody notices, from the plain Deployment to a canary that comes back."""
    shop = project("gateway_api")
    kubectl.ok("apply", "-f", shop.folder / "k8s")
    kubectl.apply(settings_map("0.9", "0"))
    kubectl.ok("rollout", "status", "deployment/shop", "--timeout=60s")
    pods = {pod["metadata"]["uid"] for pod in kubectl.json("get", "pods")["items"]}
    with shop.users() as users:
        told = shop.run("1.0", bad="0.5", code=1)
        assert "Deployment shop is there already: it becomes the stable version" in told
        assert users.share(1.0) == {"0.9": 1.0}
        assert {pod["metadata"]["uid"] for pod in kubectl.json("get", "pods", "-l", "app=shop")["items"]} >= pods
        shop.run("1.1")
        assert users.share(1.0) == {"1.1": 1.0}
    assert set(users.failed) <= {"500 1.0"}


def test_three_versions_at_once_each_with_its_share(project) -> None:
    shop = project("gateway_api")
    shop.strategy = {"canary": {"steps": [{"weight": "20%"}, {"pause": "until_resumed"}]}}
    shop.write()
    shop.run("1.0")
    with shop.users() as users, shop.working("1.1"), shop.working("1.2", after="1.1"):
        found = users.share(4.0)
        assert {version: round(part, 1) for version, part in found.items()} == {"1.0": 0.6, "1.1": 0.2, "1.2": 0.2}
        shop.forge.ok("release", "promote", "production", "--release", "production-2", "--full", timeout=60)
        shop.until_stable("1.1")
        shop.forge.ok("release", "abort", "production", "--release", "production-3", code=3, timeout=60)
        shop.settled()
        users.until_all_are("1.1")
    assert users.failed == {}


@pytest.mark.parametrize("router", ["replicas", "gateway_api"])
def test_a_rolling_update_and_back_again_lose_no_request(project, router) -> None:
    shop = project(router)
    shop.strategy = "rolling"
    shop.write()
    shop.run("1.0")
    with shop.users() as users:
        shop.run("1.1")
        users.until_all_are("1.1")
        shop.forge.ok("rollback", "production", timeout=60)
        shop.settled()
        users.until_all_are("1.0")
    assert users.failed == {}


def test_blue_green_turns_everything_at_once(project) -> None:
    shop = project("gateway_api")
    shop.strategy = "blue_green"
    shop.write()
    shop.run("1.0")
    with shop.users() as users:
        shop.run("1.1")
        assert users.share(1.0) == {"1.1": 1.0}
    assert users.failed == {}
