"""A worker's view of the database, and the ways in which the worker ends or loses touch with it.

Killed: nothing that it does any more has an effect. Stopped: it sleeps in the middle of a write, longer than its
lease, and goes on as if nothing had happened. Deaf: nobody wakes it, it finds out by itself.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec

from forge.model.errors import DependencyFailed
from forge.store.contract import Store

WRITES = frozenset({"write", "finish", "finish_all"})
FAMILIES = ("machines", "intents", "inbox", "log", "documents", "slots")


class Fate(msgspec.Struct, frozen=True):
    """What befalls a worker at its write number `at`, before or after it reaches the disk."""

    what: Literal["killed", "stopped", "deaf"] = "killed"
    at: int = 0
    moment: Literal["before", "after"] = "before"
    lasts: float = 30.0


class MortalStore:
    """The same database, for one worker with a fate."""

    def __init__(self, store: Store, fate: Fate | None) -> None:
        self.dead = asyncio.Event()
        self.writes = 0
        self._store, self._fate = store, fate
        for family in FAMILIES:
            setattr(self, family, _Family(self, getattr(store, family)))

    async def call(self, name: str, act: Any, words: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Do what the worker asks, unless its fate is otherwise."""
        if self.dead.is_set():
            if name in {"let_go", "let_go_all"}:
                return None  # a process that was killed gives nothing back
            raise DependencyFailed("killed")
        fate, due = self._fate, False
        if name in WRITES and fate is not None:
            self.writes += 1
            due = self.writes == fate.at
        if due and fate is not None and fate.moment == "before":
            await self._befall(fate)
        result = await act(*words, **named)
        if due and fate is not None and fate.moment == "after":
            await self._befall(fate)
        return result

    async def _befall(self, fate: Fate) -> None:
        if fate.what == "killed":
            self.dead.set()
            raise DependencyFailed("killed")
        if fate.what == "stopped":
            await asyncio.sleep(fate.lasts)

    async def now(self) -> float:
        """Return the database's time."""
        if self.dead.is_set():
            raise DependencyFailed("killed")
        return await self._store.now()

    def mark(self) -> int:
        """See Store."""
        return self._store.mark()

    async def wait(self, timeout: float, *, since: int | None = None) -> None:
        """See Store; a deaf worker sleeps on."""
        if self._fate is not None and self._fate.what == "deaf":
            await asyncio.sleep(timeout)
        else:
            await self._store.wait(timeout, since=since)

    def mark_events(self) -> int:
        """See Store."""
        return self._store.mark_events()

    async def wait_for_events(self, timeout: float, *, since: int | None = None) -> None:
        """See Store."""
        await self._store.wait_for_events(timeout, since=since)

    async def close(self) -> None:
        """Nothing: the database is others' too."""


class _Family:
    def __init__(self, owner: MortalStore, family: Any) -> None:
        self._owner, self._family = owner, family

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._family, name)

        async def call(*words: Any, **named: Any) -> Any:
            return await self._owner.call(name, act, words, named)

        return call
