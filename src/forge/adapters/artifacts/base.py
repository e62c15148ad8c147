"""Artifact stores: immutable bytes under their sha256."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol


class Stored(NamedTuple):
    """How many bytes are stored, and since when (seconds since the epoch, by the store's clock)."""

    size: int
    at: float


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

    async def about(self, digest: str) -> Stored | None:
        """Return how much is stored under a digest, and since when; None: nothing."""

    async def delete(self, digest: str) -> None:
        """Forget the bytes; unknown digests are ignored."""
