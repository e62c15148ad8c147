"""`checkout:` from the run's source, from folders and from real git repositories."""

from __future__ import annotations

import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from forge.adapters import source
from forge.adapters.steps.git import split_credentials
from forge.model.errors import DependencyFailed

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "file", "one")
    git(folder, "tag", "-a", "v1", "-m", "v1")
    commit(folder, "file", "two")
    git(folder, "checkout", "-q", "-b", "feature/x")
    commit(folder, "file", "three")
    git(folder, "checkout", "-q", "main")
    return folder


@pytest.fixture
def url(repository: Path) -> str:
    return f"file://{repository}"


async def take_source(job) -> None:
    (job.project / "Makefile").write_text("build:\n")
    (job.project / "sub").mkdir()
    (job.project / "sub" / "file").write_text("x")
    job.source = await source.snapshot(job.project, job.artifacts, job.cache)


@pytest.mark.parametrize("path", ["", ".", "./"])
async def test_a_dot_recreates_the_source_of_the_run(job, path):
    await take_source(job)
    (job.project / "Makefile").write_text("changed since the run started")
    job.write("extra/file")
    job.write("Makefile", "scribbled over")
    result = await job.step("checkout", path=path)
    assert result.outcome == "succeeded"
    assert job.files() == {"Makefile": "build:\n", "sub/file": "x"}
    assert job.said == "checked out the source of this run\n"


async def test_the_source_records_its_commit(job):
    git(job.project, "init", "-q", "-b", "main")
    first = commit(job.project, "file", "one")
    job.source = await source.snapshot(job.project, job.artifacts, job.cache)
    result = await job.step("checkout", path=".")
    assert result.outputs == {"commit": first, "ref": "main", "dirty": False}
    assert job.said == f"checked out the source of this run at {first[:12]} (main)\n"


async def test_the_source_can_go_into_a_folder_and_leaves_the_rest_alone(job):
    await take_source(job)
    job.write("kept")
    await job.step("checkout", path=".", into="deep/er")
    assert job.files() == {"kept": "x", "deep/er/Makefile": "build:\n", "deep/er/sub/file": "x"}


async def test_a_folder_of_the_project(job):
    (job.project / "service").mkdir()
    (job.project / "service" / "main.py").write_text("print()")
    result = await job.step("checkout", path="service", into="there")
    assert result.outcome == "succeeded"
    assert job.files() == {"there/main.py": "print()"}


async def test_a_folder_that_is_not_there(job):
    result = await job.step("checkout", path="servcie")
    assert (result.outcome, result.message) == ("failed", "there is no folder `servcie` to check out")


@pytest.mark.parametrize("into", ["..", "/tmp/elsewhere", "a/../../b", "link/x"])
async def test_nothing_is_written_outside_of_the_workspace(job, url, into):
    (job.workspace / "link").symlink_to("/tmp")
    for config in ({"path": "."}, {"repository": url}):
        result = await job.step("checkout", into=into, **config)
        assert result.outcome == "failed"
        assert "leads out of the workspace" in result.message


@pytest.mark.parametrize(("ref", "text"), [("", "two"), ("main", "two"), ("v1", "one"), ("feature/x", "three")])
async def test_a_repository_at_a_ref(job, repository, url, ref, text):
    result = await job.step("checkout", repository=url, ref=ref)
    assert result.outcome == "succeeded"
    assert (job.workspace / "file").read_text() == text
    assert result.outputs["commit"] == git(repository, "rev-parse", f"{ref or 'HEAD'}^{{commit}}")
    assert result.outputs["ref"] == ref
    assert f"checked out {url} at {result.outputs['commit'][:12]}" in job.said


async def test_a_repository_at_a_commit_that_is_no_tip(job, repository, url):
    old = git(repository, "rev-parse", "v1^{commit}")
    result = await job.step("checkout", repository=url, ref=old)
    assert result.outputs["commit"] == old
    assert (job.workspace / "file").read_text() == "one"


async def test_a_commit_that_the_server_does_not_hand_out_alone(job, repository, url):
    git(repository, "config", "uploadpack.allowAnySHA1InWant", "false")
    git(repository, "config", "uploadpack.allowReachableSHA1InWant", "false")
    old = git(repository, "rev-parse", "v1^{commit}")
    job.env = {**job.env, "GIT_PROTOCOL": "version=0", "GIT_CONFIG_PARAMETERS": "'protocol.version=0'"}
    result = await job.step("checkout", repository=url, ref=old)
    assert result.outputs["commit"] == old


async def test_a_checkout_replaces_what_was_in_its_folder(job, url):
    job.write("there/old")
    job.write("kept")
    await job.step("checkout", repository=url, into="there")
    assert sorted(name for name in job.files() if "/.git/" not in name) == ["kept", "there/file"]
    assert git(job.workspace / "there", "status", "--porcelain") == ""


