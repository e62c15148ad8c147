"""A hash chain in a table: appending, paging, and walking it from its first record to its head, whatever was done to
the bytes.

Appends are serialised by the lock on the chain's row of `log_head`, held until the commit: the order of `seq` is the
order of commits, so a reader that remembers the last `seq` misses nothing. Whoever appends to both chains locks the
decisions first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Table, bindparam, func, select, update

from forge.model.errors import DependencyFailed
from forge.store import tables as t
from forge.store.statements import Database, Row, Statement, Transaction, add

Link = Callable[[str, int, str, float, bytes], str]
"""Returns the hash of a record from the previous hash, its seq, machine, time and body."""

ALIVE = Statement(select(t.now()))


class Chain:
    """The chain in `table`, whose records have their body in the column `body` and their end in row `head` of
    `log_head`. It is read `page` records at a time."""

    def __init__(self, table: Table, body: str, head: int, link: Link, *, page: int) -> None:
        self.page = page
        self._body = body
        self._link = link
        c, h = table.c, t.log_head.c
        end = h.id == head
        self.lock = Statement(select(h.seq, h.hash, t.now()).where(end).with_for_update())
        self.end = Statement(select(h.seq, h.hash).where(end))
        self.move_end = Statement(
            update(t.log_head)
            .where(end)
            .values(seq=bindparam("new_seq", type_=h.seq.type), hash=bindparam("new_hash", type_=h.hash.type))
        )
        self.add = add(table)
        records = (
            select(c.seq, c.machine, c.at, c[body], c.previous, c.hash)
            .where(c.seq > bindparam("after", type_=c.seq.type))
            .order_by(c.seq)
            .limit(bindparam("most", type_=c.seq.type))
        )
        self.records = Statement(records)
        self.records_of = Statement(records.where(c.machine == bindparam("machine")))
        self.newest_of = Statement(select(func.max(c.seq)).where(c.machine == bindparam("machine")))

    def append(self, transaction: Transaction, machine: str, bodies: Sequence[bytes]) -> None:
        """Add records. Call it at the end of a transaction: others wait from here on until the commit."""
        ((seq, previous, at),) = transaction.run(self.lock)
        rows = []
        for number, body in enumerate(bodies, seq + 1):
            digest = self._link(previous, number, machine, at, body)
            rows.append(
                {"seq": number, "machine": machine, "at": at, self._body: body, "previous": previous, "hash": digest}
            )
            previous = digest
        transaction.many(self.add, rows)
        transaction.run(self.move_end, new_seq=seq + len(rows), new_hash=previous)

    async def read(self, database: Database, machine: str | None, after: int, limit: int) -> list[Row]:
        """Return records (seq, machine, at, body, previous, hash) in order, of one machine or of all."""

        def work(transaction: Transaction) -> list[Row]:
            if machine is None:
                return transaction.run(self.records, after=after, most=limit)
            return transaction.run(self.records_of, after=after, most=limit, machine=machine)

        rows: list[Row] = await database.read(work)
        return rows

    async def last(self, database: Database, machine: str) -> int:
        """Return the seq of the newest record of a machine, 0 when there is none."""
        rows: list[Row] = await database.read(lambda transaction: transaction.run(self.newest_of, machine=machine))
        return int(rows[0][0] or 0)

    async def count(self, database: Database) -> int:
        """Return how many records there are, as the end of the chain says."""
        ends: list[Row] = await database.read(lambda transaction: transaction.run(self.end))
        return int(ends[0][0]) if ends else 0

    async def first_wrong(self, database: Database) -> int | None:
        """Return the seq of the first record that does not fit the chain, or None when all do.

        Raises DependencyFailed when the database cannot be read at all.
        """
        seq, previous, size, end_is_whole = 0, "", self.page, True

        def look(transaction: Transaction) -> tuple[list[Row], list[Row]]:
            # One transaction for both: a chain that grows meanwhile must not look cut off.
            ends = transaction.run(self.end) if end_is_whole else []
            return transaction.run(self.records, after=seq, most=size), ends

        while True:
            try:
                found, ends = await database.read(look, whole=True)
            except DependencyFailed:
                await database.read(lambda transaction: transaction.run(ALIVE))
                if size > 1:
                    size = 1  # something here cannot even be read: find out which record it is
                elif end_is_whole:
                    end_is_whole = False
                else:
                    return seq + 1
                continue
            for row in found:
                if not self._fits(row, seq, previous):
                    return seq + 1
                seq, previous = row[0], row[-1]
            if len(found) < size:
                return None if ends == [(seq, previous)] else seq + 1

    def _fits(self, row: Row, seq: int, previous: str) -> bool:
        """Return whether a record is the one after `seq` and `previous`, with the hash that it must have."""
        number, machine, at, body, before, digest = row
        if number != seq + 1 or before != previous or not isinstance(body, bytes | memoryview):
            return False
        return digest is not None and self._link(previous, number, machine, at, bytes(body)) == digest
