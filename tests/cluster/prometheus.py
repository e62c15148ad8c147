"""A Prometheus that scrapes the pods of a cluster which ask for it by the usual annotations.

`prometheus.io/scrape: "true"`, and if need be `prometheus.io/port` and `prometheus.io/path`. Each series gets the
labels `namespace`, `pod`, and every label of the pod that begins with `forge.dev/` (`forge_dev_version`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from cluster.access import Api, Refused, until
from cluster.node_addresses import loopback
from cluster.plane import LOOPBACK, ROOT, ControlPlane, free_ports

INTERVAL = 1
"""Seconds between two scrapes, and between two looks at which pods there are."""
PATIENCE = 30.0
"""Seconds until it serves."""


def start_prometheus(plane: ControlPlane) -> str:
    """Start one as a part of the control plane; return its URL when it serves. Raises Unavailable, PartDied."""
    spec = importlib.util.spec_from_file_location("obtain_prometheus", ROOT / "scripts" / "prometheus.py")
    assert spec
    assert spec.loader
    obtain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(obtain)
    folder = plane.folder / "prometheus"
    folder.mkdir(exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(json.dumps(settings(folder / "targets.json")))  # JSON is YAML
    Discovery(plane.api(), folder / "targets.json").start()
    where = f"{LOOPBACK}:{free_ports(1)[0]}"
    flags = (
        f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={where}",
        "--enable-feature=exemplar-storage",
    )  # fmt: skip
    plane.run("prometheus", [obtain.find(), *flags], {})
    until(lambda: plane.check() and serves(where), "Prometheus", PATIENCE)
    return f"http://{where}"


class Discovery(threading.Thread):
    """Keeps a file of targets up to date: Debian's Prometheus was built without its own discovery of pods."""

    def __init__(self, api: Api, file: Path) -> None:
        super().__init__(daemon=True, name="prometheus-discovery")
        self._api = api
        self._file = file
        file.write_text("[]")

    def run(self) -> None:
        """Look once a second, as long as the program lives."""
        known: object = []
        while True:
            with contextlib.suppress(Refused, OSError):
                targets = [one for pod in self._api("GET", "/api/v1/pods")["items"] for one in targets_of(pod)]
                if targets != known:
                    fresh = self._file.with_suffix(".new")
                    fresh.write_text(json.dumps(targets))
                    fresh.rename(self._file)
                    known = targets
            time.sleep(INTERVAL)


def targets_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what to scrape of a pod: nothing unless it runs and asks for it."""
    asked = pod["metadata"].get("annotations", {})
    address = pod["status"].get("podIP")
    if asked.get("prometheus.io/scrape") != "true" or not address or pod["status"].get("phase") != "Running":
        return []
    listed = [port["containerPort"] for one in pod["spec"]["containers"] for port in one.get("ports", [])]
    ports = [asked["prometheus.io/port"]] if "prometheus.io/port" in asked else listed[:1]
    labels = {
        "namespace": pod["metadata"]["namespace"],
        "pod": pod["metadata"]["name"],
        "__metrics_path__": asked.get("prometheus.io/path", "/metrics"),
    }
    for name, value in pod["metadata"].get("labels", {}).items():
        if name.startswith("forge.dev/"):
            labels[re.sub(r"\W", "_", name)] = value
    return [{"targets": [f"{loopback(address)}:{port}" for port in ports], "labels": labels}] if ports else []


def settings(targets: Path) -> dict[str, Any]:
    """Return a configuration that scrapes what the file says, every second."""
    scrape = {"job_name": "pods", "file_sd_configs": [{"files": [str(targets)]}]}
    every = f"{INTERVAL}s"
    return {"global": {"scrape_interval": every, "scrape_timeout": every}, "scrape_configs": [scrape]}


def serves(where: str) -> bool:
    """Whether it answers queries."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{where}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
