"""An environment looked at, taken down and brought up again from the command line."""

from __future__ import annotations

import shutil
import sys
import urllib.error
import urllib.request

import pytest

PIPELINE = """\
jobs:
  release:
    steps:
      - id: shop
        deploy:
          environment: production
          version: "1"
          strategy: rolling
      - run: |
          "$PYTHON" -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).status)' "$ADDRESS"
          test "$VERSION of $RELEASE" = "1 of production-1"
        env:
          PYTHON: PYTHON_HERE
          ADDRESS: ${{ steps.shop.outputs.address }}
          VERSION: ${{ steps.shop.outputs.version }}
          RELEASE: ${{ steps.shop.outputs.release }}
""".replace("PYTHON_HERE", sys.executable)
ENVIRONMENTS = f"""\
production:
  target:
    local:
      command: {sys.executable} -u -m http.server --bind 127.0.0.1 $PORT
      replicas: 1
      ready: {{tcp: true}}
      drain: 0.2s
"""


@pytest.fixture
def forge(project):
    made = project(PIPELINE)
    (made.folder / "forge" / "environments.yaml").write_text(ENVIRONMENTS)
    yield made
    made("env", "down", "production", "--yes")


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def test_down_and_up_again(forge):
    forge.ok("run")
    shown = forge.json("env", "show", "production")
    assert (shown["state"], shown["stable"], shown["arms"][0]["replicas"]["ready"]) == ("stable", "1", 1)
    assert shown["arms"][0]["actual_weight"] == 10_000
    assert answers(shown["address"])
    assert "1/1: " in forge.ok("env", "logs", "production")
    assert forge.ok("env", "logs", "production", "9") == ""

    got = forge.ok("release", "get", "production")
    assert "✔ promoted" in got
    assert forge.json("release", "get", "production")["releases"][0]["id"] == "production-1"
    assert forge("release", "watch", "production").returncode == 0
    refused = forge("rollback", "production")
    assert (refused.returncode, refused.stderr) == (2, "error: production has no version before 1\n")
    assert "no release is under way" in forge("release", "pause", "production").stderr

    forge.ok("env", "down", "production")
    assert not answers(shown["address"])
    down = forge.json("env", "show", "production")
    assert "forge env up production" in down["problem"]
    assert down["stable"] == "1", "what was released stays on record"

    forge.ok("env", "up", "production")
    again = forge.json("env", "show", "production")
    assert (again["address"], again["problem"]) == (shown["address"], "")
    assert answers(again["address"])


def test_down_while_a_release_is_under_way(forge):
    forge.ok("run")
    canary = PIPELINE.replace('version: "1"', 'version: "2"\n          wait: false').replace(
        "strategy: rolling", "strategy: {canary: {steps: [{weight: 10%}, {pause: until_resumed}]}}"
    )
    forge.folder.joinpath("forge", "pipeline.yaml").write_text(canary.partition("      - run:")[0])
    forge.ok("run")
    refused = forge("env", "down", "production")
    assert refused.returncode == 2
    assert "production-2 is under way in production" in refused.stderr
    assert "forge env down production --force" in refused.stderr
    assert forge.json("env", "show", "production")["state"] != "stable", "a refusal changes nothing"

    forge.ok("env", "down", "production", "--force")
    down = forge.json("env", "show", "production")
    assert "forge env up production" in down["problem"]
    assert down["stable"] == "1"
    assert forge.json("release", "get", "production")["releases"][0]["state"] == "aborted"
    forge.ok("env", "down", "production", "--force")  # at rest it is a `down` like any other


def test_an_environment_that_another_database_worked_on_says_what_to_do(forge):
    pipeline = forge.folder / "forge" / "pipeline.yaml"
    pipeline.write_text(
        PIPELINE.partition("      - run:")[0].replace(
            "strategy: rolling", "strategy: {rolling: {progress_deadline: 2s}}"
        )
    )
    forge.ok("run")
    forge.ok("env", "down", "production")  # each takes the environment over once more: its fencing token grows
    forge.ok("env", "up", "production")
    for file in (forge.folder / ".forge").glob("forge.db*"):
        file.unlink()
    pipeline.write_text(pipeline.read_text().replace('version: "1"', 'version: "2"'))
    refused = forge("run")
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert "is stale" in said
    assert "with another database" in said
    assert "forge env down production --force" in said

    forge.ok("env", "down", "production", "--force")
    shutil.rmtree(forge.folder / ".forge" / "environments" / "production")
    forge.ok("run")
    assert forge.json("env", "show", "production")["stable"] == "2"
