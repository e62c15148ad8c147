"""The source of a run: taken once, the same everywhere."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest

from forge.adapters import source
from forge.adapters.artifacts.folder import FolderArtifacts
from forge.adapters.artifacts.memory import MemoryArtifacts
from forge.model.errors import CorruptData, DependencyFailed
from forge.model.plan import Source


def contents(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


@pytest.fixture(autouse=True)
def nothing_remembered():
    source._small.clear()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "Makefile").write_text("build:\n\ttrue\n")
    (root / "sub" / "deep" / "tool").write_text("#!/bin/sh\n")
    (root / "sub" / "deep" / "tool").chmod(0o755)
    (root / "link").symlink_to("sub/deep/tool")
    (root / "python").symlink_to("/usr/bin/python3")
    (root / ".forge").mkdir()
    (root / ".forge" / "forge.db").write_text("state")
    (root / ".gitignore").write_text("*.log\n")
    (root / "noise.log").write_text("noise")
    return root


@pytest.fixture
def large(project: Path) -> Path:
    for number in range(100):
        (project / "sub" / f"file{number}").write_text(str(number))
    return project


@pytest.fixture
def store(tmp_path: Path) -> FolderArtifacts:
    return FolderArtifacts(tmp_path / "store")


KEPT = {
    "Makefile": (b"build:\n\ttrue\n", False),
    "sub/deep/tool": (b"#!/bin/sh\n", True),
    "link": "-> sub/deep/tool",
    "python": "-> /usr/bin/python3",
    ".gitignore": (b"*.log\n", False),
}


async def test_the_tree_comes_back_without_what_is_ignored(project, store, tmp_path):
    taken = await source.snapshot(project, store, tmp_path / "scratch")
    await source.unpack(taken, store, tmp_path / "workspace")
    assert contents(tmp_path / "workspace") == KEPT
    assert taken.commit == ""
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_the_same_tree_has_the_same_digest_and_a_change_another(project, store, tmp_path):
    first = await source.snapshot(project, store, tmp_path)
    (project / "noise.log").write_text("more noise")
    os.utime(project / "Makefile", (1, 1))
    assert await source.snapshot(project, store, tmp_path) == first
    (project / "Makefile").write_text("other")
    assert (await source.snapshot(project, store, tmp_path)).digest != first.digest


async def test_commit_ref_and_state_are_recorded(project, store, tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=project, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q", "-b", "trunk")
    (project / ".gitignore").write_text("*.log\n.forge/\n")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    taken = await source.snapshot(project, store, tmp_path)
    assert (taken.commit, taken.ref, taken.dirty) == (git("rev-parse", "HEAD"), "trunk", False)
    (project / "untracked").write_text("x")
    changed = await source.snapshot(project, store, tmp_path)
    assert (changed.commit, changed.dirty) == (taken.commit, True)
    await source.unpack(changed, store, tmp_path / "workspace")
    assert "untracked" in contents(tmp_path / "workspace")
    assert not (tmp_path / "workspace" / ".git").exists()


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("size", ["project", "large"])
async def test_unpacking_restores_exactly_this_tree(request, store, tmp_path, size, cached):
    root = request.getfixturevalue(size)
    taken = await source.snapshot(root, store, tmp_path / "scratch")
    workspace = tmp_path / "workspace"
    cache = tmp_path / "cache" if cached else None
    await source.unpack(taken, store, workspace, cache=cache)
    original = contents(workspace)
    for _ in range(2):
        (workspace / "extra" / "deep").mkdir(parents=True)
        (workspace / "extra" / "deep" / "file").write_text("x")
        (workspace / "Makefile").write_text("scribbled over")
        (workspace / "link").unlink()
        (workspace / "sub" / "deep" / "tool").chmod(0o400)
        await source.unpack(taken, store, workspace, cache=cache)
        assert contents(workspace) == original
        assert not (workspace / "extra").exists()


async def test_the_workspace_folder_itself_stays(project, store, tmp_path):
    """A shell may stand in it."""
    taken = await source.snapshot(project, store, tmp_path)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    before = workspace.stat().st_ino
    await source.unpack(taken, store, workspace)
    assert workspace.stat().st_ino == before


async def test_folders_that_forbid_removing_are_removed(project, store, tmp_path):
    taken = await source.snapshot(project, store, tmp_path)
    workspace = tmp_path / "workspace"
    (workspace / "modules" / "cache").mkdir(parents=True)
    (workspace / "modules" / "cache" / "file").write_text("x")
    (workspace / "modules" / "cache").chmod(0o500)
    (workspace / "modules").chmod(0o500)
    await source.unpack(taken, store, workspace)
    assert contents(workspace) == KEPT


async def test_jobs_do_not_share_files(large, store, tmp_path):
    taken = await source.snapshot(large, store, tmp_path / "scratch")
    one, two = tmp_path / "one", tmp_path / "two"
    await source.unpack(taken, store, one, cache=tmp_path / "cache")
    await source.unpack(taken, store, two, cache=tmp_path / "cache")
    (one / "Makefile").write_text("changed by job one")
    assert (two / "Makefile").read_text() == "build:\n\ttrue\n"
    three = tmp_path / "three"
    await source.unpack(taken, store, three, cache=tmp_path / "cache")
    assert (three / "Makefile").read_text() == "build:\n\ttrue\n"


async def test_a_large_source_is_unpacked_once(large, store, tmp_path):
    taken = await source.snapshot(large, store, tmp_path / "scratch")
    await source.unpack(taken, store, tmp_path / "one", cache=tmp_path / "cache")
    await store.delete(taken.digest)
    await source.unpack(taken, store, tmp_path / "two", cache=tmp_path / "cache")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


async def test_many_jobs_at_once(large, store, tmp_path):
    taken = await source.snapshot(large, store, tmp_path / "scratch")
    cache = tmp_path / "cache"
    await asyncio.gather(*(source.unpack(taken, store, tmp_path / f"w{n}", cache=cache) for n in range(12)))
    first = contents(tmp_path / "w0")
    assert all(contents(tmp_path / f"w{n}") == first for n in range(12))
    assert [path.name for path in cache.iterdir()] == [taken.digest]


@pytest.mark.parametrize("size", ["project", "large"])
async def test_of_many_jobs_one_fetches(request, store, tmp_path, size, monkeypatch):
    taken = await source.snapshot(request.getfixturevalue(size), store, tmp_path / "scratch")
    fetched = []
    get = store.get

    async def counting(digest: str, destination: Path) -> None:
        fetched.append(digest)
        await get(digest, destination)

    monkeypatch.setattr(store, "get", counting)
    cache = tmp_path / "cache"
    await asyncio.gather(*(source.unpack(taken, store, tmp_path / f"w{n}", cache=cache) for n in range(5)))
    assert fetched == [taken.digest]


async def test_a_job_goes_on_when_the_one_that_fetched_was_cancelled(large, store, tmp_path):
    taken = await source.snapshot(large, store, tmp_path / "scratch")
    cache = tmp_path / "cache"
    first = asyncio.create_task(source.unpack(taken, store, tmp_path / "one", cache=cache))
    second = asyncio.create_task(source.unpack(taken, store, tmp_path / "two", cache=cache))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert (tmp_path / "two" / "Makefile").exists()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_kept_trees_do_not_pile_up(large, store, tmp_path):
    cache = tmp_path / "cache"
    (cache / ".source-abandoned").mkdir(parents=True)
    os.utime(cache / ".source-abandoned", (1, 1))
    digests = []
    for number in range(7):
        (large / "Makefile").write_text(str(number))
        taken = await source.snapshot(large, store, tmp_path / "scratch")
        digests.append(taken.digest)
        await source.unpack(taken, store, tmp_path / "workspace", cache=cache)
        if number < 5:
            os.utime(cache / taken.digest, (1000 + number, 1000 + number))
    # Two are new; of those that nobody has used for long, the youngest two are among the four that stay.
    assert {path.name for path in cache.iterdir()} == set(digests[3:])


async def test_a_small_source_for_many_jobs_costs_next_to_nothing(project, store, tmp_path):
    taken = await source.snapshot(project, store, tmp_path / "scratch")
    started = time.process_time()
    for number in range(300):
        await source.unpack(taken, store, tmp_path / "w" / str(number))
    assert time.process_time() - started < 4  # 0.1 on an idle machine; files are made by the kernel


async def test_an_empty_project_is_a_source(tmp_path, store):
    (tmp_path / "project").mkdir()
    taken = await source.snapshot(tmp_path / "project", store, tmp_path / "scratch")
    await source.unpack(taken, store, tmp_path / "workspace")
    assert list((tmp_path / "workspace").iterdir()) == []


async def test_no_source_is_an_empty_workspace(tmp_path, store):
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "old").touch()
    await source.unpack(Source(digest=""), store, tmp_path / "workspace")
    assert list((tmp_path / "workspace").iterdir()) == []


async def test_a_source_that_is_gone_is_told(tmp_path, store):
    with pytest.raises(DependencyFailed, match="the source 000000000000 is not in the artifact store any more"):
        await source.unpack(Source(digest="0" * 64), store, tmp_path / "workspace")


async def test_a_damaged_source_is_not_unpacked(project, tmp_path):
    store = MemoryArtifacts()
    taken = await source.snapshot(project, store, tmp_path / "scratch")
    store.contents[taken.digest] = b"damaged"
    with pytest.raises(CorruptData):
        await source.unpack(taken, store, tmp_path / "workspace")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".source-")]


async def test_a_file_that_cannot_be_read_is_told(project, store, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "files", lambda _: ["gone"])
    with pytest.raises(DependencyFailed, match=r"could not be read: .*No such file"):
        await source.snapshot(project, store, tmp_path / "scratch")
