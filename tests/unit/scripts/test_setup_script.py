"""`scripts/setup.py`: at once when nothing changed, anew when something did, and clear about what is missing."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "setup.py"


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts" / "setup.py")
    (tmp_path / "requirements.lock").write_text("a==1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return tmp_path


def module(project: Path):
    spec = importlib.util.spec_from_file_location("setup_under_test", project / "scripts" / "setup.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def call(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(project / "scripts" / "setup.py")], capture_output=True, text=True)


def test_does_nothing_when_nothing_changed(project):
    (project / ".venv").mkdir()
    (project / ".venv" / ".installed").write_text(module(project).fingerprint())
    done = call(project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (project / ".venv" / "bin").exists()


@pytest.mark.parametrize("file", ["requirements.lock", "pyproject.toml"])
def test_a_changed_file_means_installing_again(project, file):
    before = module(project).fingerprint()
    (project / file).write_text("something else\n")
    assert module(project).fingerprint() != before


def test_a_moved_folder_means_installing_again(project, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "forge"
    shutil.copytree(project, moved)
    assert module(moved).fingerprint() != module(project).fingerprint()


def test_a_failed_installation_is_tried_again_next_time(project):
    loaded = module(project)
    loaded.create = lambda: ["false"]
    assert loaded.main() == 1
    assert not (project / ".venv" / ".installed").exists()


def test_a_python_that_is_too_old_is_told_so(project):
    script = project / "scripts" / "setup.py"
    script.write_text(script.read_text().replace("NEEDED = (3, 11)", "NEEDED = (3, 99)"))
    done = call(project)
    assert done.returncode == 1
    assert "Forge needs Python 3.99 or newer" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_is_written_in_words_that_old_pythons_read():
    import ast

    ast.parse(SCRIPT.read_text(), feature_version=(3, 7))
