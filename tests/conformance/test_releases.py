"""The same releases on every target and through every router: what users meet does not depend on where they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.releases import SERVICE, Project, Users

PLACES = ("local", "gateway_api", "istio", "ingress_nginx", "replicas")
EXACT = ("local", "gateway_api", "istio", "ingress_nginx")
"""Where a weight is a share of the requests, whatever the replicas."""


class LocalProject(Project):
    """The same project on this machine, behind an Envoy of its own."""

    def __init__(self, folder: Path, forge: Any) -> None:
        self.folder, self.router = folder, "envoy"
        self.forge = forge(folder, {})
        (folder / "forge").mkdir(parents=True)
        (folder / "service.py").write_text(SERVICE)
        self.strategy = {"canary": {"steps": [{"weight": "20%"}, {"pause": "4s"}, {"weight": "50%"}, {"pause": "2s"}]}}

    def write(self) -> None:
        """Write the pipeline as it is set now."""
        command = [sys.executable, "-I", "-S", str(self.folder / "service.py")]
        target = {"local": {"command": command, "replicas": 2, "drain": "500ms", "env": {"POD_IP": "127.0.0.1"},
                            "ready": {"http": "/healthz", "interval": "50ms"}}}  # fmt: skip
        env = {"POD_IP": "127.0.0.1", "VERSION": "${{ params.version }}", "BAD": "${{ params.bad }}"}
        deploy = {"environment": "production", "version": "${{ params.version }}", "strategy": self.strategy,
                  "keep_previous": "0s", "target": {"env": env}}  # fmt: skip
        pipeline = {
            "parameters": {"version": {"type": "string"}, "bad": {"type": "string", "default": "0"}},
            "environments": {"production": {"target": target}},
            "jobs": {"release": {"steps": [{"deploy": deploy}]}},
        }
        (self.folder / "forge" / "pipeline.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))

    def users(self, **settings: Any) -> Users:
        """Return users at the environment's own proxy."""
        return Users(self.environment()["address"], **settings)


@pytest.fixture
def shop(request: pytest.FixtureRequest, place: str, tmp_path: Path) -> Iterator[Project]:
    forge = request.getfixturevalue("forge_command")
    if place != "local":
        made: Callable[[str], Project] = request.getfixturevalue("project")
        yield made(place)
        return
    here = LocalProject(tmp_path / "project", forge)
    here.write()
    yield here
    here.forge("env", "down", "production", "-y", "--force", timeout=60)


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", PLACES)
def test_a_good_canary_is_promoted_and_a_bad_one_comes_back(shop: Project, place: str) -> None:
    """Nobody who was not sent to the bad version meets an error."""
    shop.run("1.0")
    with shop.users() as users:
        assert "1.1 is stable" in shop.run("1.1")
        users.until_all_are("1.1")
        assert users.failed == {}
        assert "carries nothing any more, 1.1 serves" in shop.run("1.2", bad="0.5", code=1)
        users.until_all_are("1.1")
    assert set(users.failed) <= {"500 1.2"}
    shown = shop.environment()
    assert shown["stable"] == "1.1"
    assert [arm["version"] for arm in shown["arms"] if arm["set_weight"]] == ["1.1"]


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", PLACES)
def test_a_rolling_update_and_back_again_lose_no_request(shop: Project, place: str) -> None:
    shop.strategy = "rolling"
    shop.write()
    shop.run("1.0")
    with shop.users() as users:
        shop.run("1.1")
        users.until_all_are("1.1")
        shop.forge.ok("rollback", "production", timeout=90)
        shop.settled()
        users.until_all_are("1.0")
    assert users.failed == {}


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", EXACT)
def test_blue_green_turns_everything_at_once(shop: Project, place: str) -> None:
    shop.strategy = "blue_green"
    shop.write()
    shop.run("1.0")
    with shop.users() as users:
        shop.run("1.1")
        users.until_all_are("1.1")
    assert users.failed == {}


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", ["local", "gateway_api", "istio"])
def test_three_versions_at_once_each_with_its_share(shop: Project, place: str) -> None:
    shop.strategy = {"canary": {"steps": [{"weight": "20%"}, {"pause": "until_resumed"}]}}
    shop.write()
    shop.run("1.0")
    with shop.users() as users, shop.working("1.1"), shop.working("1.2", after="1.1"):
        found = users.share(4.0)
        assert set(found) == {"1.0", "1.1", "1.2"}
        for version, part in (("1.0", 0.6), ("1.1", 0.2), ("1.2", 0.2)):
            assert found[version] == pytest.approx(part, abs=0.1)
        shop.forge.ok("release", "promote", "production", "--release", "production-2", "--full", timeout=60)
        shop.until_stable("1.1")
        shop.forge.ok("release", "abort", "production", "--release", "production-3", code=3, timeout=60)
        shop.settled()
        users.until_all_are("1.1")
    assert users.failed == {}
