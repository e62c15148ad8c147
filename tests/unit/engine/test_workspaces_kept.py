"""Old workspaces go, logs stay, and nothing of a run that is not over is touched."""

from __future__ import annotations

from pathlib import Path

from forge.engine.project import Project
from forge.engine.workspaces import remove_old


def _run(project: Project, number: int) -> Path:
    workspace = project.workspace(f"run-{number}", "build (os=linux)", 1)
    workspace.mkdir(parents=True)
    (workspace / "big").write_text("x")
    (workspace.parent / "ready").touch()
    (workspace.parent / "workspace.private").mkdir()
    project.step_log(f"run-{number}", "build (os=linux)", 1, "1").write_text("log")
    return workspace


def test_the_newest_keep_theirs_and_the_others_keep_their_logs(tmp_path: Path) -> None:
    project = Project(tmp_path)
    workspaces = [_run(project, number) for number in range(1, 13)]
    assert remove_old(project, {"run-2"}, keep=3) == 16
    left = [int(workspace.parts[-4].removeprefix("run-")) for workspace in workspaces if workspace.exists()]
    assert left == [2, 10, 11, 12]
    assert all((workspace.parent / "1.log").read_text() == "log" for workspace in workspaces)
    assert not (workspaces[0].parent / "ready").exists()
    assert not (workspaces[0].parent / "workspace.private").exists()
    assert remove_old(project, {"run-2"}, keep=3) == 0


def test_a_project_without_runs_has_nothing_to_remove(tmp_path: Path) -> None:
    assert remove_old(Project(tmp_path), set()) == 0
