"""examples/kubernetes/canary, as it is, on a real cluster: only its pauses and addresses are shorter here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from cluster.gateway import FrontDoors
from cluster.releases import Users

EXAMPLES = Path(__file__).parents[2] / "examples" / "kubernetes"


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_native_canary(tmp_path, cluster, namespace, kubectl, pod_prometheus, forge_command) -> None:
    folder = tmp_path / "canary"
    shutil.copytree(EXAMPLES / "canary", folder)
    shutil.copy(EXAMPLES / "seed" / "myapp.py", folder / "myapp.py")
    manifest = folder / "k8s" / "myapp.yaml"
    manifest.write_text(manifest.read_text().replace("/srv/myapp", str(folder)))
    pipeline = folder / "forge" / "pipeline.yaml"
    text = pipeline.read_text().replace("http://prometheus:9090", pod_prometheus).replace("pause: 10m", "pause: 3s")
    pipeline.write_text(text.replace("manifests: k8s", f"manifests: k8s\n        namespace: {namespace}"))
    listener = {"name": "http", "port": 8080, "protocol": "HTTP"}
    kubectl.apply({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "public"},
        "spec": {"gatewayClassName": "forge-test", "listeners": [listener]},
    })  # fmt: skip
    forge = forge_command(folder, {"KUBECONFIG": str(cluster.kubeconfig)})
    forge.ok("lint")
    forge.ok("run", "-p", "version=1.0.0")
    address = FrontDoors(lambda path: cluster.api("GET", path)).gateway(namespace, "public")
    with Users(address, "myapp.example") as users:
        manifest.write_text(manifest.read_text().replace('value: "1.0.0"', 'value: "1.1.0"'))
        forge.ok("run", "-p", "version=1.1.0", timeout=150)
        users.until_all_are("1.1.0")
        bad = (
            manifest.read_text()
            .replace('value: "1.1.0"', 'value: "1.2.0"')
            .replace('{name: BAD, value: "0"}', '{name: BAD, value: "0.5"}')
        )
        manifest.write_text(bad)
        assert forge("run", "-p", "version=1.2.0", timeout=150).returncode == 1
        users.until_all_are("1.1.0")
    assert set(users.failed) <= {"500 1.2.0"}
    images = [
        item["spec"]["template"]["spec"]["containers"][0]["image"]
        for item in kubectl.json("get", "deployments")["items"]
    ]
    assert "registry.example/myapp:1.1.0" in images
    assert "registry.example/myapp:1.2.0" not in images
    route = yaml.safe_load(kubectl.ok("get", "httproute", "myapp", "-o", "yaml"))
    assert [each["weight"] for each in route["spec"]["rules"][0]["backendRefs"]] == [10_000]
