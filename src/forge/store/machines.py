"""Durable state machines: creation, reading, and the write of a tick."""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Integer, bindparam, delete, func, select, update

from forge.model.decision import Event
from forge.store import decisions, intents, leases, log
from forge.store import tables as t
from forge.store.contract import Claim, MachineCounts, Record, Write
from forge.store.inbox import tell
from forge.store.statements import Database, Row, Statement, Transaction, add_new, named, names, upsert

m = t.machines.c

_NEXT_NUMBER = Statement(
    update(t.sequences)
    .where(t.sequences.c.name == bindparam("prefix"))
    .values(value=t.sequences.c.value + 1)
    .returning(t.sequences.c.value)
)
_FIRST_NUMBER = add_new(t.sequences, value=0)
_CREATE = add_new(
    t.machines,
    returning=m.id,
    created_at=t.now(),
    updated_at=t.now(),
    wake_at=t.now(),
    due_at=0.0,
    worker="",
    token=0,
    schema_version=1,
)
_FIND = Statement(select(m.id).where(m.kind == bindparam("kind"), m.key == bindparam("key")).order_by(m.seq).limit(1))
_PUT_PART = upsert(t.parts, ("machine", "name"), ("value",))
_DELETE_PART = Statement(
    delete(t.parts).where(t.parts.c.machine == bindparam("of_machine"), t.parts.c.name == bindparam("of_name"))
)
_PARTS = Statement(select(t.parts.c.name, t.parts.c.value).where(t.parts.c.machine == bindparam("machine")))
_header = select(m.id, m.kind, m.key, m.status, m.head, m.created_at, m.updated_at, m.wake_at, m.schema_version)
_LOAD = Statement(_header.where(m.id == bindparam("machine")))
_UPDATE = Statement(
    update(t.machines)
    .where(m.id == bindparam("machine"))
    .values(
        status=bindparam("new_status"),
        head=bindparam("new_head", type_=m.head.type),
        wake_at=bindparam("new_wake_at", type_=m.wake_at.type),
        updated_at=t.now(),
    )
)
_CONSUME = Statement(
    update(t.commands)
    .where(t.commands.c.id == bindparam("command", type_=t.commands.c.id.type))
    .where(t.commands.c.machine == bindparam("machine"))
    .values(consumed=1)
)
_BY_STATUS = Statement(select(m.kind, m.status, func.count()).group_by(m.kind, m.status))
_WAITING = Statement(
    select(func.count(), func.max(t.now() - m.due_at).filter(m.due_at > 0)).where(
        m.worker == "", m.due_at.is_not(None), m.due_at <= t.now()
    )
)
_OLDEST_COMMAND = Statement(
    select(func.max(t.now() - t.commands.c.at)).where(
        t.commands.c.consumed == 0, t.commands.c.machine.in_(select(m.id).where(m.worker == "", m.due_at.is_not(None)))
    )
)


@lru_cache(maxsize=64)
def _newest(statuses: int, *, before: bool) -> Statement:
    query = _header.where(m.kind == bindparam("kind"))
    if statuses:
        query = query.where(m.status.in_(names(statuses, "status")))
    if before:
        query = query.where(m.seq < select(m.seq).where(m.id == bindparam("before")).scalar_subquery())
    return Statement(query.order_by(m.seq.desc()).limit(bindparam("most", type_=Integer())))


def _record(row: Row, parts: dict[str, bytes]) -> Record:
    machine, kind, key, status, head, created_at, updated_at, wake_at, schema_version = row
    return Record(
        id=machine,
        kind=kind,
        key=key,
        status=status,
        head=bytes(head),
        parts=parts,
        created_at=created_at,
        updated_at=updated_at,
        wake_at=wake_at,
        schema_version=schema_version,
    )


