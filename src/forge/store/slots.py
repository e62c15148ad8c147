"""Concurrency groups: places, and a queue in order of arrival.

A place once given is kept until it is freed, even when a later ask names a smaller limit.
"""

from __future__ import annotations

from sqlalchemy import Text, bindparam, delete, func, select, update

from forge.store import tables as t
from forge.store.inbox import tell
from forge.store.statements import Database, Statement, Transaction, add_new

_group = bindparam("name", type_=Text())
_holder = bindparam("holder", type_=Text())
_mine = (t.slots.c.name == _group) & (t.slots.c.holder == _holder)

_NEW_GROUP = add_new(t.groups, arrivals=0)
# Every change of a group begins with this, which locks it.
_ARRIVE = Statement(
    update(t.groups)
    .where(t.groups.c.name == _group)
    .values(arrivals=t.groups.c.arrivals + 1)
    .returning(t.groups.c.arrivals)
)
_STAND = add_new(t.slots, held=0)
_FIND = Statement(select(t.slots.c.held, t.slots.c.arrival).where(_mine))
_HELD = Statement(select(func.count()).where(t.slots.c.name == _group, t.slots.c.held == 1))
_BEFORE = Statement(
    select(func.count()).where(
        t.slots.c.name == _group,
        t.slots.c.held == 0,
        t.slots.c.arrival < bindparam("arrival", type_=t.slots.c.arrival.type),
    )
)
_TAKE = Statement(update(t.slots).where(_mine).values(held=1))
_LEAVE = Statement(delete(t.slots).where(_mine))
_NEXT = Statement(
    select(t.slots.c.holder).where(t.slots.c.name == _group, t.slots.c.held == 0).order_by(t.slots.c.arrival).limit(1)
)
_HOLDERS = Statement(
    select(t.slots.c.holder).where(t.slots.c.name == _group, t.slots.c.held == 1).order_by(t.slots.c.arrival)
)
_QUEUE = Statement(
    select(t.slots.c.holder).where(t.slots.c.name == _group, t.slots.c.held == 0).order_by(t.slots.c.arrival)
)


class DatabaseSlots:
    """`forge.store.contract.Slots` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, group: str, holder: str, limit: int) -> int:
        """Take a place or queue for one, idempotent; return 0 when held, else the position in the queue (1...)."""

        def work(transaction: Transaction) -> int:
            transaction.run(_NEW_GROUP, name=group)
            ((arrival,),) = transaction.run(_ARRIVE, name=group)
            transaction.run(_STAND, name=group, holder=holder, arrival=arrival)
            ((held, arrival),) = transaction.run(_FIND, name=group, holder=holder)
            if held:
                return 0
            taken: int = transaction.run(_HELD, name=group)[0][0]
            before: int = transaction.run(_BEFORE, name=group, arrival=arrival)[0][0]
            if before or taken >= limit:
                return before + 1
            transaction.run(_TAKE, name=group, holder=holder)
            if taken + 1 < limit:
                _call_next(transaction, group)
            return 0

        return int(await self._database.write(work))

    async def free(self, group: str, holder: str) -> None:
        """Give the place, or the place in the queue, back; the next in the queue is told to ask again."""

        def work(transaction: Transaction) -> None:
            transaction.run(_ARRIVE, name=group)
            if transaction.change(_LEAVE, name=group, holder=holder):
                _call_next(transaction, group)

        await self._database.write(work)

    async def holders(self, group: str) -> list[str]:
        """Return who holds a place now, oldest first."""
        rows = await self._database.read(lambda transaction: transaction.run(_HOLDERS, name=group))
        return [holder for (holder,) in rows]

    async def queue(self, group: str) -> list[str]:
        """Return who waits for a place, in order of arrival."""
        rows = await self._database.read(lambda transaction: transaction.run(_QUEUE, name=group))
        return [holder for (holder,) in rows]


def _call_next(transaction: Transaction, group: str) -> None:
    """Make the machine that is first in the queue due, so that it asks again."""
    for (holder,) in transaction.run(_NEXT, name=group):
        tell(transaction, str(holder).partition("/")[0])
