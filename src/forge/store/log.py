"""The hash-chained log of events."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from forge.model.decision import Event, canonical_json
from forge.store import tables as t
from forge.store.chain import Chain
from forge.store.contract import StoredEvent
from forge.store.statements import Database, Transaction

_decode = msgspec.json.Decoder(Event).decode


def append(transaction: Transaction, machine: str, events: Sequence[Event]) -> None:
    """Add events to the chain. Call it last in a transaction: others wait from here on until the commit."""
    if not events:
        return
    CHAIN.append(transaction, machine, [canonical_json(event) for event in events])
    transaction.logged()


def link(previous: str, seq: int, machine: str, at: float, event: bytes) -> str:
    """Return the hash of a record: sha256 of the previous hash and the canonical JSON of the rest."""
    rest = canonical_json({"at": at, "event": msgspec.Raw(event), "machine": machine, "seq": seq})
    return hashlib.sha256(previous.encode() + rest).hexdigest()


CHAIN = Chain(t.events, "event", t.EVENTS_HEAD, link, page=2000)


class DatabaseLog:
    """`forge.store.contract.Log` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, machine: str, events: tuple[Event, ...]) -> None:
        """Add events that are no machine's decision."""
        await self._database.write(lambda transaction: append(transaction, machine, events))

    async def read(self, machine: str | None = None, *, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        """Return events in order."""
        return [
            StoredEvent(seq=seq, machine=of, at=at, event=_decode(event), previous=previous, hash=digest)
            for seq, of, at, event, previous, digest in await CHAIN.read(self._database, machine, after, limit)
        ]

    async def last(self, machine: str) -> int:
        """Return the seq of the newest event of a machine, 0 when there is none."""
        return await CHAIN.last(self._database, machine)

    async def count(self) -> int:
        """Return how many records there are, as the head of the chain says."""
        return await CHAIN.count(self._database)

    async def verify(self) -> int | None:
        """Return the seq of the first record that does not fit the chain, or None when all do."""
        return await CHAIN.first_wrong(self._database)
