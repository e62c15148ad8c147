"""The Roles in docs/kubernetes/permissions.md: with them releases work, with one verb less it is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.releases import Project, doors

DOCS = Path(__file__).parents[2] / "docs" / "kubernetes"
Rules = list[dict[str, Any]]


def documented(title: str) -> Rules:
    """Return the rules under a title of the page."""
    text = (DOCS / "permissions.md").read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    rules: Rules = [
        rule for block in re.findall(r"```yml\n(.*?)```", text, re.DOTALL) for rule in yaml.safe_load(block)
    ]
    return rules


def of_gateway() -> Rules:
    """Return the rules of the Gateway API router, as routers.md has them."""
    text = (DOCS / "routers.md").read_text().partition("## Permissions")[2]
    every, *_ = re.findall(r"```yml\n(.*?)```", text, re.DOTALL)
    own = re.search(r"For `gateway_api`.*?```yml\n(.*?)```", text, re.DOTALL)
    assert own
    return [*yaml.safe_load(every), *yaml.safe_load(own[1])]


def without(rules: Rules, verb: str, resource: str) -> Rules:
    """Return the rules without one verb of one resource, wherever it is allowed."""
    fresh = []
    for rule in rules:
        fresh.append({**rule, "resources": [each for each in rule["resources"] if each != resource]})
        if resource in rule["resources"]:
            fresh.append({**rule, "resources": [resource], "verbs": [each for each in rule["verbs"] if each != verb]})
    return [rule for rule in fresh if rule["resources"] and rule["verbs"]]


@pytest.fixture
def restricted(
    tmp_path: Path, cluster: Any, namespace: str, kubectl: Any, pod_prometheus: str, forge_command: Any,
    service_account_kubeconfig: Callable[..., Path],
) -> Callable[[Rules], Project]:  # fmt: skip
    """Return how to get a project whose Forge may do what some rules say."""

    def made(rules: Rules) -> Project:
        fresh = Project(tmp_path / "project", cluster, namespace, forge_command, "gateway_api", pod_prometheus)
        fresh.forge.env["KUBECONFIG"] = str(service_account_kubeconfig(rules))
        gateway, route = doors("gateway_api")
        kubectl.apply(gateway, route)  # the people who run the cluster make the doors
        fresh.manifests([])
        fresh.write()
        return fresh

    return made


@pytest.mark.long
def test_with_the_roles_releases_work(restricted: Any) -> None:
    shop = restricted([*documented("Releases"), *of_gateway()])
    shop.run("1.0")
    with shop.users() as users:
        shop.run("1.1")
        users.until_all_are("1.1")
        shop.run("1.2", bad="0.5", code=1)
        users.until_all_are("1.1")
    assert set(users.failed) <= {"500 1.2"}


@pytest.mark.parametrize(
    ("verb", "resource"), [("create", "deployments"), ("create", "services"), ("list", "pods"), ("patch", "httproutes")]
)
def test_with_one_verb_less_it_is_named(restricted: Any, verb: str, resource: str) -> None:
    allowed = without([*documented("Releases"), *of_gateway()], verb, resource)
    if resource == "httproutes":
        allowed = without(allowed, "update", resource)
    shop = restricted(allowed)
    started = shop.forge.start("run", "-p", "version=1.0")
    try:
        told = ""
        while "not allowed to" not in told:
            line = started.stdout.readline()
            assert line, f"it ended without a word about {verb} {resource}: {told}"
            told += line
    finally:
        started.terminate()
        started.communicate(timeout=20)
    found = re.search(r"not allowed to (\w+) (\w+)", told)
    assert found
    assert found[2] == resource
    assert found[1] in {verb, "update"}


def test_verify_and_rollback_need_little(
    tmp_path: Path, namespace: str, kubectl: Any, forge_command: Any, service_account_kubeconfig: Callable[..., Path]
) -> None:
    title = "verify and rollback of what kubectl deploys"
    folder = tmp_path / "plain"
    (folder / "forge").mkdir(parents=True)
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "shop"}}, "template": {
            "metadata": {"labels": {"app": "shop"}},
            "spec": {"containers": [{"name": "shop", "image": "shop", "command": ["sleep", "300"]}]}}},
    }  # fmt: skip
    kubectl.apply(deployment)
    kubectl.rolled_out("deployment/shop")
    kubectl.ok("set", "env", "deployment/shop", "A=2")
    kubectl.rolled_out("deployment/shop")
    place = {"workload": "Deployment/shop", "namespace": namespace}
    steps = [{"verify": {**place, "timeout": "30s"}}, {"rollback": place}]
    (folder / "forge" / "pipeline.yaml").write_text(yaml.safe_dump({"jobs": {"all": {"steps": steps}}}))
    forge = forge_command(folder, {"KUBECONFIG": str(service_account_kubeconfig(documented(title)))})
    forge.ok("run")
    less = without(documented(title), "list", "replicasets")
    forge.env["KUBECONFIG"] = str(service_account_kubeconfig(less, name="less"))
    told = forge("run")
    assert told.returncode == 5
    assert "not allowed to list replicasets.apps" in told.stdout + told.stderr
