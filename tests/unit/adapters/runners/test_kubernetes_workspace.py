"""A workspace on its way to a pod and back, with the pod's side played by real `sh` and `tar` on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.streams import Executed
from forge.adapters.runners import kubernetes_workspace
from forge.adapters.runners.base import StepFiles
from forge.adapters.runners.kubernetes_objects import TAKEN, Places
from forge.adapters.runners.kubernetes_workspace import WorkspaceCarrier
from forge.model.configs import KubernetesAccess
from forge.model.errors import DependencyFailed


class Pod:
    """Runs what is executed in it, with the folders of a pod below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace = root / "workspace"
        self.workspace.mkdir(parents=True)
        (root / "forge" / "taken").mkdir(parents=True)
        self.containers: list[str] = []
        self.breaks = False

    async def execute(
        self, _cluster: Cluster, _pod: str, container: str, command: list[str], *, stdin: Iterator[bytes] | None = None,
        stdout: Any = None, timeout: float,
    ) -> Executed:  # fmt: skip
        self.containers.append(container)
        assert timeout > 60
        words = [word.replace(TAKEN, str(self.root / "forge" / "taken")) for word in command]
        given = b"".join(stdin) if stdin is not None else b""
        done = subprocess.run(words, input=given, capture_output=True, check=False, timeout=30)  # noqa: ASYNC221
        if stdout is not None:
            stdout(done.stdout[:100] if self.breaks else done.stdout)
        return Executed(done.returncode, done.stderr.decode())


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    made = Pod(tmp_path / "pod")
    monkeypatch.setattr(kubernetes_workspace, "execute", made.execute)
    return made


@pytest.fixture
def carrier(tmp_path: Path, pod: Pod) -> WorkspaceCarrier:
    workspace = tmp_path / "1" / "workspace"
    private = tmp_path / "1" / "workspace.private"
    for folder in (workspace, private):
        folder.mkdir(parents=True)
    files = StepFiles(workspace, (), (private / "step.outputs",))
    return WorkspaceCarrier(Cluster(KubernetesAccess()), files, Places(workspace, str(pod.workspace)), private)


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


async def test_there_and_back(carrier: WorkspaceCarrier, pod: Pod, tmp_path: Path) -> None:
    workspace = tmp_path / "1" / "workspace"
    (workspace / "src").mkdir()
    (workspace / "src" / "a b.txt").write_text("a")
    (workspace / "tool").write_text("#!/bin/sh\n")
    (workspace / "tool").chmod(0o755)
    (workspace / "gone").write_text("gone")
    (workspace / "link").symlink_to("src/a b.txt")
    (workspace / "outside").symlink_to("/etc/hostname")
    sent = await carrier.deliver("p")
    assert sent > 0
    assert tree(pod.workspace) == tree(workspace)
    assert (pod.workspace / "tool").stat().st_mode & 0o100
    assert (pod.root / "forge" / "taken" / ".delivered").exists()

    (pod.workspace / "gone").unlink()
    (pod.workspace / "src" / "new").write_text("new")
    (pod.root / "forge" / "taken" / "step.outputs").write_text("a=b\n")
    await carrier.fetch("p")
    assert tree(workspace) == tree(pod.workspace)
    assert "gone" not in tree(workspace)
    assert (tmp_path / "1" / "workspace.private" / "step.outputs").read_text() == "a=b\n"
    assert pod.containers == ["deliver", "keep", "keep"]
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["workspace", "workspace.private"]
    assert [path.name for path in (tmp_path / "1" / "workspace.private").iterdir()] == ["step.outputs"]


async def test_both_may_be_done_again(carrier: WorkspaceCarrier, pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "1" / "workspace" / "a").write_text("1")
    await carrier.deliver("p")
    await carrier.deliver("p")
    (pod.workspace / "a").write_text("2")
    await carrier.fetch("p")
    await carrier.fetch("p")
    assert tree(tmp_path / "1" / "workspace") == {"a": "2"}


async def test_a_command_without_outputs_has_none(carrier: WorkspaceCarrier, tmp_path: Path) -> None:
    await carrier.fetch("p")
    assert (tmp_path / "1" / "workspace.private" / "step.outputs").read_bytes() == b""


async def test_what_comes_back_broken_leaves_the_workspace_as_it_was(
    carrier: WorkspaceCarrier, pod: Pod, tmp_path: Path
) -> None:
    (tmp_path / "1" / "workspace" / "a").write_text("mine")
    (pod.workspace / "a").write_text("x" * 10_000)
    pod.breaks = True
    with pytest.raises(DependencyFailed, match="the workspace that came back is not one"):
        await carrier.fetch("p")
    assert tree(tmp_path / "1" / "workspace") == {"a": "mine"}


async def test_an_image_without_what_it_needs_is_told(
    carrier: WorkspaceCarrier, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def without_tar(*_words: Any, **_more: Any) -> Executed:
        return Executed(127, "sh: 1: tar: not found")

    monkeypatch.setattr(kubernetes_workspace, "execute", without_tar)
    with pytest.raises(
        DependencyFailed, match=r"unpacked in the pod \(exit code 127: sh: 1: tar: not found\)"
    ) as raised:
        await carrier.deliver("p")
    assert "the image needs `sh`, `tar`, `gzip` and `head`" in str(raised.value.hint)
