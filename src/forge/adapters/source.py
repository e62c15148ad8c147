"""The source that a run builds from: taken once, when the run starts, and the same for every job."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path

import msgspec

from forge.adapters import archives
from forge.adapters.artifacts.base import ArtifactStore
from forge.adapters.paths import empty
from forge.adapters.working_tree import describe, files
from forge.model.errors import DependencyFailed
from forge.model.plan import Source

_SMALL_FILES = 64
_SMALL_BYTES = 1 << 20
_REMEMBERED = 8


class _SmallFile(msgspec.Struct, frozen=True):
    """A file, folder or link of a source that is small enough to be kept in memory."""

    name: str
    mode: int
    content: bytes = b""
    link: str = ""


_small: OrderedDict[str, tuple[_SmallFile, ...]] = OrderedDict()


async def snapshot(root: Path, store: ArtifactStore, scratch: Path) -> Source:
    """Store the working tree of `root` and return what it is: untracked files too, ignored ones not.

    `.git/` and `.forge/` are never part of it. The same tree gives the same digest. `scratch` is a folder
    for a temporary file. Raises DependencyFailed.
    """
    return await asyncio.to_thread(_pack, root, scratch, store, asyncio.get_running_loop())


def _pack(root: Path, scratch: Path, store: ArtifactStore, loop: asyncio.AbstractEventLoop) -> Source:
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="source-", dir=scratch) as folder:
            archive = Path(folder, "source.tar.gz")
            archives.pack(root, files(root), archive, level=1)
            digest = asyncio.run_coroutine_threadsafe(store.put(archive), loop).result()
    except OSError as error:
        raise DependencyFailed(f"the source in {root} could not be read: {error}") from error
    commit, ref, dirty = describe(root)
    return Source(digest=digest, commit=commit, ref=ref, dirty=dirty)


async def unpack(source: Source, store: ArtifactStore, into: Path, *, cache: Path | None = None) -> None:
    """Make the folder `into` hold exactly the source: what else was in it is removed.

    A small source is kept in memory; a larger one, given `cache` (a folder on the same disk), is unpacked
    once and then copied, by reference where the file system can. Raises DependencyFailed, CorruptData.
    """
    if not source.digest:  # a plan that was made without a source, as simulations do
        empty(into)
        return
    try:
        if source.digest not in _small and not await _copy_cached(source, into, cache):
            await _unpack_archive(source, store, into, cache)
        small = _small.get(source.digest)
        if small is not None:
            empty(into)
            _write_small(small, into)
    except KeyError as error:
        raise DependencyFailed(f"the source {source.digest[:12]} is not in the artifact store any more") from error
    except OSError as error:
        raise DependencyFailed(f"the source could not be written to {into}: {error.strerror or error}") from error


async def _copy_cached(source: Source, into: Path, cache: Path | None) -> bool:
    if cache is None or not (cache / source.digest).is_dir():
        return False
    await asyncio.to_thread(_copy_tree, cache / source.digest, into)
    return True


async def _unpack_archive(source: Source, store: ArtifactStore, into: Path, cache: Path | None) -> None:
    """Fetch and unpack the archive; remember it if it is small, else leave it at `into` (and in the cache)."""
    into.parent.mkdir(parents=True, exist_ok=True)
    home = cache if cache is not None else into.parent
    home.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".source-", dir=home))
    try:
        await store.get(source.digest, scratch / "archive")
        tree = scratch / "tree"
        await asyncio.to_thread(archives.unpack, scratch / "archive", tree, any_links=True)
        small = _read_small(tree)
        if small is not None:
            _remember(source.digest, small)
        elif cache is None:
            await asyncio.to_thread(_copy_tree, tree, into)
        else:
            await asyncio.to_thread(_keep_and_copy, tree, cache / source.digest, into)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


def _keep_and_copy(tree: Path, kept: Path, into: Path) -> None:
    try:
        tree.rename(kept)
    except OSError:
        if not kept.is_dir():  # else another job was faster, which is fine
            raise
    _copy_tree(kept, into)


def _copy_tree(tree: Path, into: Path) -> None:
    empty(into)
    shutil.copytree(tree, into, symlinks=True, dirs_exist_ok=True)


def _read_small(tree: Path) -> tuple[_SmallFile, ...] | None:
    found: list[_SmallFile] = []
    size = 0
    for folder, folders, names in os.walk(tree):
        for name in (*folders, *names):
            path = Path(folder, name)
            status = path.lstat()
            size += status.st_size if path.is_file() else 0
            if len(found) >= _SMALL_FILES or size > _SMALL_BYTES:
                return None
            relative = str(path.relative_to(tree))
            if path.is_symlink():
                found.append(_SmallFile(relative, 0, link=str(path.readlink())))
            elif path.is_dir():
                found.append(_SmallFile(relative, -1))
            else:
                found.append(_SmallFile(relative, status.st_mode & 0o777, path.read_bytes()))
    return tuple(found)


def _remember(digest: str, small: tuple[_SmallFile, ...]) -> None:
    _small[digest] = small
    while len(_small) > _REMEMBERED:
        _small.popitem(last=False)


def _write_small(small: tuple[_SmallFile, ...], into: Path) -> None:
    for file in small:
        place = os.path.join(into, file.name)  # noqa: PTH118 - a thousand jobs come through here
        if file.link:
            os.symlink(file.link, place)  # noqa: PTH211
        elif file.mode < 0:
            os.mkdir(place)  # noqa: PTH102
        else:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file.mode)
            try:
                os.write(descriptor, file.content)
            finally:
                os.close(descriptor)
