"""Artifacts in memory: for tests and trials; gone with the process."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from forge.adapters.artifacts.base import ArtifactStore, Stored
from forge.adapters.artifacts.files import place


class MemoryArtifacts(ArtifactStore):
    """Keeps every artifact as bytes."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.stored_at: dict[str, float] = {}

    async def put(self, path: Path) -> str:
        """Store a file; return its sha256."""
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self.contents[digest] = content
        self.stored_at[digest] = time.time()
        return digest

    async def get(self, digest: str, destination: Path) -> None:
        """Write the bytes to `destination`, verified."""
        place(digest, iter([self.contents[digest]]), destination)

    async def has(self, digest: str) -> bool:
        """Tell whether the bytes are there."""
        return digest in self.contents

    async def about(self, digest: str) -> Stored | None:
        """Return the size of the bytes, and since when they are stored."""
        return Stored(len(self.contents[digest]), self.stored_at.get(digest, 0.0)) if digest in self.contents else None

    async def delete(self, digest: str) -> None:
        """Forget the bytes."""
        self.contents.pop(digest, None)
