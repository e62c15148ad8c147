"""Artifact stores: immutable bytes under their sha256."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ArtifactStore(Protocol):
    """Content-addressed storage. Safe for concurrent use; every call is idempotent.

    Files are streamed, never held in memory whole. DependencyFailed: the store is away.
    """

    async def put(self, path: Path) -> str:
        """Store a file; return its sha256 in hexadecimal. Storing the same bytes again changes nothing."""

    async def get(self, digest: str, destination: Path) -> None:
        """Write the bytes to `destination` atomically, verified. Raises CorruptData, or KeyError if unknown."""

    async def has(self, digest: str) -> bool:
        """Tell whether the bytes are there."""

    async def delete(self, digest: str) -> None:
        """Forget the bytes; unknown digests are ignored."""
