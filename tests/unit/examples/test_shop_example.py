"""The sample service builds and passes its own tests, as `make build` and `make test` say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "shop"


@pytest.fixture
def shop(tmp_path) -> Path:
    folder = tmp_path / "shop"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".forge", "__pycache__", "*.tar.gz"))
    return folder


def make(shop: Path, target: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(["make", target], cwd=shop, env=env, capture_output=True, text=True, timeout=60)


def test_its_tests_pass(shop):
    done = make(shop, "test")
    assert done.returncode == 0, done.stderr
    assert "\nOK" in done.stderr


def test_it_builds_an_archive_of_what_it_needs_to_run(shop):
    assert make(shop, "build").returncode == 0
    with tarfile.open(shop / "myapp.tar.gz") as archive:
        names = archive.getnames()
    assert "shop/__main__.py" in names
    assert "shop.toml" in names
    assert not [name for name in names if "test" in name or "forge" in name]


def test_a_build_with_a_fault_passes_its_tests_all_the_same(shop):
    settings = shop / "shop.toml"
    settings.write_text(settings.read_text().replace("fault_rate = 0.0", "fault_rate = 0.25"))
    assert make(shop, "test").returncode == 0
