"""A Prometheus next to the tests' cluster: it scrapes the pods that ask for it, labelled with their version."""

from __future__ import annotations

import json
import sys
import urllib.parse
import urllib.request

import pytest

from cluster.access import until
from cluster.prometheus import settings, targets_of

SERVICE = """
import http.server, os
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"# TYPE sold counter\\nsold_total 42\\n"
        self.send_response(200 if self.path == "/numbers" else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4"); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 9100), Metrics).serve_forever()
"""


def pod(annotations: dict[str, str], phase: str = "Running", ip: str | None = "10.70.1.2", ports=(8080,)) -> dict:
    """Return a pod as the API shows it."""
    return {
        "metadata": {
            "name": "shop-1",
            "namespace": "shop",
            "annotations": annotations,
            "labels": {"app": "shop", "forge.dev/version": "v1"},
        },
        "spec": {"containers": [{"name": "shop", "ports": [{"containerPort": port} for port in ports]}]},
        "status": {"phase": phase, **({"podIP": ip} if ip else {})},
    }


ASKS = {"prometheus.io/scrape": "true"}


def test_a_pod_that_asks_is_scraped_where_its_process_really_listens():
    (found,) = targets_of(pod(ASKS))
    assert found["targets"] == ["127.70.1.2:8080"]
    assert found["labels"] == {
        "namespace": "shop",
        "pod": "shop-1",
        "__metrics_path__": "/metrics",
        "forge_dev_version": "v1",
    }


def test_port_and_path_may_be_annotated():
    (found,) = targets_of(pod({**ASKS, "prometheus.io/port": "9100", "prometheus.io/path": "/numbers"}))
    assert found["targets"] == ["127.70.1.2:9100"]
    assert found["labels"]["__metrics_path__"] == "/numbers"


@pytest.mark.parametrize(
    "silent",
    [
        pod({}),
        pod({"prometheus.io/scrape": "false"}),
        pod(ASKS, phase="Pending"),
        pod(ASKS, phase="Failed"),
        pod(ASKS, ip=None),
        pod(ASKS, ports=()),
    ],
)
def test_a_pod_that_does_not_ask_or_cannot_answer_is_not_scraped(silent):
    assert targets_of(silent) == []


def test_the_targets_are_read_from_the_file(tmp_path):
    pods, other = settings(tmp_path / "targets.json", [{"job_name": "gateway"}])["scrape_configs"]
    assert pods["file_sd_configs"] == [{"files": [str(tmp_path / "targets.json")]}]
    assert other == {"job_name": "gateway"}


def ask(url: str, query: str) -> list[dict]:
    with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=5) as answer:
        return json.load(answer)["data"]["result"]


def test_what_a_pod_measures_can_be_queried_by_its_version(kubectl, namespace, pod_prometheus):
    container = {
        "name": "shop",
        "image": "registry.test/shop:v1",
        "command": [sys.executable, "-c", SERVICE],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }
    asks = {**ASKS, "prometheus.io/port": "9100", "prometheus.io/path": "/numbers"}
    for version, annotated in (("v1", asks), ("v2", {})):
        metadata = {"name": f"shop-{version}", "annotations": annotated, "labels": {"forge.dev/version": version}}
        kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
    (series,) = until(lambda: ask(pod_prometheus, "sold_total"), "a first scrape", 30)
    assert series["value"][1] == "42"
    assert (series["metric"]["forge_dev_version"], series["metric"]["namespace"]) == ("v1", namespace)
    assert series["metric"]["pod"] == "shop-v1"
