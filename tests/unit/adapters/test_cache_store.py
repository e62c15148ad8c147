"""Cache entries: whole or not there, never changed, the least used go first."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from forge.adapters import archives
from forge.adapters.cache_store import CacheStore


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "deps" / "deep").mkdir(parents=True)
    (root / "deps" / "deep" / "lib").write_text("code")
    (root / "one-file").write_text("1")
    return root


@pytest.fixture
def store(tmp_path: Path) -> CacheStore:
    return CacheStore(tmp_path / "cache")


def test_what_was_saved_is_found_by_its_key_alone(store, tree, tmp_path):
    assert store.find("k1") is None
    assert store.save("k1", tree, ["deps", "one-file"]) > 0
    found = store.find("k1")
    assert (found.key, found.size) == ("k1", found.archive.stat().st_size)
    archives.unpack(found.archive, tmp_path / "back")
    assert (tmp_path / "back" / "deps" / "deep" / "lib").read_text() == "code"
    assert (tmp_path / "back" / "one-file").read_text() == "1"
    assert store.find("k") is None
    assert store.find("k11") is None


def test_an_entry_never_changes(store, tree):
    store.save("k", tree, ["deps"])
    before = store.find("k").archive.read_bytes()
    (tree / "deps" / "new").write_text("new")
    store.save("k", tree, ["deps"])
    assert store.find("k").archive.read_bytes() == before


def test_paths_that_are_not_there_are_left_out(store, tree):
    assert store.save("none", tree, ["nothing"]) == 0
    assert store.find("none") is None
    assert store.save("some", tree, ["nothing", "one-file"]) > 0


def test_the_last_used_of_a_prefix_is_found(store, tree):
    for number, key in enumerate(["npm-a", "npm-b", "npm-c", "pip-a"]):
        store.save(key, tree, ["deps"])
        os.utime(store.find(key).about, (1000 + number, 1000 + number))
    assert store.newest("npm-").key == "npm-c"
    store.touch(store.find("npm-a"))
    assert store.newest("npm-").key == "npm-a"
    assert store.newest("gem-") is None


def test_keys_may_be_anything(store, tree):
    for key in ("../../etc/passwd", "a/b", "", "ü" * 500, "nul\0", "-rf"):
        store.save(key, tree, ["one-file"])
        assert store.find(key).key == key
    assert len(list(store.entries())) == 6


def test_the_least_used_go_first(store, tree):
    for number, key in enumerate("abcd"):
        (tree / "one-file").write_bytes(os.urandom(10_000))
        store.save(key, tree, ["one-file"])
        os.utime(store.find(key).about, (1000 + number, 1000 + number))
    os.utime(store.find("a").about, (2000, 2000))
    assert store.prune(25_000) == ["b", "c"]
    assert sorted(entry.key for entry in store.entries()) == ["a", "d"]
    assert store.prune(25_000) == []
    assert len(list(store.find("a").archive.parent.iterdir())) == 4


def test_an_entry_without_its_half_does_not_count(store, tree):
    store.save("k", tree, ["deps"])
    entry = store.find("k")
    entry.archive.unlink()
    assert store.find("k") is None
    store.save("k", tree, ["deps"])
    store.find("k").about.write_text("broken {")
    assert store.find("k") is None
    assert list(store.entries()) == []
    assert store.save("k", tree, ["deps"]) > 0
    assert store.find("k") is not None


def test_what_dead_writers_left_is_swept(store, tree):
    store.save("k", tree, ["deps"])
    folder = store.find("k").archive.parent
    for name, age in (("old", 7200), ("young", 0)):
        (folder / f".saving-{name}").mkdir()
        (folder / f".saving-{name}" / "archive").write_text("half")
        then = os.stat(folder).st_mtime - age
        os.utime(folder / f".saving-{name}", (then, then))
    store.prune()
    assert sorted(path.name for path in folder.glob(".saving-*")) == [".saving-young"]


def test_many_writers_of_one_key_leave_one_whole_entry(store, tree, tmp_path):
    failures: list[Exception] = []

    def save() -> None:
        try:
            CacheStore(tmp_path / "cache").save("k", tree, ["deps"])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=save) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    archives.unpack(store.find("k").archive, tmp_path / "back")
    assert (tmp_path / "back" / "deps" / "deep" / "lib").read_text() == "code"
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_reader_is_not_disturbed_by_pruning(store, tree, tmp_path):
    store.save("k", tree, ["deps"])
    with store.find("k").archive.open("rb") as reading:
        assert store.prune(0) == ["k"]
        assert reading.read(2) == b"\x1f\x8b"
