"""`forge plan` tells what a release would change in a real cluster, before and after one was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import shops

PIPELINE = """
parameters: {version: "1.0"}
environments:
  production:
    target:
      kubernetes: {namespace: NAMESPACE, manifests: k8s, images: {web: "shop:${{ params.version }}"}}
jobs:
  release:
    steps:
      - deploy: {environment: production, version: "${{ params.version }}", keep_previous: 0s}
"""


class Repository:
    """A project with manifests and a pipeline that deploys them."""

    def __init__(self, project: Any, namespace: str) -> None:
        made = project("replicas")
        self.forge, self.folder = made.forge, made.folder
        (self.folder / "k8s" / "shop.yaml").unlink()
        (self.folder / "forge" / "pipeline.yaml").write_text(PIPELINE.replace("NAMESPACE", namespace))
        self.write(shops.deployment(mounts=True), shops.service(), shops.config_map(), shops.secret())

    def write(self, *objects: dict[str, Any]) -> None:
        (self.folder / "k8s" / "all.yaml").write_text(yaml.safe_dump_all(objects))

    def plan(self, *words: str) -> str:
        text: str = self.forge.ok("plan", *words, timeout=90)
        return text


@pytest.fixture
def repository(project: Any, namespace: str) -> Repository:
    return Repository(project, namespace)


def changes(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("Changes to "))
    return [line.rstrip() for line in lines[start:]]


def test_what_the_first_release_and_the_next_would_change(
    repository: Repository, namespace: str, cluster: Any, kubectl: Any
) -> None:
    first = changes(repository.plan())
    assert first[0].endswith("; its first release:")
    assert first[1:] == [
        "  + Deployment/shop", "  + ConfigMap/shop-config  a copy of this version alone",
        "  + Secret/shop-secret  a copy of this version alone", "  + Service/shop",
    ]  # fmt: skip
    assert kubectl.json("get", "deployments,services,secrets")["items"] == [], "nothing was made"

    repository.forge.ok("run", timeout=110)
    repository.write(
        shops.deployment(mounts=True, replicas=3), shops.service(), shops.config_map(COLOUR="blue"),
        shops.secret(key="hunter3"),
    )  # fmt: skip
    told = changes(repository.plan("-p", "version=2.0"))
    assert told[0] == (
        f"Changes to production (release) on cluster {cluster_name(cluster)}, namespace {namespace};"
        " held against 1.0, which serves now:"
    )
    assert told[1:] == [
        "  ~ Deployment/shop",
        "      ~ spec.replicas: 2 -> 3",
        '      ~ spec.template.spec.containers[web].image: "shop:1.0" -> "shop:2.0"',
        "  ~ ConfigMap/shop-config",
        '      ~ data.COLOUR: "red" -> "blue"',
        "  ~ Secret/shop-secret",
        "      ~ data.key: (secret, 7 bytes), of other content",
        "    1 object stays as before",
    ]
    as_data = json.loads(repository.plan("-p", "version=2.0", "-o", "json"))
    assert [change["outcome"] for change in as_data["changes"][0]["changes"]] == [
        "changed",
        "changed",
        "changed",
        "same",
    ]
    assert "hunter" not in json.dumps(as_data)


def cluster_name(cluster: Any) -> str:
    """How messages call the cluster: the context that the kubeconfig is set to."""
    name: str = yaml.safe_load(cluster.kubeconfig.read_text())["current-context"]
    return name


def test_offline_no_cluster_is_asked(repository: Repository) -> None:
    assert "Changes to" not in repository.plan("--offline")


def test_a_cluster_that_is_away_is_told_and_the_plan_is_shown_all_the_same(
    repository: Repository, cluster: Any, tmp_path: Path
) -> None:
    access = yaml.safe_load(cluster.kubeconfig.read_text())
    access["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    away = tmp_path / "away.kubeconfig"
    away.write_text(yaml.safe_dump(access))
    pipeline = repository.folder / "forge" / "pipeline.yaml"
    pipeline.write_text(pipeline.read_text().replace("{namespace:", f"{{kubeconfig: {away}, namespace:"))
    text = repository.plan()
    assert "deploy to production (rolling)" in text
    assert changes(text)[0].startswith("Changes to production (release) are not known: ")


def test_what_the_cluster_would_refuse_is_told_before_the_run(repository: Repository) -> None:
    broken = shops.deployment()
    broken["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 99999}]
    repository.write(broken)
    (line,) = changes(repository.plan())[1:]
    assert line.startswith("  ! Deployment/shop  would be refused: ")
    assert "must be between 1 and 65535" in line
