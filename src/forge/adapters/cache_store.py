"""Entries of job caches on the local disk: whole or not there, never changed, the least used go first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from forge.adapters import archives

LARGEST = 10 * 1024**3
"""Bytes of all entries together: some builds' worth of dependencies, and no more than a laptop can spare."""
_ABANDONED = 3600.0
"""Seconds after which an unfinished entry belongs to a dead process."""


class _About(msgspec.Struct, frozen=True):
    key: str
    size: int


class Entry(msgspec.Struct, frozen=True):
    """One kept entry. `used` is when it was saved or last restored, seconds since the epoch."""

    key: str
    size: int
    archive: Path
    about: Path
    used: float


class CacheStore:
    """Entries in one folder: `<sha256 of the key>.tar.gz`, and `.json`, whose presence makes the entry count.

    Safe for several processes: an entry appears by renames, and who reads an entry that is being removed
    keeps the open file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> Entry | None:
        """Return the entry of exactly that key."""
        found = self._read(self._about(key))
        return found if found is not None and found.key == key else None

    def newest(self, prefix: str) -> Entry | None:
        """Return the last used entry whose key begins with `prefix`."""
        matching = [entry for entry in self.entries() if entry.key.startswith(prefix)]
        return max(matching, key=lambda entry: entry.used, default=None)

    def entries(self) -> Iterator[Entry]:
        """Yield every entry."""
        for about in self._folder.glob("*.json"):
            entry = self._read(about)
            if entry is not None:
                yield entry

    def save(self, key: str, root: Path, paths: Iterable[str]) -> int:
        """Keep `paths`, relative to `root`, unless the key is there already; return the entry's bytes, or 0
        where none of the paths exists. Raises OSError."""
        kept = self.find(key)
        if kept is not None:
            return kept.size
        names = [name for path in paths for name in archives.tree(root, path)]
        if not names:
            return 0
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = self._about(key)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=self._folder) as scratch:
            archive = Path(scratch, "archive")
            archives.pack(root, names, archive, level=1)
            size = archive.stat().st_size
            Path(scratch, "about").write_bytes(msgspec.json.encode(_About(key, size)))
            archive.replace(about.with_suffix(".tar.gz"))
            Path(scratch, "about").replace(about)
        return size

    def touch(self, entry: Entry) -> None:
        """Note that the entry was used."""
        with contextlib.suppress(OSError):
            os.utime(entry.about)

    def drop(self, entry: Entry) -> None:
        """Remove an entry."""
        entry.about.unlink(missing_ok=True)
        entry.archive.unlink(missing_ok=True)

    def prune(self, largest: int = LARGEST) -> list[str]:
        """Remove the entries unused for longest until the rest fits; return their keys."""
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        total = sum(entry.size for entry in entries)
        dropped = []
        for entry in entries:
            if total <= largest:
                break
            self.drop(entry)
            total -= entry.size
            dropped.append(entry.key)
        self._sweep()
        return dropped

    def _sweep(self) -> None:
        """Remove what processes left that died while they saved."""
        for scratch in self._folder.glob(".saving-*"):
            with contextlib.suppress(OSError):
                if time.time() - scratch.stat().st_mtime > _ABANDONED:
                    for file in scratch.iterdir():
                        file.unlink()
                    scratch.rmdir()

    def _about(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()}.json"

    def _read(self, about: Path) -> Entry | None:
        archive = about.with_suffix(".tar.gz")
        try:
            data = msgspec.json.decode(about.read_bytes(), type=_About)
            if not archive.is_file():
                return None
            return Entry(data.key, data.size, archive, about, about.stat().st_mtime)
        except (OSError, msgspec.MsgspecError):
            return None
