"""The hash-chained log.

Appends are serialised by the lock on `log_head`, taken by the last statements of a transaction and held until its
commit: the order of `seq` is the order of commits, so a reader that remembers the last `seq` misses nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, select, update

from forge.model.decision import Event, canonical_json
from forge.store import tables as t
from forge.store.chain import first_wrong
from forge.store.contract import StoredEvent
from forge.store.statements import Database, Row, Statement, Transaction, add

_HEAD = Statement(select(t.log_head.c.seq, t.log_head.c.hash, t.now()).where(t.log_head.c.id == 1).with_for_update())
_MOVE_HEAD = Statement(
    update(t.log_head)
    .where(t.log_head.c.id == 1)
    .values(
        seq=bindparam("new_seq", type_=t.log_head.c.seq.type), hash=bindparam("new_hash", type_=t.log_head.c.hash.type)
    )
)
_ADD = add(t.events)
_EVENTS = (
    select(t.events.c.seq, t.events.c.machine, t.events.c.at, t.events.c.event, t.events.c.previous, t.events.c.hash)
    .where(t.events.c.seq > bindparam("after", type_=t.events.c.seq.type))
    .order_by(t.events.c.seq)
    .limit(bindparam("most", type_=t.events.c.seq.type))
)
_READ = Statement(_EVENTS)
_READ_MACHINE = Statement(_EVENTS.where(t.events.c.machine == bindparam("machine")))
_PEEK = Statement(select(t.log_head.c.seq, t.log_head.c.hash).where(t.log_head.c.id == 1))

_decode = msgspec.json.Decoder(Event).decode


def append(transaction: Transaction, machine: str, events: Sequence[Event]) -> None:
    """Add events to the chain. Call it last in a transaction: others wait from here on until the commit."""
    if not events:
        return
    ((seq, previous, at),) = transaction.run(_HEAD)
    rows = []
    for seq_of, event in enumerate(events, seq + 1):
        body = canonical_json(event)
        digest = link(previous, seq_of, machine, at, body)
        rows.append({"seq": seq_of, "machine": machine, "at": at, "event": body, "previous": previous, "hash": digest})
        previous = digest
    transaction.many(_ADD, rows)
    transaction.run(_MOVE_HEAD, new_seq=seq + len(rows), new_hash=previous)
    transaction.logged()


def link(previous: str, seq: int, machine: str, at: float, event: bytes) -> str:
    """Return the hash of a record: sha256 of the previous hash and the canonical JSON of the rest."""
    rest = canonical_json({"at": at, "event": msgspec.Raw(event), "machine": machine, "seq": seq})
    return hashlib.sha256(previous.encode() + rest).hexdigest()


class DatabaseLog:
    """`forge.store.contract.Log` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, machine: str | None = None, *, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        """Return events in order."""

        def work(transaction: Transaction) -> list[Row]:
            if machine is None:
                return transaction.run(_READ, after=after, most=limit)
            return transaction.run(_READ_MACHINE, after=after, most=limit, machine=machine)

        rows: list[Row] = await self._database.read(work)
        return [
            StoredEvent(seq=seq, machine=of, at=at, event=_decode(event), previous=previous, hash=digest)
            for seq, of, at, event, previous, digest in rows
        ]

    async def count(self) -> int:
        """Return how many records there are, as the head of the chain says."""
        heads: list[Row] = await self._database.read(lambda transaction: transaction.run(_PEEK))
        return int(heads[0][0]) if heads else 0

    async def verify(self) -> int | None:
        """Return the seq of the first record that does not fit the chain, or None when all do."""
        return await first_wrong(self._database, _READ, _PEEK, 2000, _link_of)


def _link_of(previous: str, seq: int, row: Row) -> str | None:
    _, machine, at, event, _, _ = row
    return link(previous, seq, machine, at, bytes(event)) if isinstance(event, bytes | memoryview) else None
