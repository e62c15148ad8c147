"""What Forge keeps for a job stays out of its workspace and out of other people's sight."""

from __future__ import annotations

from forge.adapters.steps.private import private_file, private_folder, process_key


def test_the_folder_is_beside_the_workspace_and_closed_to_others(tmp_path):
    folder = private_folder(tmp_path / "attempt" / "workspace")
    assert folder.parent == tmp_path / "attempt"
    assert folder.name != "workspace"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder(tmp_path / "attempt" / "workspace") == folder


def test_two_executions_have_two_files_and_one_has_the_same_again(job):
    first, second = job.context("run", {}), job.context("run", {})
    assert private_file(first, ".script") != private_file(second, ".script")
    assert private_file(first, ".script") == private_file(first, ".script")
    assert private_file(first, ".script") != private_file(first, ".outputs")
    assert not private_file(first, ".script").is_relative_to(job.workspace)


def test_keys_of_two_runs_differ_and_are_made_once():
    assert process_key("run-1", "job#1/1#1") == "run-1/job#1/1#1"
    assert process_key("run-1", process_key("run-1", "job#1/1#1")) == "run-1/job#1/1#1"
    assert process_key("run-1", "j") != process_key("run-11", "j")
