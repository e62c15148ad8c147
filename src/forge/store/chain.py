"""Walking a hash chain from its first record to its head, whatever was done to the bytes."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from forge.model.errors import DependencyFailed
from forge.store import tables as t
from forge.store.statements import Database, Row, Statement, Transaction

_ALIVE = Statement(select(t.now()))


async def first_wrong(
    database: Database, rows: Statement, head: Statement, size: int, link: Callable[[str, int, Row], str | None]
) -> int | None:
    """Return the seq of the first record that does not fit the chain, or None when all do.

    `rows` gives records (seq, ..., previous, hash) by `after` and `most`, `head` the last seq and hash. `link` returns
    the hash that a record must have after `previous`, or None when it cannot have any. Raises DependencyFailed when
    the database cannot be read at all.
    """
    seq, previous, head_is_whole = 0, "", True

    def look(transaction: Transaction) -> tuple[list[Row], list[Row]]:
        # One transaction for both: a chain that grows meanwhile must not look cut off.
        return transaction.run(rows, after=seq, most=size), transaction.run(head) if head_is_whole else []

    while True:
        try:
            found, heads = await database.read(look, whole=True)
        except DependencyFailed:
            await database.read(lambda transaction: transaction.run(_ALIVE))
            if size > 1:
                size = 1  # something here cannot even be read: find out which record it is
            elif head_is_whole:
                head_is_whole = False
            else:
                return seq + 1
            continue
        for row in found:
            number, before, digest = row[0], row[-2], row[-1]
            if number != seq + 1 or before != previous or link(previous, number, row) != digest or digest is None:
                return seq + 1
            seq, previous = number, digest
        if len(found) < size:
            return None if heads == [(seq, previous)] else seq + 1
