"""A Prometheus that scrapes the pods of a cluster which ask for it by the usual annotations.

`prometheus.io/scrape: "true"`, and if need be `prometheus.io/port` and `prometheus.io/path`. Each series gets the
labels `namespace`, `pod`, and every label of the pod that begins with `forge.dev/` (`forge_dev_version`).
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.access import Api, Refused, until
from cluster.gateway_prometheus import gateway_jobs
from cluster.node_addresses import loopback
from cluster.plane import LOOPBACK, free_ports, script

INTERVAL = 1
"""Seconds between two scrapes, and between two looks at which pods there are."""
PATIENCE = 30.0
"""Seconds until it serves."""


class NoPrometheus(Exception):
    """There is none to be had on this machine; the message says why."""


class PodScraper:
    """A Prometheus for the pods of one namespace, or of all; `folder` is its alone. Start it with `words`."""

    def __init__(self, api: Api, folder: Path, namespace: str | None = None) -> None:
        where = f"{LOOPBACK}:{free_ports(1)[0]}"
        self.url = f"http://{where}"
        self.discovery = Discovery(api, folder / "targets.json", namespace)
        config = folder / "prometheus.yml"
        config.write_text(json.dumps(settings(folder / "targets.json", gateway_jobs(api, namespace))))  # JSON is YAML
        self.words = [
            obtain(), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={where}", "--enable-feature=exemplar-storage",
        ]  # fmt: skip

    def ready(self, process_runs: Callable[[], bool]) -> str:
        """Return its URL when it serves. Raises TimeoutError, and what `process_runs` raises."""
        until(lambda: process_runs() and serves(self.url), "Prometheus", PATIENCE)
        self.discovery.start()
        return self.url


def obtain() -> str:
    """Return the program, which may have to be fetched. Raises NoPrometheus."""
    module = script("prometheus")
    try:
        return str(module.find())
    except module.Unavailable as problem:
        raise NoPrometheus(str(problem)) from None


class Discovery(threading.Thread):
    """Keeps a file of targets up to date: Debian's Prometheus was built without its own discovery of pods."""

    def __init__(self, api: Api, file: Path, namespace: str | None = None) -> None:
        super().__init__(daemon=True, name="prometheus-discovery")
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
        self._ended = threading.Event()
        self._file = file
        file.write_text("[]")

    def run(self) -> None:
        """Look once a second until told to end."""
        known: object = []
        while not self._ended.wait(INTERVAL):
            with contextlib.suppress(Refused, OSError):
                targets = [one for pod in self._api("GET", self._path)["items"] for one in targets_of(pod)]
                if targets != known:
                    fresh = self._file.with_suffix(".new")
                    fresh.write_text(json.dumps(targets))
                    fresh.rename(self._file)
                    known = targets

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        if self.is_alive():
            self.join(PATIENCE)


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


def settings(targets: Path, others: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a configuration that scrapes what the file says, and what else there is, every second."""
    scrape = {"job_name": "pods", "file_sd_configs": [{"files": [str(targets)]}]}
    every = f"{INTERVAL}s"
    return {"global": {"scrape_interval": every, "scrape_timeout": every}, "scrape_configs": [scrape, *others]}


def serves(url: str) -> bool:
    """Whether a Prometheus answers there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url if '//' in url else f'http://{url}'}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
