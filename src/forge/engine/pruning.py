"""Deleting artifacts and source snapshots that nothing needs any more.

Needed is what a run that is not over may read, what the newest runs read and published, and every artifact that is
mentioned anywhere in an environment's state or in the commands that wait for it: the versions that run, those that a
rollback may go to, those of releases that wait. Only what this database knows of is ever deleted.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from forge.adapters.artifacts.base import Stored
from forge.core.pipeline.state import RUN_FINAL
from forge.engine.artifact_index import COLLECTION as ARTIFACTS
from forge.engine.artifact_index import artifacts_of
from forge.engine.environments import COPY_DIGITS
from forge.engine.environments import KIND as ENVIRONMENT
from forge.engine.plans import COLLECTION as PLANS
from forge.engine.runs import KIND as RUN
from forge.engine.runs import load_run
from forge.store.contract import Record

if TYPE_CHECKING:
    from forge.engine.engine import Engine

KEPT_RUNS = 50
RECENT_SECONDS = 3600.0
"""What was stored so lately may belong to a run that is about to say so."""
_ALL = 1_000_000
_DIGEST = re.compile(rb"[0-9a-f]{64}")


class _Source(msgspec.Struct, frozen=True):
    digest: str = ""


class _Plan(msgspec.Struct, frozen=True):
    source: _Source = _Source()


class _Artifact(msgspec.Struct, frozen=True):
    digest: str


class _Entry(msgspec.Struct, frozen=True):
    artifact: _Artifact


class Pruned(msgspec.Struct, frozen=True):
    """What was deleted, as (digest, bytes); how many are needed; bytes of environments' own copies that went too."""

    deleted: tuple[tuple[str, int], ...] = ()
    kept: int = 0
    copies: int = 0


async def prune(
    engine: Engine, *, keep: int = KEPT_RUNS, dry_run: bool = False, recent: float = RECENT_SECONDS
) -> Pruned:
    """Delete what nothing needs; `keep` is how many of the newest runs keep theirs. Raises DependencyFailed.

    Looks twice, the second time just before it deletes: what came to be needed meanwhile stays.
    """
    known = await _known(engine)
    unneeded = known - await needed(engine, keep)
    found: dict[str, Stored] = {}
    for digest in sorted(unneeded):
        stored = await engine.artifacts.about(digest)
        if stored is not None and stored.at < time.time() - recent:
            found[digest] = stored
    wanted = await needed(engine, keep)
    deleted = [(digest, stored.size) for digest, stored in found.items() if digest not in wanted]
    for digest, _ in deleted if not dry_run else ():
        await engine.artifacts.delete(digest)
    folders = engine.project.state / "environments"
    copies = await asyncio.to_thread(_remove_copies, folders, wanted, recent, dry_run=dry_run)
    return Pruned(tuple(deleted), len(known & wanted), copies)


async def needed(engine: Engine, keep: int) -> set[str]:
    """Return the digests that must stay, of artifacts and of sources."""
    digests: set[str] = set()
    newest = await engine.store.machines.newest(RUN, limit=_ALL)
    for place, record in enumerate(newest):
        if place < keep or record.status not in RUN_FINAL:
            digests |= await _of_run(engine, record)
    for header in await engine.store.machines.newest(ENVIRONMENT, limit=_ALL):
        record = await engine.store.machines.load(header.id) or header
        commands = await engine.store.inbox.of(header.id)
        digests |= _mentioned((record.head, *record.parts.values(), msgspec.json.encode(commands)))
    return digests


async def _of_run(engine: Engine, record: Record) -> set[str]:
    plan = await engine.plans.get(load_run(record).plan_digest)
    published = {artifact.digest for artifact in await artifacts_of(engine.store.documents, record.id)}
    return published | ({plan.source.digest} if plan.source.digest else set())


def _mentioned(texts: Iterable[bytes]) -> set[str]:
    """Return everything in a state that could be a digest: rather too much than one version too few."""
    return {found.decode() for text in texts for found in _DIGEST.findall(text)}


async def _known(engine: Engine) -> set[str]:
    """Return every digest that a run of this database stored."""
    documents = engine.store.documents
    entries = (await documents.all(ARTIFACTS)).values()
    plans = (await documents.all(PLANS)).values()
    sources = {msgspec.json.decode(plan, type=_Plan).source.digest for plan in plans}
    return {msgspec.json.decode(entry, type=_Entry).artifact.digest for entry in entries} | (sources - {""})


def _remove_copies(folders: Path, wanted: set[str], recent: float, *, dry_run: bool) -> int:
    """Remove the copies that environments of this machine keep of artifacts that are not needed; return the bytes."""
    starts = {digest[:COPY_DIGITS] for digest in wanted}
    size = 0
    for copy in folders.glob("*/artifacts/*/"):
        if copy.name in starts or copy.stat().st_mtime >= time.time() - recent:
            continue
        size += sum(file.lstat().st_size for file in copy.rglob("*") if not file.is_dir())
        if not dry_run:
            shutil.rmtree(copy, ignore_errors=True)
    return size
