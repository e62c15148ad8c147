"""A18: a release changes the configuration and the artifact; whichever way it goes back, both are the old ones.

All of it is real: the `forge` command, processes, Envoy, artifacts. The file with the configuration keeps its new
content all the while, so that only the record of the version can give the old one back.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_environment import forge_in

__all__ = ["forge_in"]

SERVICE = """\
import http.server, json, os
from pathlib import Path

BUILD = json.loads(Path("build.json").read_text())

class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        failing = os.environ["MODE"] == "broken" and self.path != "/ready"
        body = json.dumps({**BUILD, "mode": os.environ["MODE"], "only_old": os.environ.get("ONLY_OLD", "")}).encode()
        self.send_response(500 if failing else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Service).serve_forever()
"""
PIPELINE = """\
parameters:
  version: {type: string, required: true}
jobs:
  release:
    steps:
      - run: mkdir out && cp service.py out/ && echo "{\\"build\\":\\"$VERSION\\"}" > out/build.json
        env: {VERSION: "${{ params.version }}"}
      - publish: {artefact: service.tar.gz, path: out}
      - deploy:
          environment: production
          artifact: service.tar.gz
          version: ${{ params.version }}
          strategy:
            canary:
              steps: [{weight: 50%}, {pause: PAUSE}]
          checks:
            - error_rate: {above: 5%, over: 10s, minimum_requests: 20}
          keep_previous: 0s
"""
OLD = {"MODE": "old", "ONLY_OLD": "yes"}


class Production:
    """A project in a folder, released to once with the old configuration."""

    def __init__(self, folder: Path, forge_in: Any) -> None:
        self.folder = folder
        (folder / "forge").mkdir(parents=True)
        (folder / "service.py").write_text(SERVICE)
        self.forge = forge_in(folder)
        self.pause("0s")
        self.configure(OLD)
        self.forge.ok("run", "--yes", "-p", "version=1")
        self.address = self.forge.json("env", "show", "production")["address"]

    def configure(self, env: dict[str, str]) -> None:
        """Write the environment's configuration."""
        local = {"command": "python3 service.py", "replicas": 1, "ready": "/ready", "drain": "0s", "env": env}
        text = {"production": {"target": {"local": local}, "judge": "threshold"}}
        (self.folder / "forge" / "environments.yaml").write_text(json.dumps(text))

    def pause(self, seconds: str) -> None:
        """Write the pipeline with this pause at half of the traffic."""
        (self.folder / "forge" / "pipeline.yaml").write_text(PIPELINE.replace("PAUSE", seconds))

    def ask(self) -> dict[str, str]:
        try:
            with urllib.request.urlopen(self.address, timeout=10) as reply:
                return {"code": str(reply.status), **json.load(reply)}
        except urllib.error.HTTPError as error:
            with error:
                return {"code": str(error.code), **json.load(error)}

    def release(self, version: str) -> set[str]:
        """Release a version while users ask; return which codes they got."""
        run = self.forge.start("run", "--yes", "-p", f"version={version}")
        codes, end = set(), time.monotonic() + 60
        try:
            while run.poll() is None:
                assert time.monotonic() < end
                codes.add(self.ask()["code"])
                time.sleep(0.01)
        finally:
            run.kill()
            run.communicate()
        return codes

    def answers(self) -> list[dict[str, str]]:
        """Twenty answers, each kind once."""
        found = [self.ask() for _ in range(20)]
        return [each for index, each in enumerate(found) if each not in found[:index]]


@pytest.fixture
def production(tmp_path: Path, forge_in: Any) -> Iterator[Production]:
    made = Production(tmp_path / "project", forge_in)
    try:
        yield made
    finally:
        made.forge("env", "down", "production", "--yes")


AS_BEFORE = [{"code": "200", "build": "1", "mode": "old", "only_old": "yes"}]


def test_a18_a_promoted_release_rolled_back_brings_back_artifact_and_configuration(production: Production) -> None:
    assert production.answers() == AS_BEFORE
    production.configure({"MODE": "new"})
    assert production.release("2") == {"200"}
    assert production.answers() == [{"code": "200", "build": "2", "mode": "new", "only_old": ""}]
    (production.folder / "service.py").unlink()  # nothing but the record is left to go back by
    production.forge.ok("rollback", "production")
    assert production.answers() == AS_BEFORE


def test_a18_a_canary_that_fails_by_its_configuration_leaves_both_as_they_were(production: Production) -> None:
    production.configure({"MODE": "broken"})
    production.pause("60s")
    assert production.release("2") == {"200", "500"}, "the canary with the new configuration had traffic"
    releases = production.forge.json("env", "show", "production")["releases"]
    assert [each["state"] for each in releases if each["version"] == "2"] == ["rolled_back"]
    assert production.answers() == AS_BEFORE
