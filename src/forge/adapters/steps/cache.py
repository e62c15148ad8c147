"""`cache:` folders that a job finds again as an earlier job with the same key left them.

The step restores. Saving has to wait until the job has succeeded, so the step leaves a mark beside the
workspace, and the run machine calls `save_caches` at the end of a successful job.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from forge.adapters import archives
from forge.adapters.cache_store import CacheStore
from forge.adapters.paths import inside
from forge.adapters.steps.base import StepContext, StepResult
from forge.adapters.steps.private import private_file, private_folder
from forge.model.configs import CacheConfig
from forge.model.errors import ForgeError, UsageError
from forge.model.units import format_size

_MARK = ".cache-mark"


class _Mark(msgspec.Struct, frozen=True):
    """What is to be saved when the job has succeeded. `paths` are relative to the workspace."""

    key: str
    paths: tuple[str, ...]


class CacheStep:
    """Restores the entry of the exact key, or else the newest whose key begins with one of `restore_keys`.

    Outputs: `key`, `hit` (the exact key was there), `restored` (the key that was restored, or empty). A cache
    that cannot be read is a miss, never a failure.
    """

    kind = "cache"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, CacheConfig)
        try:
            paths = tuple(_relative(context, path) for path in config.paths)
            key = await asyncio.to_thread(_full_key, context.cwd, config)
        except UsageError as error:
            return StepResult("failed", error.message)
        restored = await asyncio.to_thread(self._restore, context, key, config.restore_keys)
        mark = private_file(context, _MARK)
        if restored == key:
            mark.unlink(missing_ok=True)
        else:
            mark.write_bytes(msgspec.json.encode(_Mark(key, paths)))
        return StepResult("succeeded", outputs={"key": key, "hit": restored == key, "restored": restored})

    def _restore(self, context: StepContext, key: str, prefixes: Iterable[str]) -> str:
        store = CacheStore(context.cache / "entries")
        found = store.find(key) or next(filter(None, map(store.newest, prefixes)), None)
        if found is None:
            context.say(f"cache: nothing is kept for {key}")
            return ""
        try:
            archives.unpack(found.archive, context.workspace, any_links=True)
        except (OSError, ForgeError) as error:
            store.drop(found)
            context.say(f"cache: the entry {found.key} could not be restored and was dropped: {error}")
            return ""
        store.touch(found)
        context.say(f"cache: restored {found.key} ({format_size(found.size)})")
        return found.key


async def save_caches(workspace: Path, cache: Path, say: Callable[[str], None]) -> None:
    """Save what the cache steps of a job have marked; call it once, when the job has succeeded.

    `workspace` and `cache` are those of the job's `StepContext`. Problems are said, never raised: a job
    does not fail for its cache. Entries never change: of two jobs that save the same key, the first wins.
    """
    await asyncio.to_thread(_save, workspace, cache, say)


def _save(workspace: Path, cache: Path, say: Callable[[str], None]) -> None:
    store = CacheStore(cache / "entries")
    for path in sorted(private_folder(workspace).glob(f"*{_MARK}")):
        try:
            mark = msgspec.json.decode(path.read_bytes(), type=_Mark)
            size = store.save(mark.key, workspace, mark.paths)
            say(f"cache: kept {mark.key} ({format_size(size)})" if size else f"cache: nothing to keep for {mark.key}")
        except (OSError, msgspec.MsgspecError) as error:
            say(f"cache: not kept: {error}")
        path.unlink(missing_ok=True)
    store.prune()


def _relative(context: StepContext, path: str) -> str:
    place = inside(context.workspace, path, context.cwd)
    if place == context.workspace:
        raise UsageError(f"`{path}` cannot be cached; name a folder or a file inside the workspace")
    return str(place.relative_to(context.workspace))


def _full_key(cwd: Path, config: CacheConfig) -> str:
    """Return the key with the hash of the key files' names and contents."""
    if not config.key_files:
        return config.key
    hasher = hashlib.sha256()
    for pattern in config.key_files:
        if pattern.startswith("/") or ".." in Path(pattern).parts:
            raise UsageError(f"`{pattern}` leads out of the workspace")
        for path in sorted(cwd.glob(pattern)):
            if path.is_file():
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").digest()
                hasher.update(str(path.relative_to(cwd)).encode(errors="surrogateescape") + b"\0" + content)
    return f"{config.key}-{hasher.hexdigest()[:16]}"
