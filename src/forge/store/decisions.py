"""The record of decisions: a second hash chain beside the events, because a decision's inputs are large.

Its head is a row of `log_head` of its own. Both heads are locked in the same order, decisions first, by whoever needs
both, and until the commit.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import bindparam, select, update

from forge.model.decision import canonical_json
from forge.store import tables as t
from forge.store.chain import first_wrong
from forge.store.contract import StoredDecision
from forge.store.statements import Database, Row, Statement, Transaction, add

_d, _h = t.decisions.c, t.log_head.c
_HEAD = Statement(select(_h.seq, _h.hash, t.now()).where(_h.id == t.DECISIONS_HEAD).with_for_update())
_PEEK = Statement(select(_h.seq, _h.hash).where(_h.id == t.DECISIONS_HEAD))
_MOVE_HEAD = Statement(
    update(t.log_head)
    .where(_h.id == t.DECISIONS_HEAD)
    .values(seq=bindparam("new_seq", type_=_h.seq.type), hash=bindparam("new_hash", type_=_h.hash.type))
)
_ADD = add(t.decisions)
_DECISIONS = (
    select(_d.seq, _d.machine, _d.at, _d.body, _d.previous, _d.hash)
    .where(_d.seq > bindparam("after", type_=_d.seq.type))
    .order_by(_d.seq)
    .limit(bindparam("most", type_=_d.seq.type))
)
_READ = Statement(_DECISIONS)
_READ_MACHINE = Statement(_DECISIONS.where(_d.machine == bindparam("machine")))
_PAGE = 200


def append(transaction: Transaction, machine: str, body: bytes) -> None:
    """Add a record to the chain. Call it at the end of a transaction: others wait from here on until the commit."""
    ((seq, previous, at),) = transaction.run(_HEAD)
    digest = link(previous, seq + 1, machine, at, body)
    row = {"seq": seq + 1, "machine": machine, "at": at, "body": body, "previous": previous, "hash": digest}
    transaction.many(_ADD, [row])
    transaction.run(_MOVE_HEAD, new_seq=seq + 1, new_hash=digest)


def link(previous: str, seq: int, machine: str, at: float, body: bytes) -> str:
    """Return the hash of a record: sha256 of the previous hash, the canonical JSON of the rest, and the body."""
    rest = canonical_json({"at": at, "machine": machine, "seq": seq})
    return hashlib.sha256(previous.encode() + rest + body).hexdigest()


class DatabaseDecisions:
    """`forge.store.contract.Decisions` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, machine: str | None = None, *, after: int = 0, limit: int = _PAGE) -> list[StoredDecision]:
        """Return records in order."""

        def work(transaction: Transaction) -> list[Row]:
            if machine is None:
                return transaction.run(_READ, after=after, most=limit)
            return transaction.run(_READ_MACHINE, after=after, most=limit, machine=machine)

        rows: list[Row] = await self._database.read(work)
        return [
            StoredDecision(seq=seq, machine=of, at=at, body=bytes(body), previous=previous, hash=digest)
            for seq, of, at, body, previous, digest in rows
        ]

    async def count(self) -> int:
        """Return how many records there are, as the head of the chain says."""
        heads: list[Row] = await self._database.read(lambda transaction: transaction.run(_PEEK))
        return int(heads[0][0]) if heads else 0

    async def verify(self) -> int | None:
        """Return the seq of the first record that does not fit the chain, or None when all do."""
        return await first_wrong(self._database, _READ, _PEEK, _PAGE, _link_of)


def _link_of(previous: str, seq: int, row: Row) -> str | None:
    _, machine, at, body, _, _ = row
    return link(previous, seq, machine, at, bytes(body)) if isinstance(body, bytes | memoryview) else None
