"""The source that a run builds from: taken once, when the run starts, and the same for every job."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from weakref import WeakValueDictionary

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
_KEPT = 4
_IN_USE = 3600.0


class _SmallFile(msgspec.Struct, frozen=True):
    """A file, folder or link of a source that is small enough to be kept in memory."""

    name: str
    mode: int
    content: bytes = b""
    link: str = ""


_fetching: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()
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
        if not _at_hand(source, cache):
            async with _alone(source.digest):
                if not _at_hand(source, cache):
                    await _fetch(source, store, into, cache)
        small = _small.get(source.digest)
        if small is not None:
            empty(into)
            _write_small(small, into)
        elif cache is not None:
            await asyncio.to_thread(_copy_kept, cache / source.digest, into)
    except KeyError as error:
        raise DependencyFailed(f"the source {source.digest[:12]} is not in the artifact store any more") from error
    except (OSError, shutil.Error) as error:
        raise DependencyFailed(f"the source could not be written to {into}: {error}") from error


def _at_hand(source: Source, cache: Path | None) -> bool:
    return source.digest in _small or (cache is not None and (cache / source.digest).is_dir())


def _alone(digest: str) -> asyncio.Lock:
    """Return the lock of a source: of the jobs that start together, one fetches and the others wait for it."""
    return _fetching.setdefault((id(asyncio.get_running_loop()), digest), asyncio.Lock())


async def _fetch(source: Source, store: ArtifactStore, into: Path, cache: Path | None) -> None:
    """Unpack the archive; remember it if it is small, else leave it in the cache, or without one at `into`."""
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
            await asyncio.to_thread(_keep, tree, cache / source.digest)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


def _keep(tree: Path, kept: Path) -> None:
    try:
        tree.rename(kept)
    except OSError:
        if not kept.is_dir():  # else another process was faster, which is fine
            raise
    os.utime(kept)
    _forget_unused(kept.parent)


def _copy_kept(kept: Path, into: Path) -> None:
    os.utime(kept)
    _copy_tree(kept, into)


def _forget_unused(cache: Path) -> None:
    """Remove kept trees that are not among the last used, and that nobody can be copying any more; and what
    processes left that died while they fetched."""
    by_use = sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    unfinished = [path for path in by_use if path.name.startswith(".")]
    kept = [path for path in by_use if path not in unfinished]
    for tree in (*unfinished, *kept[_KEPT:]):
        if time.time() - tree.stat().st_mtime > _IN_USE:
            shutil.rmtree(tree, ignore_errors=True)


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
