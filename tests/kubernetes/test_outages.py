"""The cluster's own server goes away in the middle of a release: users do not notice, and the release goes on."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.fixtures import fresh_namespace, scraping
from cluster.releases import Project
from cluster.sharing import Cluster

OUTAGE = 6.0
"""Seconds without an apiserver."""


def forge_command() -> Callable:
    spec = importlib.util.spec_from_file_location(
        "forge_for_outages", Path(__file__).parents[1] / "e2e" / "conftest.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.ForgeCommand


@pytest.fixture
def project(tmp_path, own_cluster) -> Iterator[Project]:
    """A project on a cluster of its own, with a stable version."""
    cluster = Cluster(own_cluster.kubeconfig, own_cluster.folder)
    with fresh_namespace(own_cluster, "outages") as name, scraping(own_cluster.api(), name) as prometheus:
        made = Project(tmp_path / "project", cluster, name, forge_command(), "gateway_api", prometheus)
        made.write()
        made.run("1.0")
        yield made


class Outage:
    """Takes the apiserver away as soon as a version gets requests, and brings it back after a while."""

    def __init__(self, plane, users, version: str) -> None:
        self.plane, self.users, self.version = plane, users, version
        self.happened = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._happen, daemon=True)
        self._thread.start()

    def _happen(self) -> None:
        try:
            deadline = time.monotonic() + 60
            while not self.users.answers[self.version]:
                assert time.monotonic() < deadline, f"nobody reached {self.version}"
                time.sleep(0.05)
            self.plane.stop_apiserver("kill")
            self.happened.set()
            time.sleep(OUTAGE)
            self.plane.start_apiserver()
        except BaseException as error:
            self.error = error

    def over(self) -> None:
        self._thread.join(60)
        assert self.error is None
        assert self.happened.is_set()


@pytest.mark.long
@pytest.mark.timeout(480)  # three releases and two outages: a minute, on a busy machine more
def test_a_release_outlives_the_apiserver_and_is_still_judged(project, own_cluster) -> None:
    with project.users() as users:
        outage = Outage(own_cluster, users, "1.1")
        told = project.run("1.1")
        outage.over()
        assert "1.1 is stable" in told
        users.until_all_are("1.1")
        assert users.failed == {}

        outage = Outage(own_cluster, users, "1.2")
        told = project.run("1.2", bad="0.5", code=1, timeout=200)
        outage.over()
        assert "carries nothing any more, 1.1 serves" in told
        users.until_all_are("1.1")
    assert set(users.failed) == {"500 1.2"}
    shown = project.environment()
    assert shown["stable"] == "1.1"
    assert [arm["version"] for arm in shown["arms"] if arm["set_weight"]] == ["1.1"]
