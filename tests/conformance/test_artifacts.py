"""What every artifact store promises."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import importlib.util
import os
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge.adapters.artifacts import files
from forge.adapters.artifacts.base import ArtifactStore
from forge.adapters.artifacts.folder import FolderArtifacts
from forge.adapters.artifacts.memory import MemoryArtifacts
from forge.adapters.artifacts.object_store import ObjectStoreArtifacts
from forge.adapters.artifacts.open import open_artifacts
from forge.model.errors import CorruptData, DependencyFailed, UsageError

UNKNOWN = hashlib.sha256(b"nobody has stored this").hexdigest()
_spec = importlib.util.spec_from_file_location("object_server", Path(__file__).with_name("object_server.py"))
object_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(object_server)


@pytest.fixture
def server(monkeypatch):
    server = object_server.ObjectServer()
    for name, value in {
        "AWS_ENDPOINT": server.address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "nowhere-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["folder", "memory", "object memory", "object folder", "object s3"])
def store(request, tmp_path) -> ArtifactStore:
    if request.param == "memory":
        return MemoryArtifacts()
    if request.param == "object s3":
        request.getfixturevalue("server")
    return open_artifacts(
        {
            "folder": str(tmp_path / "store"),
            "object memory": "memory://",
            "object folder": f"file://{tmp_path}/objects",
            "object s3": "s3://artifacts/some/prefix",
        }[request.param]
    )


def damage(store: ArtifactStore, digest: str, tmp_path: Path) -> bool:
    """Change what is stored under a digest, behind the store's back; tell whether that is possible."""
    if isinstance(store, MemoryArtifacts):
        store.contents[digest] = b"damaged"
        return True
    for root in (tmp_path / "store", tmp_path / "objects"):
        path = root / digest[:2] / digest[2:]
        if path.exists():
            path.chmod(0o600)
            path.write_bytes(b"damaged")
            return True
    return False


async def test_what_was_put_comes_back(store, tmp_path):
    (tmp_path / "in").write_bytes(b"content")
    digest = await store.put(tmp_path / "in")
    assert digest == hashlib.sha256(b"content").hexdigest()
    assert await store.has(digest)
    await store.get(digest, tmp_path / "deep" / "er" / "out")
    assert (tmp_path / "deep" / "er" / "out").read_bytes() == b"content"


