"""Artifacts in a local folder: `ab/cdef…`, read-only files that never change."""

from __future__ import annotations

import asyncio
from pathlib import Path

from forge.adapters.artifacts.base import ArtifactStore, Stored
from forge.adapters.artifacts.files import checked, place, scratch_file, slices, sync_folder, write_durably


class FolderArtifacts(ArtifactStore):
    """Keeps artifacts under `root`. Several processes may share it: a file appears by one rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def put(self, path: Path) -> str:
        """Store a file; return its sha256."""
        return await asyncio.to_thread(self._put, path)

    async def get(self, digest: str, destination: Path) -> None:
        """Write the bytes to `destination`, verified."""
        await asyncio.to_thread(self._get, digest, destination)

    async def has(self, digest: str) -> bool:
        """Tell whether the bytes are there."""
        try:
            return self._place_of(digest).is_file()
        except KeyError:
            return False

    async def about(self, digest: str) -> Stored | None:
        """Return the size of the bytes, and since when they are stored."""
        try:
            status = self._place_of(digest).stat()
        except (KeyError, FileNotFoundError):
            return None
        return Stored(status.st_size, status.st_mtime)

    async def delete(self, digest: str) -> None:
        """Forget the bytes."""
        try:
            self._place_of(digest).unlink(missing_ok=True)
        except KeyError:
            return

    def _put(self, path: Path) -> str:
        with scratch_file(self.root / "incoming") as scratch:
            digest = write_durably(scratch, slices(path), 0o444)
            final = self._place_of(digest)
            final.parent.mkdir(parents=True, exist_ok=True)
            # Always replace: if the stored file was damaged, storing it again heals it.
            scratch.replace(final)
            sync_folder(final.parent)
        return digest

    def _get(self, digest: str, destination: Path) -> None:
        stored = self._place_of(digest)
        if not stored.is_file():
            raise KeyError(digest)
        place(digest, slices(stored), destination)

    def _place_of(self, digest: str) -> Path:
        return self.root / checked(digest)[:2] / digest[2:]
