"""Which files belong to a project, with real git repositories and without git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge.adapters import working_tree
from forge.adapters.working_tree import describe, files

ENV = {
    "PATH": "/usr/bin:/bin:/usr/local/bin",
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder, env=ENV, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


def write(root: Path, *names: str, text: str = "x\n") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    write(root, "tracked", "sub/tracked")
    write(root, ".gitignore", text="*.o\n/build/\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    return root


def test_tracked_and_untracked_but_not_ignored(repository):
    write(repository, "new", "sub/new", "x.o", "build/out", ".forge/forge.db", "sub/.forge/x")
    assert sorted(files(repository)) == [".gitignore", "new", "sub/new", "sub/tracked", "tracked"]


def test_a_tracked_file_that_matches_a_rule_stays(repository):
    write(repository, "kept.o")
    git(repository, "add", "-f", "kept.o")
    assert "kept.o" in files(repository)


def test_a_deleted_file_is_not_there(repository):
    (repository / "tracked").unlink()
    assert "tracked" not in files(repository)


def test_odd_names_come_through(repository):
    odd = ["with space", "new\nline", "ünïcode", '"quoted"', "-dash", "tab\t"]
    write(repository, *odd)
    assert set(odd) <= set(files(repository))


def test_links_are_named_and_not_followed(repository):
    (repository / "dangling").symlink_to("/nowhere")
    (repository / "to-folder").symlink_to("sub")
    assert {"dangling", "to-folder"} <= set(files(repository))
    assert "to-folder/tracked" not in files(repository)


def test_a_folder_inside_of_a_repository_is_taken_alone(repository):
    write(repository, "sub/x.o", "sub/new")
    assert sorted(files(repository / "sub")) == ["new", "tracked"]


def test_a_submodule_brings_its_files(repository, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    write(other, "inner")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "one")
    git(repository, "submodule", "add", "-q", str(other), "module")
    write(repository, "module/untracked")
    assert {"module/inner", "module/untracked", ".gitmodules"} <= set(files(repository))
    assert not [name for name in files(repository) if ".git" in Path(name).parts]


def test_a_folder_that_the_repository_around_it_ignores_is_a_project_of_its_own(repository):
    write(repository, "build/project/Makefile", "build/project/x.log")
    write(repository, "build/project/.gitignore", text="*.log\n")
    assert sorted(files(repository / "build" / "project")) == [".gitignore", "Makefile"]


def test_what_git_says_of_a_checkout(repository):
    commit = git(repository, "rev-parse", "HEAD")
    assert describe(repository) == (commit, "main", False)
    write(repository, "new")
    assert describe(repository) == (commit, "main", True)
    (repository / "new").unlink()
    git(repository, "tag", "v1")
    git(repository, "checkout", "-q", "--detach")
    assert describe(repository) == (commit, "v1", False)
    write(repository, "tracked", text="changed\n")
    assert describe(repository)[2]


def test_a_repository_without_a_commit_and_no_repository_at_all(tmp_path):
    assert describe(tmp_path) == ("", "", False)
    git(tmp_path, "init", "-q")
    write(tmp_path, "x")
    assert describe(tmp_path) == ("", "", False)
    assert files(tmp_path) == ["x"]


def test_variables_of_a_git_hook_do_not_lead_to_another_repository(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", "/")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    assert "tracked" in files(repository)
    assert describe(repository)[1] == "main"


def test_looking_changes_nothing_in_the_repository(repository):
    write(repository, "tracked", text="x\n")  # same content, new time: git would like to refresh its index
    before = (repository / ".git" / "index").read_bytes()
    describe(repository)
    files(repository)
    assert (repository / ".git" / "index").read_bytes() == before


class TestWithoutGit:
    @pytest.fixture(autouse=True)
    def no_git(self, monkeypatch):
        monkeypatch.setattr(working_tree, "_git", lambda *_: None)

    def test_gitignore_files_are_followed(self, tmp_path):
        write(tmp_path, "a", "x.o", "build/out", "sub/build/kept", "sub/y.o", "sub/z.log", ".git/config", ".forge/db")
        write(tmp_path, ".gitignore", text="*.o\n/build/\n")
        write(tmp_path, "sub/.gitignore", text="!y.o\n*.log\n")
        assert files(tmp_path) == [".gitignore", "a", "sub/.gitignore", "sub/build/kept", "sub/y.o"]

    def test_links_are_named_and_not_followed(self, tmp_path):
        write(tmp_path, "sub/x")
        (tmp_path / "around").symlink_to(".")
        assert files(tmp_path) == ["around", "sub/x"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rules=st.lists(
        st.sampled_from(["*.o", "/a", "b/", "!x.o", "a/*", "!a/b", "**/c", "a/**/c", "# no", " "]), max_size=5
    ),
    inner=st.lists(st.sampled_from(["*.o", "!x.o", "/c", "b", "!b"]), max_size=3),
)
def test_without_git_the_same_files_are_found(tmp_path_factory, monkeypatch, rules, inner):
    root = tmp_path_factory.mktemp("tree")
    write(root, *(f"{folder}{name}" for folder in ("", "a/", "b/", "a/b/", "a/c/") for name in ("x.o", "y.o", "n")))
    write(root, "d/c", "c/x")
    write(root, ".gitignore", text="\n".join(rules) + "\n")
    write(root, "a/.gitignore", text="\n".join(inner) + "\n")
    git(root, "init", "-q")
    by_git = sorted(files(root))
    with monkeypatch.context() as patch:
        patch.setattr(working_tree, "_git", lambda *_: None)
        assert sorted(files(root)) == by_git
