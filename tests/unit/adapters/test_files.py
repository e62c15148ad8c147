"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os

import pytest

from forge.adapters.artifacts.files import checked, file_digest, place, scratch_file, slices, write_durably
from forge.model.errors import CorruptData, DependencyFailed

DIGEST = hashlib.sha256(b"content").hexdigest()


def test_only_a_sha256_is_a_digest():
    assert checked(DIGEST) == DIGEST
    for wrong in ("", DIGEST[1:], DIGEST + "0", DIGEST.upper(), f"{DIGEST}\n", "../" + DIGEST[3:]):
        with pytest.raises(KeyError):
            checked(wrong)


def test_a_file_is_read_in_slices_and_hashed(tmp_path):
    (tmp_path / "x").write_bytes(b"a" * 2_500_000)
    assert [len(part) for part in slices(tmp_path / "x")] == [1 << 20, 1 << 20, 2_500_000 - (2 << 20)]
    assert file_digest(tmp_path / "x") == hashlib.sha256(b"a" * 2_500_000).hexdigest()


def test_a_scratch_file_is_gone_unless_it_was_renamed(tmp_path):
    with scratch_file(tmp_path / "new") as scratch:
        scratch.write_text("thrown away")
    assert list((tmp_path / "new").iterdir()) == []
    with scratch_file(tmp_path / "new") as scratch:
        scratch.write_text("kept")
        scratch.replace(tmp_path / "new" / "final")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["final"]
    with pytest.raises(RuntimeError), scratch_file(tmp_path / "new"):
        raise RuntimeError
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["final"]


def test_a_folder_that_cannot_be_made_is_a_failed_dependency(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DependencyFailed, match=r"File exists|Not a directory"), scratch_file(tmp_path / "file"):
        pass


def test_writing_gives_the_digest_and_the_mode(tmp_path):
    assert write_durably(tmp_path / "x", [b"con", b"", b"tent"], 0o440) == DIGEST
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o440


def test_a_place_is_taken_only_by_the_right_bytes(tmp_path):
    place(DIGEST, [b"content"], tmp_path / "x")
    with pytest.raises(CorruptData):
        place(DIGEST, [b"other"], tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["x"]