async def test_submodules_come_when_asked_for(job, repository, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    commit(inner, "inner-file", "x")
    git(repository, "submodule", "add", "-q", f"file://{inner}", "module")
    git(repository, "commit", "-q", "-m", "module")
    await job.step("checkout", repository=f"file://{repository}", into="without")
    await job.step("checkout", repository=f"file://{repository}", into="with", submodules=True)
    assert not (job.workspace / "without" / "module" / "inner-file").exists()
    assert (job.workspace / "with" / "module" / "inner-file").exists()


@pytest.mark.parametrize("ref", ["no-such-branch", "0123456789" * 4])
async def test_a_ref_that_is_not_there_is_the_works_failure(job, url, ref):
    job.write("kept")
    result = await job.step("checkout", repository=url, ref=ref, into="there")
    assert (result.outcome, result.message) == ("failed", f"{url} has no ref `{ref}`")
    assert job.files() == {"kept": "x"}
    assert job.private() == []


async def test_a_repository_that_is_not_there_is_a_failure_of_the_system(job, tmp_path):
    with pytest.raises(DependencyFailed, match=r"git could not fetch .*does not appear to be a git repository"):
        await job.step("checkout", repository=f"file://{tmp_path}/nothing")
    assert job.private() == []


@pytest.mark.parametrize(
    "repository",
    ["--upload-pack=touch escaped", "-u", "ext::sh -c touch% escaped", "fd::17", "a\nb", "transport::x"],
)
async def test_addresses_that_would_be_commands_are_refused(job, repository):
    result = await job.step("checkout", repository=repository)
    assert result.outcome == "failed"
    assert result.message.endswith("is not the address of a git repository")
    assert job.files() == {}


@pytest.mark.parametrize(
    "ref", ["--upload-pack=touch escaped", "-x", "a b", "a:b", "+a:refs/heads/b", "a..b", "a^", "a*"]
)
async def test_refs_that_would_be_more_are_refused(job, url, ref):
    result = await job.step("checkout", repository=url, ref=ref)
    assert result.outcome == "failed"
    assert "is not the name of a branch, a tag or a commit" in result.message


async def test_hooks_of_templates_do_not_run(job, url, tmp_path):
    (tmp_path / "templates" / "hooks").mkdir(parents=True)
    hook = tmp_path / "templates" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\n")
    hook.chmod(0o755)
    job.env = {**job.env, "GIT_TEMPLATE_DIR": str(tmp_path / "templates")}
    await job.step("checkout", repository=url)
    assert not (tmp_path / "hook-ran").exists()


class _AskingServer(BaseHTTPRequestHandler):
    """Asks for a password, notes what comes, and has nothing to give."""

    seen: list[str]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        given = self.headers.get("Authorization")
        if given:
            self.seen.append(given)
        self.send_response(404 if given else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def asking_server():
    handler = type("Handler", (_AskingServer,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


async def test_a_password_reaches_the_server_and_no_command_line_or_log(job, asking_server, tmp_path):
    """A `git` in front of the real one writes down every command line of it and its helpers."""
    real = git(tmp_path, "--exec-path")
    if not Path(real, "git-remote-http").exists():
        pytest.skip("this git cannot speak HTTP")
    helpers = tmp_path / "helpers"
    helpers.mkdir()
    for name in os.listdir(real):
        (helpers / name).symlink_to(Path(real, name))
    (helpers / "git-remote-http").unlink()
    (helpers / "git-remote-http").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$0 $*" >> {tmp_path}/lines\nexec {real}/git-remote-http "$@"\n'
    )
    (helpers / "git-remote-http").chmod(0o755)
    job.env = {**job.env, "GIT_EXEC_PATH": str(helpers), "http_proxy": "", "no_proxy": "*"}
    address = f"http://robot:pass%40word99@127.0.0.1:{asking_server.server_port}/repo.git"
    with pytest.raises(DependencyFailed) as failure:
        await job.step("checkout", repository=address)
    assert asking_server.RequestHandlerClass.seen[0] == "Basic cm9ib3Q6cGFzc0B3b3JkOTk="
    for text in ((tmp_path / "lines").read_text(), job.said, str(failure.value)):
        assert "word99" not in text
        assert "robot" not in text


async def test_nobody_is_asked_for_a_password(job, asking_server):
    job.env = {**job.env, "http_proxy": "", "no_proxy": "*"}
    with pytest.raises(DependencyFailed, match="git could not fetch"):
        await job.step("checkout", repository=f"http://127.0.0.1:{asking_server.server_port}/repo.git")


@pytest.mark.parametrize(
    ("address", "clean", "user"),
    [
        ("https://host/repo", "https://host/repo", None),
        ("https://me:p%20w@host:1/repo?x", "https://host:1/repo?x", ("me", "p w")),
        ("https://token@host/repo", "https://host/repo", ("token", "")),
        ("ssh://git@host/repo", "ssh://git@host/repo", None),
        ("git@host:repo.git", "git@host:repo.git", None),
        ("/a/b@c", "/a/b@c", None),
    ],
)
def test_splitting_credentials(address, clean, user):
    found, env = split_credentials(address)
    assert found == clean
    assert (env.get("FORGE_GIT_USER"), env.get("FORGE_GIT_PASSWORD")) == (user or (None, None))