async def test_an_empty_file_is_a_file(store, tmp_path):
    (tmp_path / "in").touch()
    digest = await store.put(tmp_path / "in")
    await store.get(digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b""


async def test_putting_again_changes_nothing(store, tmp_path):
    (tmp_path / "in").write_bytes(b"content")
    first = await store.put(tmp_path / "in")
    assert await store.put(tmp_path / "in") == first
    await store.get(first, tmp_path / "out")


async def test_the_source_may_change_afterwards(store, tmp_path):
    (tmp_path / "in").write_bytes(b"before")
    digest = await store.put(tmp_path / "in")
    (tmp_path / "in").write_bytes(b"after")
    await store.get(digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"before"
    (tmp_path / "out").write_bytes(b"scribbled over")
    await store.get(digest, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"before"


async def test_a_destination_is_replaced_and_can_be_written(store, tmp_path):
    (tmp_path / "in").write_bytes(b"new")
    (tmp_path / "out").write_bytes(b"old and longer")
    await store.get(await store.put(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"new"
    assert os.access(tmp_path / "out", os.W_OK)


async def test_what_is_unknown_is_a_key_error(store, tmp_path):
    assert not await store.has(UNKNOWN)
    with pytest.raises(KeyError):
        await store.get(UNKNOWN, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    await store.delete(UNKNOWN)


@pytest.mark.parametrize("digest", ["", "x", "../../etc/passwd", UNKNOWN[:-1], UNKNOWN.upper(), f"{UNKNOWN}/../x"])
async def test_what_is_no_digest_names_nothing(store, tmp_path, digest):
    assert not await store.has(digest)
    with pytest.raises(KeyError):
        await store.get(digest, tmp_path / "out")
    await store.delete(digest)


async def test_what_was_deleted_is_gone_and_can_come_back(store, tmp_path):
    (tmp_path / "in").write_bytes(b"content")
    digest = await store.put(tmp_path / "in")
    await store.delete(digest)
    assert not await store.has(digest)
    await store.delete(digest)
    await store.put(tmp_path / "in")
    assert await store.has(digest)


async def test_damage_is_found_and_leaves_nothing_behind(store, tmp_path):
    (tmp_path / "in").write_bytes(b"content")
    digest = await store.put(tmp_path / "in")
    if not damage(store, digest, tmp_path):
        pytest.skip("this store's bytes cannot be reached from here")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CorruptData, match=f"artifact {digest[:12]} is damaged"):
        await store.get(digest, out / "file")
    assert list(out.iterdir()) == []


async def test_many_at_once(store, tmp_path):
    for number in range(10):
        (tmp_path / f"in{number}").write_bytes(b"%d" % (number % 3) * 10_000)
    digests = await asyncio.gather(*(store.put(tmp_path / f"in{number}") for number in range(10)))
    assert len(set(digests)) == 3
    await asyncio.gather(*(store.get(digest, tmp_path / f"out{number}") for number, digest in enumerate(digests)))
    for number in range(10):
        assert (tmp_path / f"out{number}").read_bytes() == (tmp_path / f"in{number}").read_bytes()


async def test_a_file_of_several_parts_is_streamed(store, tmp_path):
    size = 40_000_000
    (tmp_path / "in").write_bytes(os.urandom(1000) * (size // 1000))
    tracemalloc.start()
    try:
        digest = await store.put(tmp_path / "in")
        await store.get(digest, tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out").stat().st_size == size
    if isinstance(store, FolderArtifacts) or "file://" in getattr(store, "_url", ""):
        assert peak < 20_000_000  # the others keep it in the memory of this very process


async def test_a_missing_source_is_a_failure_of_the_system_or_of_the_caller(store, tmp_path):
    with pytest.raises((DependencyFailed, FileNotFoundError)):
        await store.put(tmp_path / "nothing")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=5000))
async def test_any_bytes_come_back(store, tmp_path, content):
    (tmp_path / "in").write_bytes(content)
    await store.get(await store.put(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content


class TestFolder:
    async def test_files_are_read_only_in_two_levels(self, tmp_path):
        store = FolderArtifacts(tmp_path / "store")
        (tmp_path / "in").write_bytes(b"content")
        digest = await store.put(tmp_path / "in")
        stored = tmp_path / "store" / digest[:2] / digest[2:]
        assert stored.stat().st_mode & 0o777 == 0o444
        assert list((tmp_path / "store" / "incoming").iterdir()) == []

    async def test_putting_again_heals_damage(self, tmp_path):
        store = FolderArtifacts(tmp_path / "store")
        (tmp_path / "in").write_bytes(b"content")
        digest = await store.put(tmp_path / "in")
        damage(store, digest, tmp_path)
        await store.put(tmp_path / "in")
        await store.get(digest, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"content"

    @pytest.mark.parametrize("when", ["write", "fsync"])
    async def test_a_full_disk_stores_nothing_by_halves(self, tmp_path, monkeypatch, when):
        store = FolderArtifacts(tmp_path / "store")
        (tmp_path / "in").write_bytes(b"content")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if when == "fsync":
            monkeypatch.setattr(files.os, "fsync", full)
        else:
            monkeypatch.setattr(files.os, "fchmod", full)
        with pytest.raises(DependencyFailed, match="No space left on device"):
            await store.put(tmp_path / "in")
        monkeypatch.undo()
        assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []

    async def test_a_really_full_disk(self, tmp_path):
        """Against a limit of the kernel, not a pretended error: the process may write 1 MB a file."""
        import resource
        import signal

        store = FolderArtifacts(tmp_path / "store")
        (tmp_path / "in").write_bytes(b"x" * 3_000_000)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            with pytest.raises(DependencyFailed, match="File too large"):
                await store.put(tmp_path / "in")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


class TestS3:
    async def test_large_files_go_in_parts_and_small_ones_in_one(self, server, tmp_path):
        store = ObjectStoreArtifacts("s3://artifacts/prefix")
        (tmp_path / "small").write_bytes(b"small")
        (tmp_path / "large").write_bytes(os.urandom(20_000_000))
        small, large = await store.put(tmp_path / "small"), await store.put(tmp_path / "large")
        assert set(server.objects) == {f"/artifacts/prefix/{d[:2]}/{d[2:]}" for d in (small, large)}
        assert len([line for line in server.requests if "partNumber" in line]) == 3
        assert server.uploads == {}

    async def test_what_is_there_is_not_sent_again(self, server, tmp_path):
        store = ObjectStoreArtifacts("s3://artifacts")
        (tmp_path / "in").write_bytes(b"content")
        await store.put(tmp_path / "in")
        await store.put(tmp_path / "in")
        assert len([line for line in server.requests if line.startswith("PUT")]) == 1

    async def test_a_file_that_changes_under_way_is_not_kept(self, server, tmp_path, monkeypatch):
        store = ObjectStoreArtifacts("s3://artifacts")
        (tmp_path / "in").write_bytes(b"before")

        async def changing(self: object, digest: str) -> bool:
            (tmp_path / "in").write_bytes(b"after, and longer")
            return False

        with monkeypatch.context() as patch:
            patch.setattr(ObjectStoreArtifacts, "has", changing)
            with pytest.raises(DependencyFailed, match="in was changed while it was stored"):
                await store.put(tmp_path / "in")
        assert server.objects == {}

    async def test_damage_on_the_server_is_found(self, server, tmp_path):
        store = ObjectStoreArtifacts("s3://artifacts")
        (tmp_path / "in").write_bytes(b"content")
        digest = await store.put(tmp_path / "in")
        server.objects = dict.fromkeys(server.objects, b"damaged")
        with pytest.raises(CorruptData):
            await store.get(digest, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    async def test_a_server_without_space_is_a_failed_dependency(self, server, tmp_path):
        store = ObjectStoreArtifacts("s3://artifacts", retry_config={"max_retries": 0})
        server.full = True
        (tmp_path / "in").write_bytes(b"content")
        with pytest.raises(DependencyFailed, match="the artifact store s3://artifacts failed"):
            await store.put(tmp_path / "in")
        assert server.objects == {}

    async def test_a_server_that_is_away_is_a_failed_dependency(self, server, tmp_path):
        server.shutdown()
        server.server_close()
        store = ObjectStoreArtifacts("s3://artifacts", retry_config={"max_retries": 0})
        with pytest.raises(DependencyFailed, match="the artifact store s3://artifacts failed"):
            await store.has(UNKNOWN)
        with pytest.raises(DependencyFailed):
            await store.get(UNKNOWN, tmp_path / "out")


def test_an_unknown_scheme_is_refused_with_a_hint():
    with pytest.raises(UsageError, match="artifacts cannot be kept at `azur://`") as refused:
        open_artifacts("azur://bucket")
    assert refused.value.hint == "did you mean `azure`?"


def test_a_url_that_lacks_something_is_refused():
    with pytest.raises(UsageError, match="artifacts cannot be kept at s3://"):
        open_artifacts("s3://")


def test_a_path_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_artifacts("some/folder")
    assert isinstance(store, FolderArtifacts)
    assert store.root == tmp_path / "some" / "folder"


async def test_it_tells_how_much_is_stored_and_since_when(store, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1000)
    before = time.time()
    digest = await store.put(file)
    about = await store.about(digest)
    assert about.size == 1000
    assert before - 5 < about.at < time.time() + 5
    await store.delete(digest)
    assert await store.about(digest) is None
    assert await store.about(UNKNOWN) is None
    assert await store.about("no digest") is None
