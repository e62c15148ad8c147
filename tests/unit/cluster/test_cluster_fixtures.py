"""What the tests' fixtures do on a machine that can have no cluster, and with one that was named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
A_TEST = """
def test_needs_a_cluster(cluster):
    raise AssertionError("it ran")

def test_needs_none():
    pass
"""


@pytest.fixture
def run(tmp_path):
    """Run two tests, one of which needs a cluster, where there is neither `go` nor a program built earlier."""
    (tmp_path / "test_some.py").write_text(A_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    kubernetes: needs a cluster\n")
    (tmp_path / "bin").mkdir()

    def ran(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "FORGE_", "KUBE"))}
        own |= {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "CI": "", **environment}
        own |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT / "tests")}
        command = [sys.executable, "-m", "pytest", "-ra", "-p", "cluster.fixtures", "-p", "no:cacheprovider", *words]
        return subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return ran


def test_a_machine_without_a_control_plane_says_why_in_one_line_and_runs_the_rest(run):
    done = run("-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert "no Kubernetes control plane: KUBEBUILDER_ASSETS names none, and there is no `go` to build one" in line


def test_in_ci_they_have_to_run(run):
    done = run("-q", CI="true")
    assert done.returncode == 1
    assert "1 passed, 1 error" in done.stdout
    assert "there is no `go` to build one" in done.stdout


def test_what_needs_a_cluster_can_be_left_out(run):
    done = run("-q", "-m", "not kubernetes", CI="true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 deselected" in done.stdout


def test_a_named_cluster_that_is_not_there_is_an_error_and_no_skip(run, tmp_path):
    done = run("-q", FORGE_TEST_KUBECONFIG=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert f"FORGE_TEST_KUBECONFIG names no file: {tmp_path / 'nowhere'}" in done.stdout
