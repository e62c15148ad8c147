"""Fixtures for tests against a real Kubernetes control plane. A machine that cannot have one skips; CI fails."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cluster import access
from cluster.access import Api, Kubectl, Refused, until
from cluster.admission import AdmissionWebhook, Verdict
from cluster.plane import ControlPlane, obtain, script
from cluster.sharing import Cluster, NoCluster, own_folder, shared_cluster

OUTSIDE = "FORGE_TEST_KUBECONFIG"
"""Names the kubeconfig of a throw-away cluster, left running by `make cluster`, to use instead of starting one."""
Rules = list[dict[str, Any]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a cluster, so that `-m kubernetes` and `-m 'not kubernetes'` are right by themselves."""
    for item in items:
        if {"cluster", "own_cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("kubernetes")


@pytest.fixture
def real_helm(monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a real helm, first on the PATH; the first test that asks for it may build it."""
    module = script("helm")
    try:
        program = str(module.find())
    except module.Unavailable as problem:
        if os.environ.get("CI"):
            pytest.fail(str(problem))
        pytest.skip(str(problem))
    monkeypatch.setenv("PATH", f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}")
    return program


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane here if it has to be: a test would run into its time limit."""
    wanted = any(item.get_closest_marker("kubernetes") for item in session.items)
    if not wanted or session.config.option.collectonly or os.environ.get(OUTSIDE):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        module = obtain()
        with contextlib.suppress(module.Unavailable):  # the fixture tells
            module.find()


def programs() -> dict[str, list[str]]:
    """Return what starts each part of a control plane; skips where there is none, and fails in CI."""
    module = obtain()
    try:
        return dict(module.find())
    except module.Unavailable as problem:
        unavailable(str(problem))


def unavailable(problem: str) -> NoReturn:
    """Skip the test, saying why; in CI it has to run, so it fails there."""
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)


def outside_cluster(path: str) -> Cluster:
    """Return the throw-away cluster that the caller named."""
    kubeconfig = Path(path).resolve()
    if not kubeconfig.is_file():
        pytest.fail(f"{OUTSIDE} names no file: {path}")
    cluster = Cluster(kubeconfig, kubeconfig.parent)
    if not cluster.api("GET", "/api/v1/nodes")["items"]:
        pytest.fail(f"the cluster of {OUTSIDE} has no nodes: leave one running with `make cluster`")
    return cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster with nodes and gateway, the same for all workers of this run: change only your own namespace."""
    outside = os.environ.get(OUTSIDE)
    if outside:
        yield outside_cluster(outside)
        return
    programs()
    try:
        with shared_cluster() as found:
            yield found
    except NoCluster as problem:
        pytest.fail(f"no Kubernetes cluster: {problem}")


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[ControlPlane]:
    """A cluster for this test alone, whose parts it may stop and start. Its logs stay in the test's folder."""
    with own_folder() as folder:
        plane = ControlPlane(folder, programs())
        try:
            plane.start()
            plane.start_attendants()
            yield plane
        finally:
            plane.stop()
            if plane.logs.exists():
                shutil.copytree(plane.logs, tmp_path / "cluster-logs")


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace; it goes afterwards, without waiting for it."""
    with fresh_namespace(cluster, request.node.name) as name:
        yield name


@contextlib.contextmanager
def fresh_namespace(cluster: Cluster | ControlPlane, told: str) -> Iterator[str]:
    """Make a namespace that can run pods while the block runs; its label tells which test it belongs to."""
    name = f"t-{secrets.token_hex(4)}"
    label = re.sub(r"[^A-Za-z0-9_.-]", "-", told)[:60].strip("-_.")
    api = cluster.api() if isinstance(cluster, ControlPlane) else cluster.api
    api("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": {"forge.test/name": label}}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    until(lambda: api.found(account), f"the default account of {name}")
    try:
        yield name
    finally:
        with contextlib.suppress(Refused, OSError):
            api("DELETE", f"/api/v1/namespaces/{name}", {"propagationPolicy": "Background"})


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    """kubectl as the administrator, in this test's namespace."""
    return cluster.kubectl(namespace)


@pytest.fixture
def service_account_kubeconfig(cluster: Cluster, namespace: str, tmp_path: Path) -> Callable[..., Path]:
    """Return how to get a kubeconfig that may do what `rules` (a Role's) say in this test's namespace, no more:
    `service_account_kubeconfig(rules, name="forge")`."""

    def made(rules: Rules, name: str = "forge") -> Path:
        return access.service_account_kubeconfig(cluster.api, tmp_path, namespace, rules, name)

    return made


@pytest.fixture
def admission_webhook(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Callable[..., AdmissionWebhook]]:
    """Return how to register a webhook for this test's namespace: `admission_webhook(rule, verdict, patience=5)`,
    where `rule` names apiGroups, apiVersions and resources, and `verdict(object)` returns why it is refused."""
    running: list[AdmissionWebhook] = []

    def registered(rule: dict[str, Any], verdict: Verdict, patience: int = 5) -> AdmissionWebhook:
        hook = AdmissionWebhook(cluster.api, tmp_path, namespace, rule, verdict)
        running.append(hook)
        hook.start(patience)
        return hook

    yield registered
    for hook in running:
        hook.stop()


@pytest.fixture
def pod_prometheus(cluster: Cluster, namespace: str) -> Iterator[str]:
    """The URL of a Prometheus that scrapes this test's pods once a second, if they are annotated."""
    with scraping(cluster.api, namespace) as url:
        yield url


@contextlib.contextmanager
def scraping(api: Api, namespace: str) -> Iterator[str]:
    """Run a Prometheus that scrapes the pods of a namespace and its gateway; return its URL."""
    from cluster.prometheus import NoPrometheus, PodScraper

    folder = Path(tempfile.mkdtemp(prefix="forge-scraper-"))
    try:
        scraper = PodScraper(api, folder, namespace)
    except NoPrometheus as problem:
        unavailable(str(problem))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(scraper.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield scraper.ready(lambda: process.poll() is None or pytest.fail((folder / "log").read_text()[-500:]))
    finally:
        scraper.discovery.end()
        process.kill()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
