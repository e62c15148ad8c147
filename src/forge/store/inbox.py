"""Commands to machines."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import bindparam, select, update

from forge.model.decision import Command, canonical_json
from forge.model.errors import UsageError
from forge.store import tables as t
from forge.store.statements import Database, Row, Statement, Transaction, add_new

# Locks the machine first: commands to one machine are then committed in the order of their ids.
_TELL = Statement(update(t.machines).where(t.machines.c.id == bindparam("machine")).values(due_at=0.0))
_ADD = add_new(t.commands, returning=t.commands.c.id, at=t.now(), consumed=0)
_BY_KEY = Statement(
    select(t.commands.c.id).where(t.commands.c.machine == bindparam("machine"), t.commands.c.key == bindparam("key"))
)
_WAITING = Statement(
    select(t.commands.c.id, t.commands.c.kind, t.commands.c.actor, t.commands.c.at, t.commands.c.payload)
    .where(t.commands.c.machine == bindparam("machine"), t.commands.c.consumed == 0)
    .order_by(t.commands.c.id)
)


def tell(transaction: Transaction, machine: str) -> bool:
    """Make a machine due; return whether it exists."""
    transaction.wake()
    return transaction.change(_TELL, machine=machine) > 0


def waiting(transaction: Transaction, machine: str) -> list[Command]:
    """Return the commands not yet consumed, oldest first."""
    return [
        Command(id=number, kind=kind, actor=actor, at=at, payload=msgspec.json.decode(payload))
        for number, kind, actor, at, payload in transaction.run(_WAITING, machine=machine)
    ]


class DatabaseInbox:
    """`forge.store.contract.Inbox` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def send(self, machine: str, kind: str, actor: str, payload: dict[str, Any], *, key: str = "") -> int:
        """Put a command on disk and make the machine due; the same non-empty `key` is accepted once.

        Raises UsageError for a machine that does not exist."""
        body = canonical_json(payload)

        def work(transaction: Transaction) -> int:
            if not tell(transaction, machine):
                raise UsageError(f"there is no {machine} in this database")
            added: list[Row] = transaction.run(_ADD, machine=machine, kind=kind, actor=actor, payload=body, key=key)
            return int((added or transaction.run(_BY_KEY, machine=machine, key=key))[0][0])

        return int(await self._database.write(work))

    async def sent(self, machine: str, key: str) -> int | None:
        """Return the id of the command that was sent with that key, or None."""
        if not key:
            return None
        rows = await self._database.read(lambda transaction: transaction.run(_BY_KEY, machine=machine, key=key))
        return int(rows[0][0]) if rows else None

    async def of(self, machine: str) -> list[Command]:
        """Return the commands not yet consumed, oldest first."""
        return list(await self._database.read(lambda transaction: waiting(transaction, machine)))
