"""`cache:` over several jobs."""

from __future__ import annotations

import shutil

import pytest

from forge.adapters.cache_store import CacheStore
from forge.adapters.steps.cache import save_caches


async def succeed(job) -> list[str]:
    """End the job well, and begin another one with an empty workspace; return what was said."""
    said: list[str] = []
    await save_caches(job.workspace, job.cache, said.append)
    shutil.rmtree(job.workspace)
    job.workspace.mkdir()
    return said


async def test_the_next_job_finds_what_this_one_left(job):
    first = await job.step("cache", key="deps", paths=["node_modules", "one-file"])
    assert first.outputs == {"key": "deps", "hit": False, "restored": ""}
    job.write("node_modules/a/index.js", "code")
    job.write("one-file", "1")
    job.write("not-cached")
    (said,) = await succeed(job)
    assert said.startswith("cache: kept deps (")
    second = await job.step("cache", key="deps", paths=["node_modules", "one-file"])
    assert second.outputs == {"key": "deps", "hit": True, "restored": "deps"}
    assert job.files() == {"node_modules/a/index.js": "code", "one-file": "1"}
    assert await succeed(job) == []


async def test_a_job_that_failed_saves_nothing(job):
    await job.step("cache", key="deps", paths=["x"])
    job.write("x")
    shutil.rmtree(job.workspace)
    job.workspace.mkdir()
    assert not (await job.step("cache", key="deps", paths=["x"])).outputs["hit"]


async def test_key_files_make_the_key(job):
    async def key() -> str:
        return (await job.step("cache", key="deps", paths=["x"], key_files=["*.lock", "sub/**/lock"])).outputs["key"]

    empty = await key()
    job.write("a.lock", "1")
    one = await key()
    job.write("sub/deep/lock", "1")
    two = await key()
    job.write("a.lock", "2")
    three = await key()
    job.write("unrelated", "3")
    assert await key() == three
    assert len({empty, one, two, three}) == 4
    (job.workspace / "a.lock").rename(job.workspace / "b.lock")
    assert await key() != three
    assert all(found.startswith("deps-") for found in (empty, one, two, three))


async def test_a_prefix_restores_the_newest_and_the_exact_key_is_saved_anew(job):
    await job.step("cache", key="deps-old", paths=["x"])
    job.write("x", "old")
    await succeed(job)
    result = await job.step("cache", key="deps-new", paths=["x"], restore_keys=["nothing-", "deps-"])
    assert result.outputs == {"key": "deps-new", "hit": False, "restored": "deps-old"}
    assert job.files() == {"x": "old"}
    job.write("x", "new")
    await succeed(job)
    await job.step("cache", key="deps-new", paths=["x"])
    assert job.files() == {"x": "new"}


async def test_paths_are_relative_to_the_working_directory(job):
    (job.workspace / "sub").mkdir()
    await job.step("cache", key="k", paths=["deps"], cwd="sub")
    job.write("sub/deps/lib", "code")
    await succeed(job)
    (job.workspace / "sub").mkdir()
    await job.step("cache", key="k", paths=["deps"], cwd="sub")
    assert job.files() == {"sub/deps/lib": "code"}


@pytest.mark.parametrize("path", ["..", "/etc", ".", "a/../.."])
async def test_only_what_is_inside_the_workspace_is_cached(job, path):
    result = await job.step("cache", key="k", paths=[path])
    assert result.outcome == "failed"


@pytest.mark.parametrize("pattern", ["../*", "/etc/*"])
async def test_only_files_inside_the_workspace_make_keys(job, pattern):
    result = await job.step("cache", key="k", paths=["x"], key_files=[pattern])
    assert (result.outcome, result.message) == ("failed", f"`{pattern}` leads out of the workspace")


async def test_a_broken_entry_is_a_miss_and_is_replaced(job):
    await job.step("cache", key="k", paths=["x"])
    job.write("x", "good")
    await succeed(job)
    entry = CacheStore(job.cache / "entries").find("k")
    entry.archive.write_bytes(b"broken")
    result = await job.step("cache", key="k", paths=["x"])
    assert result.outcome == "succeeded"
    assert not result.outputs["hit"]
    assert "could not be restored and was dropped" in job.said
    job.write("x", "good again")
    await succeed(job)
    assert (await job.step("cache", key="k", paths=["x"])).outputs["hit"]


async def test_nothing_to_keep_and_no_disk_are_said_and_harm_nobody(job):
    await job.step("cache", key="k", paths=["x"])
    assert await succeed(job) == ["cache: nothing to keep for k"]
    await job.step("cache", key="k", paths=["x"])
    job.write("x")
    job.cache.mkdir(exist_ok=True)
    shutil.rmtree(job.cache)
    job.cache.write_text("a file where the cache should be")
    (said,) = await succeed(job)
    assert said.startswith("cache: not kept: ")


async def test_links_to_anywhere_are_kept_as_links(job):
    await job.step("cache", key="k", paths=["venv"])
    job.write("venv/lib/x")
    (job.workspace / "venv" / "python").symlink_to("/usr/bin/python3")
    await succeed(job)
    await job.step("cache", key="k", paths=["venv"])
    assert str((job.workspace / "venv" / "python").readlink()) == "/usr/bin/python3"
