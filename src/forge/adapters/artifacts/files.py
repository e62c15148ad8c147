"""Files that appear whole or not at all, with their sha256."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from forge.model.errors import CorruptData, DependencyFailed

SLICE = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


def checked(digest: str) -> str:
    """Return `digest` if it is a sha256 in hexadecimal; anything else names nothing: KeyError."""
    if not _DIGEST.fullmatch(digest):
        raise KeyError(digest)
    return digest


def slices(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes in slices of 1 MiB."""
    with path.open("rb", buffering=0) as file:
        while data := file.read(SLICE):
            yield data


def file_digest(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def scratch_file(folder: Path) -> Iterator[Path]:
    """Yield the path of a new file in `folder` that is gone afterwards unless it was renamed.

    An OSError inside (full disk, no rights) becomes DependencyFailed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".incoming-", dir=folder)
        os.close(descriptor)
        try:
            yield Path(name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108 - still right when the path object was renamed
    except OSError as error:
        raise DependencyFailed(f"{folder}: {error.strerror or error}") from error


def write_durably(path: Path, content: Iterable[bytes], mode: int) -> str:
    """Write `content` to `path`, through to the disk; return its sha256."""
    hasher = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for data in content:
            hasher.update(data)
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    return hasher.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place(digest: str, content: Iterable[bytes], destination: Path) -> None:
    """Write `content` atomically to `destination` if it has that sha256. Raises CorruptData if it has not."""
    with scratch_file(destination.parent) as scratch:
        actual = write_durably(scratch, content, 0o644)
        if actual != digest:
            raise CorruptData(f"artifact {digest[:12]} is damaged: its bytes hash to {actual[:12]}")
        scratch.replace(destination)
