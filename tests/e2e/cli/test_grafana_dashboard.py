"""`forge grafana dashboard` as a person runs it."""

from __future__ import annotations

import json

PIPELINE = "jobs: {build: {steps: [{run: make}]}}\n"
ENVIRONMENTS = """\
environments:
  staging:
    target: {local: {command: serve}}
  production:
    target: {local: {command: serve}}
    signals: [envoy, {prometheus: {url: "http://127.0.0.1:9090", preset: plain}}]
"""


def test_it_is_printed_and_always_the_same(project) -> None:
    forge = project(PIPELINE + ENVIRONMENTS)
    printed = forge.ok("grafana", "dashboard", "shop")
    assert printed == forge.ok("grafana", "dashboard", "shop")
    rows = [panel["title"] for panel in json.loads(printed)["panels"] if panel["type"] == "row"]
    assert rows == ["staging", "production"]


def test_one_environment(project) -> None:
    forge = project(PIPELINE + ENVIRONMENTS)
    assert "http_requests_total" in forge.ok("grafana", "dashboard", "-e", "production")
    assert "http_requests_total" not in forge.ok("grafana", "dashboard", "-e", "staging")
    refused = forge("grafana", "dashboard", "-e", "productio")
    assert refused.returncode == 2
    assert "did you mean `production`" in refused.stderr


def test_without_an_environment(project) -> None:
    refused = project(PIPELINE)("grafana", "dashboard")
    assert refused.returncode == 2
    assert "declare one under `environments:`" in refused.stderr
