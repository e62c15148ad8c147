"""Actions and what became of them. Every change is made under the machine's claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Text, bindparam, or_, select, update

from forge.model.decision import Action, Outcome, canonical_json
from forge.store import leases
from forge.store import tables as t
from forge.store.contract import Claim, Intent
from forge.store.statements import Database, Statement, Transaction, add_new

_NEW = add_new(t.intents, returning=t.intents.c.key, cancel=0)
_mine = (t.intents.c.machine == bindparam("of_machine", type_=Text())) & (
    t.intents.c.key == bindparam("of_key", type_=Text())
)
_open = or_(t.intents.c.state == "pending", t.intents.c.state == "started")
_START = Statement(
    update(t.intents)
    .where(_mine, _open)
    .values(state="started", worker=bindparam("new_worker"), token=bindparam("new_token", type_=t.intents.c.token.type))
)
# The first outcome stands: recording it again after a crash changes nothing.
_FINISH = Statement(
    update(t.intents)
    .where(_mine, _open)
    .values(state=bindparam("new_state"), outcome=bindparam("new_outcome", type_=t.intents.c.outcome.type))
)
_SETTLE = Statement(update(t.intents).where(_mine, t.intents.c.state == "finished").values(state="settled"))
_CANCEL = Statement(update(t.intents).where(_mine, _open).values(cancel=1))
_OF = Statement(
    select(
        t.intents.c.key,
        t.intents.c.kind,
        t.intents.c.payload,
        t.intents.c.rerun,
        t.intents.c.state,
        t.intents.c.worker,
        t.intents.c.token,
        t.intents.c.outcome,
        t.intents.c.cancel,
    )
    .where(t.intents.c.machine == bindparam("machine"), t.intents.c.state != "settled")
    .order_by(t.intents.c.seq)
)

_decode_outcome = msgspec.json.Decoder(Outcome).decode


def add_actions(transaction: Transaction, claim: Claim, actions: Iterable[Action], *, started: bool) -> tuple[str, ...]:
    """Write the actions whose keys are new; return those keys."""
    new = []
    for action in actions:
        new += transaction.run(
            _NEW,
            machine=claim.machine,
            key=action.key,
            kind=action.kind,
            payload=canonical_json(action.payload),
            rerun=int(action.rerun),
            state="started" if started else "pending",
            worker=claim.worker if started else "",
            token=claim.token if started else 0,
            outcome=None,
        )
    return tuple(key for (key,) in new)


def record(transaction: Transaction, claim: Claim, outcomes: Sequence[Outcome], *, state: str = "finished") -> None:
    """Put outcomes on disk."""
    transaction.many(
        _FINISH,
        [
            {
                "of_machine": claim.machine,
                "of_key": outcome.key,
                "new_state": state,
                "new_outcome": canonical_json(outcome),
            }
            for outcome in outcomes
        ],
    )


def settle(transaction: Transaction, claim: Claim, keys: Sequence[str]) -> None:
    """Note that a tick took these outcomes into account."""
    transaction.many(_SETTLE, [{"of_machine": claim.machine, "of_key": key} for key in keys])


def ask_to_stop(transaction: Transaction, claim: Claim, keys: Sequence[str]) -> None:
    """Note that these are to be stopped."""
    transaction.many(_CANCEL, [{"of_machine": claim.machine, "of_key": key} for key in keys])


class DatabaseIntents:
    """`forge.store.contract.Intents` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, machine: str) -> list[Intent]:
        """Return the machine's intents that are not settled, in order of writing."""
        rows = await self._database.read(lambda transaction: transaction.run(_OF, machine=machine))
        return [
            Intent(
                action=Action(key=key, kind=kind, payload=msgspec.json.decode(payload), rerun=bool(rerun)),
                state=state,
                worker=worker,
                token=token,
                outcome=None if outcome is None else _decode_outcome(outcome),
                cancel=bool(cancel),
            )
            for key, kind, payload, rerun, state, worker, token, outcome, cancel in rows
        ]

    async def start(self, claim: Claim, key: str) -> None:
        """Mark as under way, before it is performed."""

        def work(transaction: Transaction) -> None:
            leases.check(transaction, claim)
            transaction.run(
                _START, of_machine=claim.machine, of_key=key, new_worker=claim.worker, new_token=claim.token
            )

        await self._database.write(work)

    async def finish(self, claim: Claim, outcome: Outcome) -> None:
        """Record the outcome and make the machine due."""
        await self.finish_all(claim, (outcome,))

    async def finish_all(self, claim: Claim, outcomes: tuple[Outcome, ...]) -> None:
        """Record several outcomes in one transaction."""

        def work(transaction: Transaction) -> None:
            leases.check(transaction, claim)
            record(transaction, claim, outcomes)

        await self._database.write(work)
