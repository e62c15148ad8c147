"""Decisions on record, read back, made again and compared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from forge.core.release.replay import Replayed, Segment, replay
from forge.engine.recording import read, rules
from forge.store.contract import Store, StoredDecision

_PAGE = 200


async def stored_decisions(store: Store, machine: str | None = None) -> list[StoredDecision]:
    """Return all records, of one machine or of all, in order."""
    found: list[StoredDecision] = []
    while page := await store.decisions.read(machine, after=found[-1].seq if found else 0, limit=_PAGE):
        found += page
    return found


async def replay_all(store: Store, machine: str | None = None) -> Replayed:
    """Make every decision on record again and compare. Raises CorruptData for a record that cannot be read."""
    stored = await stored_decisions(store, machine)
    return await asyncio.to_thread(replay, segments(stored), rules())


def segments(stored: Sequence[StoredDecision]) -> Iterator[tuple[int, Segment]]:
    """Unpack records one after the other."""
    for record in stored:
        yield record.seq, read(record.body, record.seq)
