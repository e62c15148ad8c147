"""Releases of what Kustomize builds, without the repository afterwards; what a release no longer has goes with it."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import pytest
import yaml

from cluster import shops

PIPELINE = """
parameters: {version: "1.0"}
environments:
  production:
    target:
      kubernetes: {namespace: NAMESPACE, TARGET, images: {web: "shop:${{ params.version }}"}}
jobs:
  release:
    steps:
      - deploy:
          environment: production
          version: "${{ params.version }}"
          strategy: {rolling: {progress_deadline: 20s}}
          keep_previous: 0s
"""


class Repository:
    """A project that deploys `k8s` to a namespace of its own."""

    def __init__(self, project: Any, namespace: str) -> None:
        made = project("replicas")
        self.forge, self.folder, self.namespace = made.forge, made.folder, namespace
        shutil.rmtree(self.folder / "k8s")
        self.target("manifests: k8s")

    def target(self, text: str) -> None:
        pipeline = PIPELINE.replace("NAMESPACE", self.namespace).replace("TARGET", text)
        (self.folder / "forge" / "pipeline.yaml").write_text(pipeline)

    def write(self, name: str, *objects: dict[str, Any]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump_all(objects))

    def run(self, version: str, code: int = 0) -> str:
        done = self.forge("run", "-p", f"version={version}", timeout=110)
        assert done.returncode == code, done.stdout + done.stderr
        return str(done.stdout + done.stderr)


@pytest.fixture
def repository(project: Any, namespace: str) -> Repository:
    return Repository(project, namespace)


def image(kubectl: Any) -> set[str]:
    items = kubectl.json("get", "deployments")["items"]
    return {item["spec"]["template"]["spec"]["containers"][0]["image"] for item in items if item["spec"]["replicas"]}


def colour(kubectl: Any) -> str:
    """The colour that the pods of the version that serves read."""
    (serving,) = [item for item in kubectl.json("get", "deployments")["items"] if item["spec"]["replicas"]]
    (source,) = serving["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    found: str = kubectl.json("get", "configmap", source["configMapRef"]["name"])["data"]["COLOUR"]
    return found


def test_what_kustomize_built_rolls_back_without_the_repository(repository: Repository, kubectl: Any) -> None:
    base = shops.deployment(mounts=True)
    repository.write("k8s/base/shop.yaml", base, shops.service(), shops.secret())
    generator = {"name": "shop-config", "literals": ["COLOUR=red"]}
    overlay = {"resources": ["../base"], "configMapGenerator": [generator], "replicas": [{"name": "shop", "count": 1}]}
    repository.write("k8s/base/kustomization.yaml", {"resources": ["shop.yaml"]})
    repository.write("k8s/prod/kustomization.yaml", overlay)
    repository.target("kustomize: k8s/prod")
    said = repository.run("1.0")
    assert "rendered 4 objects for Deployment/shop" in said
    assert (image(kubectl), colour(kubectl)) == ({"shop:1.0"}, "red")

    generator["literals"] = ["COLOUR=blue"]
    repository.write("k8s/prod/kustomization.yaml", overlay)
    repository.run("2.0")
    assert (image(kubectl), colour(kubectl)) == ({"shop:2.0"}, "blue")

    shutil.rmtree(repository.folder / "k8s")
    repository.forge.ok("rollback", "production", timeout=100)
    assert (image(kubectl), colour(kubectl)) == ({"shop:1.0"}, "red")


CHART = """
apiVersion: v1
kind: ConfigMap
metadata: {name: shop-config}
data: {COLOUR: {{ .Values.colour | quote }}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: {{ .Release.Name }}-check, annotations: {"helm.sh/hook": test}}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: check, image: x}]}}}
"""


@pytest.mark.timeout(1800)  # the first of all tests that need it may build it
def test_what_helm_rendered_is_released_with_the_runs_own_settings(
    real_helm: str, repository: Repository, kubectl: Any
) -> None:
    repository.write("chart/Chart.yaml", {"apiVersion": "v2", "name": "shop", "version": "0.1.0"})
    repository.write("chart/values.yaml", {"colour": "red"})
    repository.write("chart/templates/shop.yaml", shops.deployment(mounts=True, replicas=1), shops.secret())
    (repository.folder / "chart" / "templates" / "config.yaml").write_text(CHART)
    repository.target('helm: {chart: chart, set: {colour: "blue-${{ params.version }}"}}')
    said = repository.run("1.0")
    assert "left out: Job/chart-check (test) is a hook of the chart" in said
    assert (image(kubectl), colour(kubectl)) == ({"shop:1.0"}, "blue-1.0")
    assert kubectl.json("get", "jobs")["items"] == []


def test_workers_that_nobody_asks_need_no_service(repository: Repository, kubectl: Any) -> None:
    repository.write("k8s/all.yaml", shops.deployment(replicas=2))
    repository.run("1.0")
    repository.run("2.0")
    assert image(kubectl) == {"shop:2.0"}


def test_what_a_release_does_not_have_any_more_is_gone_after_it(repository: Repository, kubectl: Any) -> None:
    both = [shops.config_map("lookup", A="1"), shops.config_map("other", B="1")]
    repository.write("k8s/all.yaml", shops.deployment(replicas=1), shops.service(), *both)
    repository.run("1.0")
    kubectl.ok("get", "configmap/lookup", "configmap/other")
    repository.write("k8s/all.yaml", shops.deployment(replicas=1), shops.service(), both[1])
    planned = json.loads(repository.forge.ok("plan", "-p", "version=2.0", "-o", "json", timeout=60))
    outcomes = {change["object"]: change["outcome"] for change in planned["changes"][0]["changes"]}
    assert (outcomes["ConfigMap/lookup"], outcomes["ConfigMap/other"]) == ("removed", "same")
    repository.run("2.0")
    if not gone(kubectl, "lookup"):
        # The worker left with its run; whoever works next carries on.
        repository.run("3.0")
        assert gone(kubectl, "lookup")
    kubectl.ok("get", "configmap/other")


def gone(kubectl: Any, name: str, patience: float = 10.0) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if kubectl("get", f"configmap/{name}").returncode:
            return True
        time.sleep(0.3)
    return False


def test_a_field_that_somebody_else_took_is_told_in_words(repository: Repository, kubectl: Any) -> None:
    lookup = shops.config_map("lookup", A="1")
    repository.write("k8s/all.yaml", shops.deployment(replicas=1), shops.service(), lookup)
    repository.run("1.0")
    taken = shops.config_map("lookup", A="9")
    kubectl.ok("apply", "--server-side", "--force-conflicts", "--field-manager=payroll", "-f", "-", stdin=[taken])
    said = repository.run("2.0", code=1)
    assert "payroll manages .data.A" in said
    assert kubectl.json("get", "configmap", "lookup")["data"] == {"A": "9"}, "what is somebody else's stays"
    assert image(kubectl) == {"shop:1.0"}


def test_slips_end_the_run_before_it_starts_and_say_where(repository: Repository, kubectl: Any) -> None:
    repository.write("k8s/all.yaml", shops.deployment(), {"apiVersion": "v1", "metadata": {"name": "x"}})
    done = repository.forge("run", timeout=60)
    assert done.returncode == 2
    assert "k8s/all.yaml" in done.stderr
    assert "an object needs `kind`, a text" in done.stderr
    assert kubectl.json("get", "deployments")["items"] == []
