"""`scripts/controlplane.py`: the programs that were named, those built earlier, or a build with its reasons."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "controlplane.py"
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
GO = """#!/bin/sh
echo "$@ CGO=$CGO_ENABLED" >> {calls}
echo 'go: downloading k8s.io/api v0.9.1' >&2
echo 'k8s.io/api/core/v1' >&2
{more}
while [ "$1" != -o ]; do shift; done
sleep {seconds}
echo program > "$2"
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with sources, a cache of its own, and neither `go` nor named programs."""
    for name, text in {
        "go.mod": "module x\nrequire (\n\tk8s.io/kubernetes v1.9.1\n)\n",
        "go.sum": "sums\n",
        "main.go": "package main\n",
    }.items():
        path = tmp_path / "tests" / "controlplane" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts" / "controlplane.py")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), "/usr/bin", "/bin"]))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    if shutil.which("go"):
        monkeypatch.setenv("PATH", str(only_these(tmp_path, "sh", "sleep", "echo")))
    return tmp_path


def only_these(folder: Path, *names: str) -> Path:
    there = folder / "bin"
    there.mkdir(exist_ok=True)
    for name in names:
        (there / name).symlink_to(shutil.which(name) or name)
    return there


def module(project: Path):
    spec = importlib.util.spec_from_file_location("controlplane_under_test", project / "scripts" / "controlplane.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def with_go(project: Path, *, more: str = "", seconds: float = 0) -> Path:
    """Put a `go` on the PATH that notes how it was called."""
    calls = project / "calls"
    program = project / "bin" / "go"
    program.parent.mkdir(exist_ok=True)
    program.write_text(GO.format(calls=calls, more=more, seconds=seconds))
    program.chmod(0o755)
    return calls


def call(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = str(project / "scripts" / "controlplane.py")
    return subprocess.run([sys.executable, script, *words], capture_output=True, text=True, timeout=30)


def test_named_programs_come_first(project, monkeypatch):
    calls = with_go(project)
    for part in PARTS:
        program = project / "assets" / part
        program.parent.mkdir(exist_ok=True)
        program.write_text("")
        program.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(project / "assets"))
    assert module(project).find() == {part: [str(project / "assets" / part)] for part in PARTS}
    assert not calls.exists()


def test_a_folder_without_every_part_is_told_and_not_used(project, monkeypatch, capsys):
    with_go(project)
    (project / "assets").mkdir()
    for part in PARTS[:2]:
        (project / "assets" / part).write_text("")
        (project / "assets" / part).chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(project / "assets"))
    found = module(project).find()
    assert found["etcd"][0].startswith(str(project / "cache"))
    assert "has no kube-controller-manager, kube-scheduler: not using it" in capsys.readouterr().err


def test_builds_once_and_outside_the_repository(project, capsys):
    calls = with_go(project)
    loaded = module(project)
    found = loaded.find()
    (program,) = {words[0] for words in found.values()}
    assert {part: words[1] for part, words in found.items()} == {part: part for part in PARTS}
    assert Path(program).parent == project / "cache" / "forge-tests"
    assert Path(program).name.startswith("controlplane-v1.9.1-")
    assert loaded.find() == found
    (line,) = calls.read_text().splitlines()
    assert "version.gitVersion=v1.9.1" in line
    assert "version.gitMinor=9" in line
    assert line.endswith("CGO=0")
    said = capsys.readouterr().err
    assert "building a Kubernetes v1.9.1 control plane" in said
    assert f"built in 0 s: {program}" in said


def test_what_was_built_needs_no_go_any_more(project):
    with_go(project)
    found = module(project).find()
    (project / "bin" / "go").unlink()
    assert module(project).find() == found


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go"])
def test_other_sources_are_another_program(project, file):
    before = module(project).fingerprint()
    path = project / "tests" / "controlplane" / file
    path.write_text(path.read_text() + "// more\n")
    assert module(project).fingerprint() != before


def test_without_go_there_is_a_reason_in_one_line(project):
    done = call(project)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "forge: no Kubernetes control plane: KUBEBUILDER_ASSETS names none, and there is no `go` to build one\n"
    )


def test_make_goes_on_without_one(project):
    done = call(project, "--if-possible")
    assert done.returncode == 0
    assert "no Kubernetes control plane" in done.stderr


def test_a_failed_build_gives_its_last_words_and_leaves_nothing(project):
    with_go(project, more="echo 'main.go:3:1: it does not compile, says go' >&2; exit 2")
    done = call(project)
    assert done.returncode == 1
    assert "`go build` failed: main.go:3:1: it does not compile, says go" in done.stderr
    assert [one.name for one in (project / "cache" / "forge-tests").iterdir()] == ["build.lock"]


def test_a_build_that_takes_too_long_is_ended(project):
    with_go(project, more="exec sleep 30")
    loaded = module(project)
    loaded.PATIENCE = 0.3
    began = time.monotonic()
    with pytest.raises(loaded.Unavailable, match="`go build` failed"):
        loaded.find()
    assert time.monotonic() - began < 10


def test_progress_is_told_now_and_then(project, capsys):
    with_go(project)
    loaded = module(project)
    loaded.TELL_EVERY = 0
    loaded.find()
    assert "1 modules fetched, 1 packages compiled" in capsys.readouterr().err


def test_two_at_once_build_once(project, capsys):
    calls = with_go(project, seconds=0.5)
    loaded = module(project)
    both = [threading.Thread(target=loaded.find) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(20)
    assert len(calls.read_text().splitlines()) == 1
    assert "waiting for another build" in capsys.readouterr().err


def test_programs_that_nobody_used_for_long_go(project):
    with_go(project)
    cache = project / "cache" / "forge-tests"
    cache.mkdir(parents=True)
    for name, age in {"controlplane-v1.1.1-old": 40, "controlplane-v1.8.0-recent": 3, "something-else": 99}.items():
        (cache / name).write_text("")
        os.utime(cache / name, (time.time() - age * 86400,) * 2)
    program = Path(module(project).find()["etcd"][0])
    left = {one.name for one in cache.iterdir()}
    assert left == {"build.lock", "controlplane-v1.8.0-recent", "something-else", program.name}


def test_the_real_sources_pin_every_staging_module_to_one_version():
    lines = (SCRIPT.parents[1] / "tests" / "controlplane" / "go.mod").read_text().splitlines()
    pinned = {line.split("=> ")[1].split()[1] for line in lines if "=> k8s.io/" in line}
    (wanted,) = [line.split()[1] for line in lines if line.strip().startswith("k8s.io/kubernetes ")]
    assert pinned == {wanted.replace("v1.", "v0.")}


def test_is_written_in_words_that_old_pythons_read():
    import ast

    ast.parse(SCRIPT.read_text(), feature_version=(3, 7))
