"""What the worker needs to know about a kind of durable machine."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from forge.model.decision import Action, Command, Decision, Outcome
from forge.store.contract import Claim, Record


class MachineKind(Protocol):
    """Joins a pure core to the world for one kind of machine (`run`, `environment`).

    The worker's tick: claim -> load (once a claim) -> `observe` -> `decide` -> write in one transaction ->
    perform new actions as tasks -> record outcomes -> next tick. All calls for one machine come one after
    another; `perform` calls of one machine run at the same time.
    """

    kind: str

    def load(self, record: Record) -> Any:
        """Return the state from its stored form (migrating older schema versions)."""

    def dump(self, state: Any) -> tuple[str, bytes, dict[str, bytes]]:
        """Return (status, head, parts). A part whose state object is unchanged may be left to the worker's diff."""

    async def observe(self, state: Any, now: float) -> Any:
        """Look at the world; never raises for a world that is away, but says so in what it returns."""

    def decide(
        self, state: Any, observation: Any, commands: tuple[Command, ...], outcomes: tuple[Outcome, ...], now: float
    ) -> Decision[Any]:
        """Call the pure core."""

    async def perform(self, action: Action, state: Any, claim: Claim) -> Outcome:
        """Do an action, idempotent under its key. Cancelling the task must stop what it does.
        An exception becomes an outcome `error` with its message."""


ELSEWHERE = "elsewhere"
"""In an action's payload: what it does goes on without a worker."""


@runtime_checkable
class Ending(Protocol):
    """A kind some of whose actions (see ELSEWHERE) go on without a worker."""

    async def end_left(self, action: Action, state: Any) -> None:
        """End what a worker that is gone has left behind of an action that nobody is going to perform again.
        Raises ForgeError when it cannot."""


@runtime_checkable
class Recording(Protocol):
    """A kind whose decisions go on record with all that they were made on."""

    def record(
        self,
        before: Any,
        observation: Any,
        commands: tuple[Command, ...],
        outcomes: tuple[Outcome, ...],
        now: float,
        decision: Decision[Any],
    ) -> bytes:
        """Return what is to be written with this tick in the chain of decisions; empty: nothing. Called for every
        tick, just before it is written; if the write then fails, the next tick begins with a state read anew."""
