"""The record of decisions: a second hash chain beside the events, because a decision's inputs are large."""

from __future__ import annotations

import hashlib

from forge.model.decision import canonical_json
from forge.store import tables as t
from forge.store.chain import Chain
from forge.store.contract import StoredDecision
from forge.store.statements import Database, Transaction

_PAGE = 200


def append(transaction: Transaction, machine: str, body: bytes) -> None:
    """Add a record to the chain. Call it at the end of a transaction: others wait from here on until the commit."""
    CHAIN.append(transaction, machine, [body])


def link(previous: str, seq: int, machine: str, at: float, body: bytes) -> str:
    """Return the hash of a record: sha256 of the previous hash, the canonical JSON of the rest, and the body."""
    rest = canonical_json({"at": at, "machine": machine, "seq": seq})
    return hashlib.sha256(previous.encode() + rest + body).hexdigest()


CHAIN = Chain(t.decisions, "body", t.DECISIONS_HEAD, link, page=_PAGE)


class DatabaseDecisions:
    """`forge.store.contract.Decisions` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, machine: str | None = None, *, after: int = 0, limit: int = _PAGE) -> list[StoredDecision]:
        """Return records in order."""
        return [
            StoredDecision(seq=seq, machine=of, at=at, body=bytes(body), previous=previous, hash=digest)
            for seq, of, at, body, previous, digest in await CHAIN.read(self._database, machine, after, limit)
        ]

    async def count(self) -> int:
        """Return how many records there are, as the head of the chain says."""
        return await CHAIN.count(self._database)

    async def verify(self) -> int | None:
        """Return the seq of the first record that does not fit the chain, or None when all do."""
        return await CHAIN.first_wrong(self._database)
