"""examples/kubernetes/seed and builtin, as they are, on a real cluster: good versions pass, bad ones are undone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.gateway import FrontDoors
from cluster.releases import Users

EXAMPLES = Path(__file__).parents[2] / "examples" / "kubernetes"


class Seed:
    """A copy of an example whose pods run its code from there, in this test's namespace."""

    def __init__(self, folder: Path, cluster: Any, namespace: str, forge: Callable[..., Any], prometheus: str) -> None:
        self.folder, self.cluster, self.namespace, self.prometheus = folder, cluster, namespace, prometheus
        shutil.copytree(EXAMPLES / "seed", folder, ignore=shutil.ignore_patterns(".forge", "__pycache__"))
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        config["contexts"][0]["context"]["namespace"] = namespace
        (folder.parent / "kubeconfig").write_text(yaml.safe_dump(config))
        (folder.parent / "kubeconfig").chmod(0o600)
        self.forge = forge(folder, {"KUBECONFIG": str(folder.parent / "kubeconfig")})
        for path in folder.glob("k8s/*/deployment.yaml"):
            path.write_text(path.read_text().replace("/srv/myapp", str(folder)))
        pipeline = folder / "forge" / "pipeline.yaml"
        settings = {"PROMETHEUS_URL": prometheus, "CHECK_WINDOW": "15s", "CHECK_INTERVAL": "1", "CHECK_SOAK": "8"}
        pipeline.write_text(f"env: {json.dumps(settings)}\n{pipeline.read_text()}")

    def change(self, before: str, after: str) -> None:
        """Edit the production manifest, as a commit would."""
        path = self.folder / "k8s" / "production" / "deployment.yaml"
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))

    def service(self) -> Any:
        """Return the production Service."""
        objects = yaml.safe_load_all((self.folder / "k8s" / "production" / "deployment.yaml").read_text())
        return next(each for each in objects if each["kind"] == "Service")

    def users(self) -> Users:
        """Return people who ask the production Service."""
        front = FrontDoors(lambda path: self.cluster.api("GET", path))
        return Users(front.service(self.namespace, "myapp-production", 80))


@pytest.fixture
def seed(tmp_path, cluster, namespace, pod_prometheus, forge_command) -> Seed:
    return Seed(tmp_path / "seed", cluster, namespace, forge_command, pod_prometheus)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_seed_as_it_is_written(seed, kubectl) -> None:
    """From source to production and the check; a version with errors fails the run and is undone, without anybody."""
    assert seed.forge("run").returncode == 8
    seed.forge.ok("approve", "1", "deploy_production")
    kubectl.apply(seed.service())  # people may ask before the first version is there
    with seed.users() as users:
        told = seed.forge("resume", timeout=150)
        assert told.returncode == 0, told.stdout + told.stderr
        assert "Post-deployment checks passed." in told.stdout + told.stderr
        seed.change('{name: VERSION, value: "1.0.0"}', '{name: VERSION, value: "1.1.0"}')
        seed.change('{name: BAD, value: "0"}', '{name: BAD, value: "0.5"}')
        told = seed.forge("run", "--yes", timeout=200)
        assert told.returncode == 1, told.stdout + told.stderr
        assert "High error rate detected! Initiating rollback." in told.stdout + told.stderr
        users.until_all_are("1.0.0")
    # Connections that a plain Service cuts when pods are replaced are what kubectl's rolling update costs.
    assert {told for told in users.failed if told[0].isdigit()} <= {"500 1.1.0"}
    live = kubectl.json("get", "deployment", "myapp-production")
    (container,) = live["spec"]["template"]["spec"]["containers"]
    assert {"name": "VERSION", "value": "1.0.0"} in container["env"]


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_same_without_a_script(seed, kubectl) -> None:
    pipeline = (EXAMPLES / "builtin" / "forge" / "pipeline.yaml").read_text()
    pipeline = pipeline.replace("http://prometheus:9090", seed.prometheus).replace("[5m]", "[15s]")
    pipeline = pipeline.replace("for: 1m", "for: 8s").replace("interval: 15s", "interval: 1s")
    (seed.folder / "forge" / "pipeline.yaml").write_text(pipeline)
    kubectl.ok("apply", "-f", seed.folder / "k8s" / "production" / "deployment.yaml")
    with seed.users() as users:
        told = seed.forge("run", timeout=150)
        assert told.returncode == 0, told.stdout + told.stderr
        seed.change('{name: VERSION, value: "1.0.0"}', '{name: VERSION, value: "1.1.0"}')
        seed.change('{name: BAD, value: "0"}', '{name: BAD, value: "0.5"}')
        told = seed.forge("run", timeout=200)
        said = told.stdout + told.stderr
        assert told.returncode == 1, said
        assert "of requests fail, more than 5%" in said
        assert "Deployment/myapp-production is back at revision" in said
        users.until_all_are("1.0.0")
    # Connections that a plain Service cuts when pods are replaced are what kubectl's rolling update costs.
    assert {told for told in users.failed if told[0].isdigit()} <= {"500 1.1.0"}


def test_a_rollout_that_does_not_get_ready_says_why_and_goes_back_to_any_revision(seed, kubectl) -> None:
    kubectl.ok("apply", "-f", seed.folder / "k8s" / "production" / "deployment.yaml")
    kubectl.rolled_out("deployment/myapp-production")
    for version in ("1.1.0", "1.2.0"):
        kubectl.ok("set", "env", "deployment/myapp-production", f"VERSION={version}")
        kubectl.rolled_out("deployment/myapp-production")
    steps = [
        {"run": "kubectl patch deployment myapp-production -p "
                '\'{"spec":{"template":{"spec":{"containers":[{"name":"myapp","command":["sh","-c","exit 3"]}]}}}}\''},
        {"verify": {"workload": "Deployment/myapp-production", "timeout": "8s", "rollback": False}},
    ]  # fmt: skip
    undo = [{"rollback": {"workload": "Deployment/myapp-production", "to": 1}}]
    jobs = {"break": {"steps": steps, "on_failure": undo}}
    (seed.folder / "forge" / "pipeline.yaml").write_text(yaml.safe_dump({"jobs": jobs}, sort_keys=False))
    told = seed.forge("run", timeout=110)
    said = told.stdout + told.stderr
    assert told.returncode == 1, said
    assert "did not get ready" in said
    assert "exit" in said
    assert "is back at revision" in said
    live = kubectl.json("get", "deployment", "myapp-production")
    (container,) = live["spec"]["template"]["spec"]["containers"]
    assert {"name": "VERSION", "value": "1.0.0"} in container["env"]


def test_what_is_not_there_is_told(seed, kubectl) -> None:
    steps = [{"verify": {"workload": "Deployment/nothing", "timeout": "2s"}}]
    undo = [{"rollback": {"workload": "Deployment/nothing"}}]
    jobs = {"look": {"steps": steps, "on_failure": undo}}
    (seed.folder / "forge" / "pipeline.yaml").write_text(yaml.safe_dump({"jobs": jobs}, sort_keys=False))
    told = seed.forge("run", timeout=60)
    assert told.returncode == 1
    assert "has no Deployment nothing" in told.stdout + told.stderr
