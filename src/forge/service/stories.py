"""From a release's id to its story."""

from __future__ import annotations

import asyncio
import time

from forge.core.release.replay import trace
from forge.engine.environments import KIND, EnvironmentMachine
from forge.engine.recording import rules
from forge.engine.records import segments, stored_decisions
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError
from forge.store.contract import Store, StoredDecision
from forge.views.explanation import Explanation, explain, narrate
from forge.views.history import ReleaseHistory, history

AFTER_THE_END = 15.0
"""Seconds after a release's end in which answers that were under way are still counted for it."""


async def explanation_of(store: Store, release: str) -> Explanation:
    """Return the story of a release. Raises UsageError, with the nearest known one, when nobody ever heard of it."""
    machine = await store.machines.find(KIND, release.rpartition("-")[0])
    record = await store.machines.load(machine) if machine else None
    if machine is None or record is None:
        raise UsageError(f"there is no release `{release}`", hint=await _hint(store, release))
    state = EnvironmentMachine.load(record)
    known = state.releases.get(release)
    stored = await stored_decisions(store, machine)
    span = (known.created_at, known.finished_at) if known is not None else (None, None)
    found = await asyncio.to_thread(_narrate, release, stored, span)
    if found is not None:
        return found
    if known is None:
        raise UsageError(f"there is no release `{release}`", hint=await _hint(store, release))
    return explain(state, known, time.time())


async def history_of(store: Store, release: str) -> ReleaseHistory:
    """Return a release over time. Raises UsageError, with the nearest known one, when nothing of it is on record."""
    machine = await store.machines.find(KIND, release.rpartition("-")[0])
    record = await store.machines.load(machine) if machine else None
    if machine is None or record is None:
        raise UsageError(f"there is no release `{release}`", hint=await _hint(store, release))
    known = EnvironmentMachine.load(record).releases.get(release)
    span = (known.created_at, known.finished_at) if known is not None else (None, None)
    stored = await stored_decisions(store, machine)
    found = await asyncio.to_thread(lambda: history(release, trace(segments(_around(stored, span)), rules())))
    if found is None:
        raise UsageError(f"nothing of `{release}` is on record", hint=await _hint(store, release))
    return found


def _narrate(release: str, stored: list[StoredDecision], span: tuple[float | None, float | None]) -> Explanation | None:
    return narrate(release, trace(segments(_around(stored, span)), rules()), time.time())


def _around(stored: list[StoredDecision], span: tuple[float | None, float | None]) -> list[StoredDecision]:
    """Return the records around a release: from the last whole state before it, up to its end."""
    begun, ended = span
    first, last = 0, len(stored)
    if begun is not None:
        for index, (_, segment) in enumerate(segments(stored)):
            if segment.start is not None and segment.ticks[0].now <= begun:
                first = index
            if ended is not None and segment.ticks[0].now > ended + AFTER_THE_END:
                last = index
                break
    return stored[first:last]


async def _hint(store: Store, release: str) -> str:
    environments = await store.machines.newest(KIND, limit=100)
    names = [name for record in environments for name in await _releases(store, record.id)]
    return did_you_mean(release, names) or "nothing was released yet; `forge env list` shows the environments"


async def _releases(store: Store, machine: str) -> list[str]:
    record = await store.machines.load(machine)
    return [*EnvironmentMachine.load(record).releases] if record is not None else []
