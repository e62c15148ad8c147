"""Who works on which machine.

A worker has one lease, prolonged by one row however many machines it holds; a machine names its worker and carries
the fencing token of the claim. When a lease has run out, the next claim by anyone reaps the worker: its machines
are free and due, and whatever it still tries fails with StaleLease.
"""

from __future__ import annotations

from functools import lru_cache

from sqlalchemy import Integer, Text, bindparam, case, delete, exists, func, or_, select, update

from forge.model.errors import StaleLease
from forge.store import tables as t
from forge.store.contract import Claim
from forge.store.statements import Row, Statement, Transaction, named, names, upsert

m, w = t.machines.c, t.workers.c

_token = bindparam("token", type_=m.token.type)
_worker = bindparam("of_worker", type_=Text())
_seconds = bindparam("lease_seconds", type_=w.lease_until.type)
_held = (m.id == bindparam("machine", type_=Text())) & (m.worker == _worker) & (m.token == _token)
_dead = or_(w.lease_from > t.lease_now(), w.lease_until <= t.lease_now())

_CHECK = Statement(select(m.id).where(_held).with_for_update())
_HOLDS = Statement(select(m.id).where(_held))
_DEAD = Statement(select(w.id).where(w.id != _worker, _dead).limit(1))
_BURY = Statement(delete(t.workers).where(w.id != _worker, _dead).returning(w.id))
_RETURN_ALL = Statement(
    update(t.machines).where(m.worker == bindparam("dead", type_=Text())).values(worker="", due_at=0.0)
)
_BEAT = upsert(
    t.workers,
    ("id",),
    ("lease_from", "lease_until"),
    id=_worker,
    lease_from=t.lease_now(),
    lease_until=t.lease_now() + _seconds,
)
_HELD_BY = Statement(select(m.id).where(m.worker == _worker))
_TOLD = Statement(select(m.id).where(m.worker == _worker, m.due_at == 0).limit(1))
_HEAR = Statement(update(t.machines).where(m.worker == _worker, m.due_at == 0).values(due_at=None).returning(m.id))
_unfinished = or_(
    m.due_at == 0,
    exists().where(t.commands.c.machine == m.id, t.commands.c.consumed == 0),
    exists().where(t.intents.c.machine == m.id, t.intents.c.state != "settled"),
)
_when_next = case((_unfinished, 0.0), else_=m.wake_at)
_LET_GO = Statement(update(t.machines).where(_held).values(worker="", due_at=_when_next).returning(m.due_at))
_LEASE_ENDS = Statement(
    select(func.min(w.lease_until) - t.lease_now()).where(w.id != _worker, exists().where(m.worker == w.id))
)


@lru_cache(maxsize=256)
def _due(kinds: int, only: int, *, lock: bool) -> Statement:
    query = select(m.id, m.kind).where(m.worker == "", m.due_at <= t.now(), m.kind.in_(names(kinds, "kind")))
    if only:
        query = query.where(m.id.in_(names(only, "only")))
    query = query.order_by(m.due_at, m.seq).limit(bindparam("most", type_=Integer()))
    return Statement(query.with_for_update(skip_locked=True) if lock else query)


@lru_cache(maxsize=256)
def _take(count: int) -> Statement:
    return Statement(
        update(t.machines)
        .where(m.id.in_(names(count, "machine")))
        .values(worker=_worker, token=m.token + 1, due_at=None)
        .returning(m.id, m.kind, m.token)
    )


@lru_cache(maxsize=256)
def _wakes(kinds: int, only: int) -> Statement:
    query = select(func.min(m.due_at) - t.now()).where(m.worker == "", m.kind.in_(names(kinds, "kind")))
    return Statement(query.where(m.id.in_(names(only, "only"))) if only else query)


@lru_cache(maxsize=256)
def _let_go_all(keep: int) -> Statement:
    statement = update(t.machines).where(m.worker == _worker)
    if keep:
        statement = statement.where(m.id.not_in(names(keep, "keep")))
    return Statement(statement.values(worker="", due_at=0.0))


