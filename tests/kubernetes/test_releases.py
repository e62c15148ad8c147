"""Releases to a real cluster by the command itself, with users who notice every failed request."""

from __future__ import annotations

import pytest

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
