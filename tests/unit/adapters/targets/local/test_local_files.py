"""An environment's files: sockets, versions, logs, saved state."""

from __future__ import annotations

import asyncio
import os
import tarfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.targets.local import logs, records, versions
from forge.adapters.targets.local.folders import (
    EnvironmentFolder,
    agent_socket,
    path_element,
    replace_file,
)
from forge.adapters.targets.local.processes import ProcessIdentity
from forge.adapters.targets.local.state import AgentState, Proxy, Replica, Wish
from forge.model.configs import LocalTargetConfig
from forge.model.errors import CorruptData, DependencyFailed, UsageError
from forge.model.traffic import TrafficTable, Version


@pytest.fixture
def folder(tmp_path, monkeypatch) -> EnvironmentFolder:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return EnvironmentFolder(tmp_path / "environment")


class TestSockets:
    def test_their_folder_is_ours_alone_short_and_always_the_same(self, tmp_path) -> None:
        folder = EnvironmentFolder(tmp_path.joinpath(*["x" * 60] * 5))
        runtime = folder.runtime()
        try:
            assert runtime == folder.runtime()
            assert runtime.stat().st_mode & 0o777 == 0o700
            assert len(str(agent_socket(runtime))) < 108
        finally:
            runtime.rmdir()

    def test_a_copied_folder_has_sockets_of_its_own(self, folder, tmp_path) -> None:
        original = folder.runtime()
        copy = EnvironmentFolder(tmp_path / "copy")
        copy.root.mkdir()
        (copy.root / "runtime").write_text((folder.root / "runtime").read_text())
        assert copy.runtime() != original
        for runtime in (original, copy.runtime()):
            runtime.rmdir()

    def test_the_place_is_kept_when_the_caller_has_another_idea(self, folder, monkeypatch) -> None:
        runtime = folder.runtime()
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert folder.runtime() == runtime
        runtime.rmdir()

    @pytest.mark.parametrize("trap", ["open", "link"])
    def test_a_folder_that_others_can_open_is_refused(self, folder, tmp_path, trap) -> None:
        runtime = folder.runtime()
        runtime.rmdir()
        if trap == "open":
            runtime.mkdir()
            runtime.chmod(0o755)
        else:
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            runtime.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(DependencyFailed, match="only this user can open"):
            folder.runtime()
        runtime.unlink() if trap == "link" else runtime.rmdir()


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_any_name_is_one_path_element_of_its_own(one: str, other: str) -> None:
    try:
        element = path_element(one)
        same = element == path_element(other)
    except UnicodeEncodeError:
        return  # lone surrogates are no text that YAML or JSON can carry
    assert Path("/a", element).name == element
    assert element not in (".", "..")
    assert "/" not in element
    assert same == (one == other)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "state.json"
    replace_file(path, "old", durable=True, mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    replace_file(path, b"new")
    assert path.read_text() == "new"
    with pytest.raises(TypeError):
        replace_file(path, None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


class TestVersions:
    def archive(self, tmp_path: Path) -> Path:
        (tmp_path / "serve").write_text("#!/bin/sh\n")
        path = tmp_path / "f00d"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(tmp_path / "serve", "bin/serve")
        return path

    def test_an_archive_is_unpacked_by_its_published_name(self, folder, tmp_path) -> None:
        version = Version("1.0", artifact="f00d", artifact_name="app.tar.gz")
        place = versions.prepare(folder, version, str(self.archive(tmp_path)))
        assert (place / "bin" / "serve").read_text() == "#!/bin/sh\n"
        assert place == folder.working_directory("1.0")

    def test_it_is_done_once(self, folder, tmp_path) -> None:
        version = Version("1.0", artifact="f00d", artifact_name="app.tar.gz")
        place = versions.prepare(folder, version, str(self.archive(tmp_path)))
        (place / "written-by-the-service").touch()
        versions.prepare(folder, version, str(tmp_path / "not there any more"))
        assert (place / "written-by-the-service").exists()

    def test_another_artifact_under_the_same_version_is_refused(self, folder) -> None:
        (folder.root / "site").mkdir(parents=True)
        versions.prepare(folder, Version("1.0", artifact="a"), str(folder.root / "site"))
        with pytest.raises(UsageError, match="another artifact"):
            versions.prepare(folder, Version("1.0", artifact="b"), None)

    def test_a_plain_file_is_a_program(self, folder, tmp_path) -> None:
        program = tmp_path / "digest"
        program.write_text("#!/bin/sh\n")
        place = versions.prepare(folder, Version("1.0", artifact_name="dist/server.zipapp"), str(program))
        assert os.access(place / "server.zipapp", os.X_OK)

    def test_a_published_folder_is_told_by_its_content(self, folder, tmp_path) -> None:
        place = versions.prepare(folder, Version("1.0", artifact_name="dist"), str(self.archive(tmp_path)))
        assert (place / "bin" / "serve").exists()

    def test_an_artifact_that_was_not_given_is_not_taken_for_an_empty_one(self, folder) -> None:
        with pytest.raises(DependencyFailed, match="was not given"):
            versions.prepare(folder, Version("1.0", artifact="f00d"), None)

    def test_a_folder_is_copied(self, folder, tmp_path) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "index.html").write_text("hi")
        place = versions.prepare(folder, Version("1.0"), str(tmp_path / "site"))
        assert (place / "index.html").read_text() == "hi"

    @pytest.mark.parametrize("content", [b"", b"this is no archive", b"\x1f\x8b" + b"0" * 100])
    def test_a_broken_archive_leaves_nothing(self, folder, tmp_path, content) -> None:
        broken = tmp_path / "broken"
        broken.write_bytes(content)
        with pytest.raises(UsageError, match=r"version 1.0 cannot be unpacked"):
            versions.prepare(folder, Version("1.0", artifact_name="app.tar.gz"), str(broken))
        assert list(folder.versions.iterdir()) == []

    def test_an_archive_cannot_write_outside(self, folder, tmp_path) -> None:
        evil = tmp_path / "evil.tar"
        with tarfile.open(evil, "w") as tar:
            tar.addfile(tarfile.TarInfo("../../escaped"))
        with pytest.raises(UsageError):
            versions.prepare(folder, Version("1.0"), str(evil))
        assert not (folder.root / "escaped").exists()

    def test_put_aside_makes_room_at_once(self, folder) -> None:
        place = versions.prepare(folder, Version("1.0"), None)
        aside = versions.put_aside(folder, "1.0")
        assert not place.exists()
        assert (aside / "version" / "files").is_dir()
        assert versions.put_aside(folder, "never there").exists()


class TestLogs:
    def write(self, folder: EnvironmentFolder, replica: str, text: str) -> Path:
        version, number = replica.split("/")
        path = folder.log(version, int(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as log:
            log.write(text)
        return path

    async def read(self, folder: EnvironmentFolder, version: str | None, tail: int) -> list[str]:
        return [line async for line in logs.read_logs(folder, version, follow=False, tail=tail)]

    async def test_the_last_lines_of_each_replica(self, folder) -> None:
        self.write(folder, "1.0/1", "a\nb\nc\n")
        self.write(folder, "1.0/10", "z")
        self.write(folder, "1.0/2", "d\n")
        self.write(folder, "2.0+x/1", "e\n")
        assert await self.read(folder, "1.0", 2) == ["1.0/1: b", "1.0/1: c", "1.0/2: d", "1.0/10: z"]
        assert "2.0+x/1: e" in await self.read(folder, None, 1)
        assert await self.read(folder, "1.0", 0) == await self.read(folder, "9.9", 5) == []

    def test_lines_before_a_rotation_count(self, folder) -> None:
        path = self.write(folder, "1.0/1", "a\nb\n")
        assert logs.rotate(path, limit=2)
        assert path.stat().st_size == 0
        self.write(folder, "1.0/1", "c\n")
        assert logs.last_lines(path, 2) == ["b", "c"]
        assert not logs.rotate(path, limit=100)
        assert not logs.rotate(folder.root / "none")

    def test_a_huge_log_is_not_read_whole(self, folder) -> None:
        path = self.write(folder, "1.0/1", "0123456789\n" * 1000)
        assert logs.last_lines(path, 3, budget=25) == ["0123456789", "0123456789"]

    async def test_following_sees_every_line_once_over_rotations_and_new_replicas(self, folder) -> None:
        path = self.write(folder, "1.0/1", "old\n")
        seen: list[str] = []

        async def follow() -> None:
            async for line in logs.read_logs(folder, None, follow=True, tail=0, interval=0.01):
                seen.append(line)  # noqa: PERF401  it never ends

        task = asyncio.create_task(follow())
        await asyncio.sleep(0.05)
        for number in range(30):
            self.write(folder, "1.0/1", f"line {number}\n")
            if number % 7 == 0:
                logs.rotate(path, limit=1)
                await asyncio.sleep(0.03)
            await asyncio.sleep(0.002)
        self.write(folder, "1.1/1", "new replica\nhalf a li")
        await asyncio.sleep(0.05)
        task.cancel()
        assert [line for line in seen if line.startswith("1.0")] == [f"1.0/1: line {number}" for number in range(30)]
        assert [line for line in seen if line.startswith("1.1")] == ["1.1/1: new replica"]

    def test_logs_of_gone_versions_are_kept_for_a_while(self, folder) -> None:
        for minor in range(5):
            path = self.write(folder, f"1.{minor}/1", "x")
            os.utime(path.parent, (minor, minor))
        logs.prune(folder, {"1.0"}, keep=2)
        assert sorted(path.name for path in folder.logs.iterdir()) == ["1.0", "1.3", "1.4"]


class TestState:
    STATE = AgentState(
        environment="production",
        token=7,
        wishes={"1.0": Wish(Version("1.0"), LocalTargetConfig(("serve",), env={"A": "1"}), 2)},
        replicas={"1.0/1": Replica("1.0", 1, "running", 9001, ProcessIdentity(5, 6, "boot"), ready=True)},
        proxy=Proxy(port=8080, tables={"1-a": TrafficTable({"1.0": 10000}, 1)}),
    )

    def test_it_comes_back_as_it_was(self, folder) -> None:
        folder.root.mkdir()
        folder.state.write_bytes(msgspec.json.encode(self.STATE))
        assert records.load_state(folder) == self.STATE

    def test_none_is_a_fresh_one_and_a_broken_one_an_error(self, folder) -> None:
        assert records.load_state(folder) == AgentState()
        folder.root.mkdir()
        folder.state.write_text('{"token": "x"')
        with pytest.raises(CorruptData):
            records.load_state(folder)

    def test_what_stays_of_an_environment_that_is_down(self) -> None:
        kept = records.forgotten(self.STATE)
        assert (kept.token, kept.proxy.port) == (7, 8080)
        assert not kept.wishes
        assert not kept.replicas
        assert not kept.proxy.tables

    def test_for_people_it_has_an_address_and_no_secrets(self) -> None:
        view = records.state_view(self.STATE, 42)
        assert view["address"] == "http://127.0.0.1:8080"
        assert view["agent"] == 42
        assert view["versions"]["1.0"]["replicas"][0]["pid"] == 5
        assert "env" not in view["versions"]["1.0"]