class DatabaseMachines:
    """`forge.store.contract.Machines` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        kind: str,
        key: str,
        status: str,
        head: bytes,
        parts: dict[str, bytes],
        *,
        events: tuple[Event, ...] = (),
        id_prefix: str,
    ) -> str:
        """Create a machine that is due now; return its id. An existing (kind, key) is returned as is."""

        def work(transaction: Transaction) -> str:
            if key and (there := transaction.run(_FIND, kind=kind, key=key)):
                return str(there[0][0])
            transaction.run(_FIRST_NUMBER, name=id_prefix)
            # Locks the sequence, so a second creator of the same key waits here and then finds it.
            ((number,),) = transaction.run(_NEXT_NUMBER, prefix=id_prefix)
            machine = f"{id_prefix}-{number}"
            if not transaction.run(_CREATE, id=machine, kind=kind, key=key, status=status, head=head):
                return str(transaction.run(_FIND, kind=kind, key=key)[0][0])
            _put_parts(transaction, machine, parts)
            transaction.wake()
            log.append(transaction, machine, events)
            return machine

        return str(await self._database.write(work))

    async def load(self, machine: str) -> Record | None:
        """Return the machine, or None."""

        def work(transaction: Transaction) -> Record | None:
            rows = transaction.run(_LOAD, machine=machine)
            if not rows:
                return None
            parts = {name: bytes(value) for name, value in transaction.run(_PARTS, machine=machine)}
            return _record(rows[0], parts)

        record: Record | None = await self._database.read(work, whole=True)
        return record

    async def find(self, kind: str, key: str) -> str | None:
        """Return the id of the machine of that kind and key."""
        rows = await self._database.read(lambda transaction: transaction.run(_FIND, kind=kind, key=key))
        return str(rows[0][0]) if rows else None

    async def newest(
        self, kind: str, *, statuses: tuple[str, ...] = (), limit: int = 50, before: str = ""
    ) -> list[Record]:
        """Return machines, newest first, without their parts."""
        statement = _newest(len(statuses), before=bool(before))
        values = {**named(statuses, "status"), **({"before": before} if before else {})}
        rows = await self._database.read(
            lambda transaction: transaction.run(statement, kind=kind, most=limit, **values)
        )
        return [_record(row, {}) for row in rows]

    async def count(self) -> MachineCounts:
        """Return how many there are, and how many wait for a worker."""

        def work(transaction: Transaction) -> MachineCounts:
            by_status = {(kind, status): int(number) for kind, status, number in transaction.run(_BY_STATUS)}
            waiting, overdue = transaction.run(_WAITING)[0]
            told = transaction.run(_OLDEST_COMMAND)[0][0]
            return MachineCounts(by_status, int(waiting), max(0.0, float(overdue or 0), float(told or 0)))

        counts: MachineCounts = await self._database.read(work)
        return counts

    async def claim(
        self, worker: str, kinds: tuple[str, ...], limit: int, lease_seconds: float, only: tuple[str, ...] = ()
    ) -> list[Claim]:
        """Lease up to `limit` machines that are due (wake_at passed, a command or an outcome waits) and free."""
        # Looking costs no lock and no write, so an idle Forge only reads.
        if (
            not kinds
            or limit < 1
            or not await self._database.read(lambda transaction: leases.anything_due(transaction, worker, kinds, only))
        ):
            return []
        return list(
            await self._database.write(
                lambda transaction: leases.claim(transaction, worker, kinds, limit, lease_seconds, only)
            )
        )

    async def renew(self, worker: str, lease_seconds: float) -> set[str]:
        """Prolong every lease of the worker; return the machines that it still holds."""

        def work(transaction: Transaction) -> set[str]:
            leases.beat(transaction, worker, lease_seconds)
            return leases.held_by(transaction, worker)

        return set(await self._database.write(work))

    async def holds(self, claim: Claim) -> bool:
        """Return whether the lease is still the worker's."""
        return bool(await self._database.read(lambda transaction: leases.holds(transaction, claim)))

    async def let_go(self, claim: Claim) -> None:
        """End the lease; ignored if it was lost already."""
        await self._database.write(lambda transaction: leases.let_go(transaction, claim))

    async def let_go_all(self, worker: str, keep: tuple[str, ...] = ()) -> None:
        """End all leases of the worker except those on the machines in `keep`; the machines are due at once."""
        await self._database.write(lambda transaction: leases.let_go_all(transaction, worker, keep))

    async def remind(self, machine: str) -> None:
        """Make a machine due: it was `told` something that nobody could act on."""
        await self._database.write(lambda transaction: tell(transaction, machine))

    async def told(self, worker: str) -> set[str]:
        """Return the machines leased to the worker that were told something since the claim or the last call."""
        if not await self._database.read(lambda transaction: leases.any_told(transaction, worker)):
            return set()
        return set(await self._database.write(lambda transaction: leases.hear(transaction, worker)))

    async def next_due(self, worker: str, kinds: tuple[str, ...], only: tuple[str, ...] = ()) -> float | None:
        """Return in how many seconds a claim may find something."""
        seconds: float | None = await self._database.read(
            lambda transaction: leases.next_due(transaction, worker, kinds, only)
        )
        return seconds

    async def write(self, claim: Claim, write: Write) -> tuple[str, ...]:
        """Write a tick; return the keys of the intents that are new. Raises StaleLease."""

        def work(transaction: Transaction) -> tuple[str, ...]:
            leases.check(transaction, claim)
            transaction.run(
                _UPDATE,
                machine=claim.machine,
                new_status=write.status,
                new_head=write.head,
                new_wake_at=write.wake_at,
            )
            _put_parts(transaction, claim.machine, write.parts)
            transaction.many(_CONSUME, [{"command": number, "machine": claim.machine} for number in write.consumed])
            intents.record(transaction, claim, write.outcomes, state="settled")
            intents.settle(transaction, claim, write.settled)
            new = intents.add_actions(transaction, claim, write.actions, started=write.start)
            intents.ask_to_stop(transaction, claim, write.cancel)
            if write.decision:
                decisions.append(transaction, claim.machine, write.decision)
            log.append(transaction, claim.machine, write.events)
            return new

        keys: tuple[str, ...] = await self._database.write(work)
        return keys


def _put_parts(transaction: Transaction, machine: str, parts: dict[str, bytes]) -> None:
    """Write parts; one without a byte is deleted."""
    kept = [{"machine": machine, "name": name, "value": value} for name, value in parts.items() if value]
    gone = [{"of_machine": machine, "of_name": name} for name, value in parts.items() if not value]
    transaction.many(_PUT_PART, kept)
    transaction.many(_DELETE_PART, gone)
