"""Pruned from the command line; a rollback still works when the environment has to fetch its artifact anew."""

from __future__ import annotations

import os
import shutil
import sys
import time

import pytest

PIPELINE = """\
parameters:
  v: {default: "1"}
jobs:
  release:
    steps:
      - run: echo "version ${V}" > index.html
        env: {V: "${{ params.v }}"}
      - publish: index.html
      - deploy:
          environment: production
          version: ${{ params.v }}
          artifact: index.html
          strategy: {rolling: {keep_previous: 0s}}
"""
ENVIRONMENTS = f"""\
production:
  target:
    local:
      command: {sys.executable} -u -m http.server --bind 127.0.0.1 $PORT
      replicas: 1
      drain: 0.2s
"""


@pytest.fixture
def forge(project):
    made = project(PIPELINE)
    (made.folder / "forge" / "environments.yaml").write_text(ENVIRONMENTS)
    yield made
    made("env", "down", "production", "--yes", "--force")


def test_what_is_left_is_enough_for_a_rollback(forge):
    stored = forge.folder / ".forge" / "artifacts"
    for version in ("1", "2", "3"):
        (forge.folder / "note").write_text(version)  # so that each run has a source of its own
        forge.ok("run", "-p", f"v={version}")
    old = time.time() - 7200
    for file in stored.glob("??/*"):
        os.utime(file, (old, old))
    assert len(list(stored.glob("??/*"))) == 6

    told = forge("artifacts", "prune", "--keep", "1", "--dry-run")
    assert told.returncode == 0
    assert "would delete 2 artifacts and snapshots" in told.stderr
    assert len(list(stored.glob("??/*"))) == 6
    done = forge("artifacts", "prune", "--keep", "1")
    assert done.stdout == told.stdout
    assert "deleted 2 artifacts and snapshots" in done.stderr
    assert "4 are needed" in done.stderr
    assert len(list(stored.glob("??/*"))) == 4

    shutil.rmtree(forge.folder / ".forge" / "environments" / "production" / "artifacts")
    forge.ok("rollback", "production", "--to", "1")
    assert forge.json("env", "show", "production")["stable"] == "1"


def test_what_was_pruned_is_told_when_it_is_asked_for(forge):
    (forge.folder / "forge" / "pipeline.yaml").write_text(PIPELINE.partition("      - deploy:")[0])
    for version in ("1", "2"):
        forge.ok("run", "-p", f"v={version}")
    old = time.time() - 7200
    for file in (forge.folder / ".forge" / "artifacts").glob("??/*"):
        os.utime(file, (old, old))
    forge.ok("artifacts", "prune", "--keep", "1")
    gone = forge("artifacts", "get", "run-1", "index.html", "--to", "elsewhere")
    assert gone.returncode == 2
    assert "index.html of run-1 is not stored any more" in gone.stderr
    assert "it was pruned" in gone.stderr
    forge.ok("artifacts", "get", "run-2", "index.html", "--to", "elsewhere")
