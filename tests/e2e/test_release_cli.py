"""Releases steered from the command line, in a real environment: processes, Envoy, and traffic that is counted."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

BY_HAND = """
            canary:
              steps: [{weight: 10%}, {pause: until_resumed}, {weight: 50%}, {pause: until_resumed}]
"""
BY_ITSELF = """
            canary:
              steps: [{weight: 20%}, {pause: 2s}, {weight: 60%}, {pause: 1s}]
"""
PIPELINE = """\
parameters:
  version: {{type: string, required: true}}
jobs:
  build:
    steps:
      - run: sed -i "s/^version = .*/version = \\"$VERSION\\"/" shop.toml
        env: {{VERSION: "${{{{ params.version }}}}"}}
      - run: make build && echo built >> {record}
      - publish: myapp.tar.gz
  release:
    depends_on: build
    steps:
      - deploy:
          environment: production
          artifact: myapp.tar.gz
          version: ${{{{ params.version }}}}
          strategy: {strategy}
          checks:
            - error_rate: {{above: 5%, over: 10s, minimum_requests: 20}}
          keep_previous: 60s
"""
ENVIRONMENTS = """\
production:
  target: {local: {command: python3 -m shop, replicas: 1, ready: /healthz, drain: 1s}}
"""


def _load() -> Any:
    """The demo's traffic is a script's module, not a package's."""
    spec = importlib.util.spec_from_file_location("demo_load", ROOT / "demo" / "load.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_load"] = module
    spec.loader.exec_module(module)
    return module.Load


class Production:
    """A shop in production at version 1, with traffic."""

    def __init__(self, folder: Path, forge: Any) -> None:
        self.folder = folder
        self.forge = forge
        self.record = folder.parent / "record"
        self.load: Any = None
        self._started: list[subprocess.Popen[str]] = []

    def begin(self) -> None:
        self.strategy("rolling")
        self.forge.ok("run", "--yes", "-p", "version=1")
        self.load = _load()(self.forge.json("env", "show", "production")["address"], rate=80, clients=8, longest=110)
        self.load.start()

    def strategy(self, text: str) -> None:
        (self.folder / "forge" / "pipeline.yaml").write_text(PIPELINE.format(record=self.record, strategy=text))

    def start(self, version: str) -> subprocess.Popen[str]:
        process = self.forge.start("run", "--yes", "-p", f"version={version}")
        self._started.append(process)
        return process

    def release(self) -> dict[str, Any]:
        releases = self.forge.json("env", "show", "production")["releases"]
        return max(releases, key=lambda one: one["created_at"])

    def until(self, version: str, state: str, weight: int | None = None, seconds: float = 30) -> dict[str, Any]:
        """Wait until the last release is of that version, in that state, and the proxy reports that weight."""
        end = time.monotonic() + seconds
        while True:
            last = self.release()
            there = last["version"] == version and last["state"] == state
            if there and (weight is None or last.get("actual_weight") == weight):
                return last
            assert time.monotonic() < end, f"{last} never became {state}"
            time.sleep(0.1)

    def answers(self, seconds: float = 1.0) -> set[str]:
        """Who answers the clients from now on."""
        time.sleep(0.2)
        before = self.load.tally()
        time.sleep(seconds)
        return set(self.load.tally().since(before).requests)

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        if self.load is not None:
            self.load.stop()
        self.forge("env", "down", "production", "--yes")


@pytest.fixture
def production(tmp_path, forge_in) -> Iterator[Production]:
    folder = tmp_path / "shop"
    shutil.copytree(ROOT / "examples" / "shop", folder, ignore=shutil.ignore_patterns(".forge", "__pycache__"))
    (folder / "forge" / "environments.yaml").write_text(ENVIRONMENTS)
    made = Production(folder, forge_in(folder))
    try:
        made.begin()
        yield made
    finally:
        made.end()


def test_pause_resume_promote_and_undo(production):
    production.strategy(BY_HAND)
    run = production.start("2")
    paused = production.until("2", "paused", 1000)
    assert paused["waits_for"]
    assert production.answers() == {"1", "2"}
    production.forge.ok("release", "resume", "production", "--no-wait")
    production.until("2", "paused", 5000)
    production.forge.ok("release", "promote", "production")
    assert run.wait(timeout=30) == 0
    production.until("2", "promoted")
    assert production.answers() == {"2"}

    production.forge.ok("release", "undo", "production")
    assert production.answers() == {"1"}
    assert production.load.tally().failed.total() == 0


def test_abort_gives_everything_back_to_stable_and_fails_the_run(production):
    production.strategy(BY_HAND)
    run = production.start("2")
    production.until("2", "paused", 1000)
    production.forge.ok("release", "abort", "production", code=3)
    assert run.wait(timeout=30) != 0
    assert production.release()["state"] == "aborted"
    assert production.answers() == {"1"}
    assert production.load.tally().failed.total() == 0


def test_rollback_goes_to_any_version_that_was_stable(production):
    production.strategy("blue_green")
    for version in ("2", "3"):
        production.forge.ok("run", "--yes", "-p", f"version={version}")
        production.until(version, "promoted")
    assert production.answers() == {"3"}
    production.forge.ok("rollback", "production", "--to", "1")
    assert production.answers() == {"1"}
    assert production.forge("rollback", "production", "--to", "7").returncode == 2
    assert production.load.tally().failed.total() == 0


def test_kill_in_the_middle_of_a_canary_and_resume_ends_the_same(production):
    production.strategy(BY_ITSELF)
    run = production.start("2")
    production.until("2", "progressing", 2000)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert production.answers() == {"1", "2"}, "the environment goes on as it is without Forge"
    production.forge.ok("resume")
    assert production.release()["state"] == "promoted"
    assert production.answers() == {"2"}
    assert production.forge.json("runs")[0]["state"] == "succeeded"
    assert production.record.read_text().split() == ["built", "built"], "what had finished is not run again"
    assert production.load.tally().failed.total() == 0


def test_a_bad_version_goes_back_by_itself_and_the_run_says_why(production):
    settings = production.folder / "shop.toml"
    settings.write_text(settings.read_text().replace("fault_rate = 0.0", "fault_rate = 0.5"))
    production.strategy(BY_ITSELF)
    done = production.forge("run", "--yes", "-p", "version=2")
    assert done.returncode == 1, done.stderr
    last = production.release()
    assert last["state"] == "rolled_back"
    assert "failed requests so far" in last["reason"] or "requests failed" in last["reason"]
    assert last["reason"] in done.stdout + done.stderr
    assert last["failed_requests"] > 0
    assert production.answers() == {"1"}
    assert set(filter(production.load.tally().failed.get, production.load.tally().failed)) == {"2"}