def check(transaction: Transaction, claim: Claim) -> None:
    """Lock the machine, and make sure that the claim still holds. Raises StaleLease."""
    if not transaction.run(_CHECK, machine=claim.machine, of_worker=claim.worker, token=claim.token):
        raise StaleLease(
            f"{claim.machine} is no longer this worker's (token {claim.token})",
            hint="its lease ran out and another worker took over; nothing was written",
        )


def holds(transaction: Transaction, claim: Claim) -> bool:
    """Return whether the claim still holds; reads only, so that it may be over the moment after."""
    return bool(transaction.run(_HOLDS, machine=claim.machine, of_worker=claim.worker, token=claim.token))


def anything_due(transaction: Transaction, worker: str, kinds: tuple[str, ...], only: tuple[str, ...]) -> bool:
    """Return whether a claim would find something; reads only."""
    values = named(kinds, "kind") | named(only, "only")
    found = transaction.run(_due(len(kinds), len(only), lock=False), most=1, **values)
    return bool(found or transaction.run(_DEAD, of_worker=worker))


def claim(
    transaction: Transaction,
    worker: str,
    kinds: tuple[str, ...],
    limit: int,
    lease_seconds: float,
    only: tuple[str, ...],
) -> list[Claim]:
    """Reap the dead, then lease what is due and free."""
    for (dead,) in transaction.run(_BURY, of_worker=worker):
        transaction.run(_RETURN_ALL, dead=dead)
        transaction.wake()
    values = named(kinds, "kind") | named(only, "only")
    due = transaction.run(_due(len(kinds), len(only), lock=True), most=limit, **values)
    if not due:
        return []
    beat(transaction, worker, lease_seconds)
    machines = named((machine for machine, _ in due), "machine")
    taken = transaction.run(_take(len(due)), of_worker=worker, **machines)
    return [Claim(machine=machine, kind=kind, worker=worker, token=token) for machine, kind, token in taken]


def beat(transaction: Transaction, worker: str, lease_seconds: float) -> None:
    """Prolong the worker's lease, or begin one."""
    transaction.run(_BEAT, of_worker=worker, lease_seconds=lease_seconds)


def held_by(transaction: Transaction, worker: str) -> set[str]:
    """Return the machines of a worker."""
    return {machine for (machine,) in transaction.run(_HELD_BY, of_worker=worker)}


def let_go(transaction: Transaction, claim: Claim) -> None:
    """Free one machine; it is due at once if something of it is unfinished."""
    freed = transaction.run(_LET_GO, machine=claim.machine, of_worker=claim.worker, token=claim.token)
    _wake_for(transaction, freed)


def let_go_all(transaction: Transaction, worker: str, keep: tuple[str, ...]) -> None:
    """Free all machines of a worker but some."""
    transaction.run(_let_go_all(len(keep)), of_worker=worker, **named(keep, "keep"))
    transaction.wake()


def any_told(transaction: Transaction, worker: str) -> bool:
    """Return whether `hear` would find something; reads only."""
    return bool(transaction.run(_TOLD, of_worker=worker))


def hear(transaction: Transaction, worker: str) -> set[str]:
    """Return, and forget, which of the worker's machines were told something."""
    return {machine for (machine,) in transaction.run(_HEAR, of_worker=worker)}


def next_due(transaction: Transaction, worker: str, kinds: tuple[str, ...], only: tuple[str, ...]) -> float | None:
    """Return in how many seconds a claim may find something, or None."""
    values = named(kinds, "kind") | named(only, "only")
    found = transaction.run(_wakes(len(kinds), len(only)), **values) + transaction.run(_LEASE_ENDS, of_worker=worker)
    delays = [seconds for (seconds,) in found if seconds is not None]
    return max(0.0, min(delays)) if delays else None


def _wake_for(transaction: Transaction, freed: list[Row]) -> None:
    if any(due_at is not None for (due_at,) in freed):
        transaction.wake()
