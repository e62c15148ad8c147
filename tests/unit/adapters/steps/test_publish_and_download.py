"""`publish:` and `download:` between two jobs of a run."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile

import pytest

from forge.adapters import archives
from forge.adapters.steps.base import PublishedArtifact
from forge.model.errors import CorruptData, DependencyFailed


async def test_a_file_comes_back_as_it_was(job):
    job.write("myapp.tar.gz", "content")
    published = await job.step("publish", name="myapp.tar.gz")
    digest = hashlib.sha256(b"content").hexdigest()
    assert published.outcome == "succeeded"
    assert published.outputs == {"artifact": "myapp.tar.gz", "digest": digest, "size": 7}
    (job.workspace / "myapp.tar.gz").unlink()
    downloaded = await job.step("download", name="myapp.tar.gz")
    assert downloaded.outcome == "succeeded"
    assert job.files() == {"myapp.tar.gz": "content"}
    assert job.said == (
        f"published myapp.tar.gz (7 B, sha256 {digest})\ndownloaded myapp.tar.gz (7 B, sha256 {digest} verified)\n"
    )


async def test_what_made_it_is_recorded(job):
    job.write("x")
    await job.step("publish", name="x")
    recorded = await job.index.find("run-1", "x")
    assert recorded == PublishedArtifact(
        name="x",
        digest=hashlib.sha256(b"x").hexdigest(),
        size=1,
        run="run-1",
        job="job",
        step="1",
        plan=recorded.plan,
        commit="",
        created_at=1234.5,
        is_directory=False,
    )
    assert len(recorded.plan) == 64


async def test_a_name_may_differ_from_the_path(job):
    job.write("dist/build-17.bin", "b")
    await job.step("publish", name="app", path="dist/build-17.bin")
    await job.step("download", name="app", into="there")
    assert job.files()["there/app"] == "b"


async def test_paths_are_relative_to_the_working_directory(job):
    job.write("sub/app", "in sub")
    await job.step("publish", name="app", cwd="sub")
    (job.workspace / "other").mkdir()
    await job.step("download", name="app", cwd="other")
    assert job.files()["other/app"] == "in sub"


async def test_a_folder_comes_back_as_a_folder(job):
    job.write("site/index.html", "hello")
    job.write("site/deep/tool", "#!/bin/sh").chmod(0o755)
    (job.workspace / "site" / "link").symlink_to("index.html")
    (job.workspace / "site" / "empty").mkdir()
    first = await job.step("publish", name="site")
    assert (await job.index.find("run-1", "site")).is_directory
    await job.step("download", name="site", into="a")
    await job.step("download", name="site", into="b", extract=True)
    for root in (job.workspace / "a" / "site", job.workspace / "b"):
        assert (root / "index.html").read_text() == "hello"
        assert (root / "deep" / "tool").stat().st_mode & 0o100
        assert (root / "link").is_symlink()
        assert (root / "empty").is_dir()
    again = await job.step("publish", name="site")
    assert again.outputs["digest"] == first.outputs["digest"]
    assert job.private() == []


async def test_an_archive_can_be_extracted(job):
    with tarfile.open(job.workspace / "app.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("bin/app")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"app"))
    await job.step("publish", name="app.tar.gz")
    (job.workspace / "app.tar.gz").unlink()
    await job.step("download", name="app.tar.gz", into="out", extract=True)
    assert job.files() == {"out/bin/app": "app"}


async def test_a_hostile_archive_is_refused_by_the_step(job):
    with tarfile.open(job.workspace / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../../escaped"))
    await job.step("publish", name="evil.tar")
    result = await job.step("download", name="evil.tar", extract=True)
    assert result.outcome == "failed"
    assert result.message == "`evil.tar`: `../../escaped` would be written outside of its folder"
    assert not (job.workspace.parent.parent / "escaped").exists()
    assert job.private() == []


async def test_extracting_what_is_no_archive(job):
    job.write("text", "just text")
    await job.step("publish", name="text")
    result = await job.step("download", name="text", extract=True)
    assert result.outcome == "failed"
    assert "is not an archive that can be read" in result.message


async def test_a_missing_file_is_told_with_what_is_near(job):
    job.write("dist/myapp.tar.gz")
    result = await job.step("publish", name="myapp.tar.gz")
    assert result.outcome == "failed"
    assert result.message == "there is no `myapp.tar.gz` to publish; there is `dist/myapp.tar.gz`"
    result = await job.step("publish", name="x", path="nothing/like/it")
    assert result.message == "there is no `nothing/like/it` to publish"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "out/passwd"])
async def test_what_is_outside_is_not_published(job, path):
    (job.workspace / "out").symlink_to("/etc")
    (job.workspace.parent / "x").write_text("x")
    result = await job.step("publish", name="x", path=path)
    assert result.outcome == "failed"
    assert "workspace" in result.message
    assert job.index.artifacts == {}


async def test_an_absolute_path_inside_is_fine(job):
    job.write("dist/x", "1")
    assert (await job.step("publish", name="x", path=str(job.workspace / "dist" / "x"))).outcome == "succeeded"


async def test_a_folder_with_a_link_that_no_download_would_accept_is_not_published(job):
    job.write("venv/lib/x")
    (job.workspace / "venv" / "lib" / "up").symlink_to("../bin")
    (job.workspace / "venv" / "python").symlink_to("/usr/bin/python3")
    result = await job.step("publish", name="venv")
    assert (result.outcome, result.message) == ("failed", "`venv/python` is a link that leads out of the folder")
    assert job.index.artifacts == {}


async def test_a_neighbour_of_the_working_directory_is_inside_the_workspace(job):
    job.write("dist/app", "a")
    (job.workspace / "sub").mkdir()
    assert (await job.step("publish", name="app", path="../dist/app", cwd="sub")).outcome == "succeeded"
    assert (await job.step("download", name="app", into="../other", cwd="sub")).outcome == "succeeded"
    assert (await job.step("download", name="app", into="../../other", cwd="sub")).outcome == "failed"
    assert job.files()["other/app"] == "a"


async def test_a_full_disk_is_a_failure_of_the_system(job, monkeypatch):
    job.write("site/x")
    await job.step("publish", name="site")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archives, "unpack", full)
    with pytest.raises(DependencyFailed, match=r"`site` could not be written: .*No space left"):
        await job.step("download", name="site", into="there")
    monkeypatch.setattr(archives, "pack_folder", full)
    with pytest.raises(DependencyFailed, match=r"`site` could not be read or packed: .*No space left"):
        await job.step("publish", name="site")
    assert job.private() == []


async def test_other_content_under_the_same_name_is_refused(job):
    job.write("x", "1")
    assert (await job.step("publish", name="x")).outcome == "succeeded"
    assert (await job.step("publish", name="x")).outcome == "succeeded"
    job.write("x", "2")
    result = await job.step("publish", name="x")
    assert (result.outcome, result.message) == ("failed", "artifact `x` was already published with other content")


async def test_an_artifact_that_nobody_published(job):
    result = await job.step("download", name="x")
    assert (result.outcome, result.message) == ("failed", "the run has published no artifact `x`")


@pytest.mark.parametrize("into", ["..", "/tmp", "out"])
async def test_nothing_comes_to_a_place_outside(job, into):
    (job.workspace / "out").symlink_to("/tmp")
    job.write("x")
    await job.step("publish", name="x")
    result = await job.step("download", name="x", into=into)
    assert result.outcome == "failed"
    assert "leads out of the workspace" in result.message


async def test_a_download_does_not_write_through_a_link(job):
    precious = job.workspace.parent / "precious"
    precious.write_text("untouched")
    job.write("x", "new")
    await job.step("publish", name="x")
    (job.workspace / "x").unlink()
    (job.workspace / "x").symlink_to(precious)
    result = await job.step("download", name="x")
    assert result.outcome == "failed"
    assert precious.read_text() == "untouched"


async def test_a_folder_in_the_way(job):
    job.write("x")
    await job.step("publish", name="x")
    (job.workspace / "there" / "x").mkdir(parents=True)
    result = await job.step("download", name="x", into="there")
    assert (result.outcome, result.message) == ("failed", "`x`: `x` is a folder in the workspace")


async def test_damage_and_loss_are_failures_of_the_system(job):
    job.write("x", "content")
    digest = (await job.step("publish", name="x")).outputs["digest"]
    stored = job.artifacts.root / digest[:2] / digest[2:]
    stored.chmod(0o600)
    stored.write_text("damaged")
    with pytest.raises(CorruptData):
        await job.step("download", name="x", into="there")
    stored.unlink()
    with pytest.raises(DependencyFailed, match="is not in the artifact store any more"):
        await job.step("download", name="x", into="there")
    assert list(job.files()) == ["x"]
