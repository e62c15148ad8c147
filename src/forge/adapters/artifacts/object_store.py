"""Artifacts in an object store: S3, Google Cloud, Azure, a folder or memory, by URL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from forge.adapters.artifacts.base import ArtifactStore, Stored
from forge.adapters.artifacts.files import checked, file_digest, scratch_file, write_durably
from forge.model.errors import CorruptData, DependencyFailed, UsageError

PART = 8 * 1024 * 1024
CONCURRENCY = 4
"""Parts in flight: at most `PART * CONCURRENCY` bytes of a file are in memory."""


class ObjectStoreArtifacts(ArtifactStore):
    """Keeps artifacts below a URL such as `s3://bucket/prefix`.

    Credentials and endpoints come from where the provider's own tools look (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
    An object appears whole or not at all; that is the store's promise.
    """

    def __init__(self, url: str, **options: Any) -> None:
        if url.startswith("file://"):
            options.setdefault("mkdir", True)
        try:
            self._store: Any = from_url(url, **options)
        except (BaseError, ValueError) as error:
            raise UsageError(f"artifacts cannot be kept at {url}: {error}") from error
        self._url = url

    async def put(self, path: Path) -> str:
        """Store a file; return its sha256."""
        async with self._failures():
            before = _state(path)
            digest = await asyncio.to_thread(file_digest, path)
        if not await self.has(digest):
            async with self._failures():
                await obstore.put_async(self._store, _name(digest), path, chunk_size=PART, max_concurrency=CONCURRENCY)
            if _state(path) != before:
                await self.delete(digest)
                raise DependencyFailed(f"{path.name} was changed while it was stored")
        return digest

    async def get(self, digest: str, destination: Path) -> None:
        """Write the bytes to `destination`, verified."""
        name = _name(digest)
        async with self._failures(digest):
            answer = await obstore.get_async(self._store, name)
            with scratch_file(destination.parent) as scratch:
                actual = await _receive(answer.stream(min_chunk_size=1 << 20), scratch)
                if actual != digest:
                    raise CorruptData(f"artifact {digest[:12]} is damaged: its bytes hash to {actual[:12]}")
                scratch.replace(destination)

    async def has(self, digest: str) -> bool:
        """Tell whether the bytes are there."""
        return await self.about(digest) is not None

    async def about(self, digest: str) -> Stored | None:
        """Return the size of the bytes, and since when they are stored."""
        try:
            async with self._failures(digest):
                found = await obstore.head_async(self._store, _name(digest))
        except KeyError:
            return None
        return Stored(found["size"], found["last_modified"].timestamp())

    async def delete(self, digest: str) -> None:
        """Forget the bytes."""
        try:
            async with self._failures(digest):
                await obstore.delete_async(self._store, _name(digest))
        except KeyError:
            return

    @asynccontextmanager
    async def _failures(self, digest: str = "") -> AsyncIterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not digest:
                raise DependencyFailed(str(error)) from error
            raise KeyError(digest) from error
        except (BaseError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DependencyFailed(f"the artifact store {self._url} failed: {reason}") from error


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _name(digest: str) -> str:
    return f"{checked(digest)[:2]}/{digest[2:]}"


async def _receive(stream: Any, scratch: Path) -> str:
    """Write the parts of a stream to a file, off the loop's thread; return their sha256."""
    loop = asyncio.get_running_loop()

    async def following(parts: Any) -> bytes | None:
        async for part in parts:
            return bytes(part)
        return None

    def content() -> Any:
        while (part := asyncio.run_coroutine_threadsafe(following(iterator), loop).result()) is not None:
            yield part

    iterator = aiter(stream)
    return await asyncio.to_thread(write_durably, scratch, content(), 0o644)
