"""Telling of releases as a durable machine of its own: it reads the environment's log and delays nothing.

Whatever the log says will be told, also when every process died in between; the machine's lease makes sure that only
one process tells at a time.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import msgspec

from forge.adapters.notify.base import Notifier, Refused, Step
from forge.adapters.notify.registry import open_notifier
from forge.core.notify.regions import Happened, Region
from forge.core.notify.telling import NotifierState, Seen, decide
from forge.engine.environments import EnvironmentMachine
from forge.engine.project import Project
from forge.engine.secrets import resolve_one
from forge.model.decision import Action, Command, Decision, Outcome
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import NotifierPlan
from forge.store.contract import Claim, Record, Store

KIND = "notifier"
PAGE = 500
LONGEST_ASK = 10.0
"""Seconds that one notifier may take for one thing."""


class NotifierMachine:
    """The `MachineKind` of notifiers: one for each environment that tells somebody, keyed by its machine's id."""

    kind = KIND

    def __init__(self, store: Store, project: Project) -> None:
        self._store = store
        self._project = project
        self._open: dict[tuple[str, str], tuple[NotifierPlan, Notifier]] = {}

    @staticmethod
    def load(record: Record) -> NotifierState:
        """Return the state from its stored form."""
        return msgspec.json.decode(record.head, type=NotifierState)

    def dump(self, state: NotifierState) -> tuple[str, bytes, dict[str, bytes]]:
        """Return (status, head, parts)."""
        return status_of(state), msgspec.json.encode(state), {}

    async def observe(self, state: NotifierState, now: float) -> Seen:
        """Read what is new in the environment's log; who is told is read again when something is new."""
        del now
        found = await self._store.log.read(state.machine, after=state.drawing.cursor, limit=PAGE)
        if not found:
            return Seen()
        events = tuple(Happened(one.seq, one.at, one.event.kind, one.event.message, one.event.data) for one in found)
        record = await self._store.machines.load(state.machine)
        notifiers = EnvironmentMachine.load(record).plan.notify if record is not None else None
        return Seen(events, notifiers, more=len(found) == PAGE)

    def decide(
        self, state: NotifierState, observation: Seen, commands: tuple[Command, ...], outcomes: tuple[Outcome, ...],
        now: float,
    ) -> Decision[NotifierState]:  # fmt: skip
        """Call the pure core; nobody sends a notifier commands."""
        del commands
        return decide(state, observation, outcomes, now)

    async def perform(self, action: Action, state: NotifierState, claim: Claim) -> Outcome:
        """Tell one notifier of one region."""
        del claim
        region = msgspec.convert(action.payload["region"], Region)
        plan = next((plan for plan in state.notifiers if plan.name == action.payload["notifier"]), None)
        if plan is None:
            return Outcome(action.key, "failed", time.time(), "it is not told any more")
        try:
            async with asyncio.timeout(LONGEST_ASK):
                data = await self._tell(action, self._opened(state, plan), self._step(state, region))
        except TimeoutError:
            raise DependencyFailed(f"{plan.name} gave no answer within {LONGEST_ASK:g} s") from None
        except (Refused, UsageError) as refused:
            return Outcome(action.key, "failed", time.time(), str(refused))
        return Outcome(action.key, "succeeded", time.time(), data=data)

    async def _tell(self, action: Action, notifier: Notifier, step: Step) -> dict[str, Any]:
        if action.kind == "open":
            return {"id": await notifier.open(step), "closed": step.ended is not None}
        identity = str(action.payload["id"])
        await notifier.close(identity, step)
        return {"id": identity, "closed": True}

    def _step(self, state: NotifierState, region: Region) -> Step:
        return Step(
            state.environment, self._project.root.name, region.release, region.version, region.step, region.text,
            region.began, region.ended,
        )  # fmt: skip

    def _opened(self, state: NotifierState, plan: NotifierPlan) -> Notifier:
        """Return the adapter; made anew when a release brought another configuration."""
        place = (state.machine, plan.name)
        known = self._open.get(place)
        if known is None or known[0] != plan:
            known = self._open[place] = (plan, open_notifier(plan, partial(self._secret, plan)))
        return known[1]

    async def _secret(self, plan: NotifierPlan, name: str) -> str:
        reference = next((one for one in plan.secrets if one.name == name), None)
        if reference is None:
            raise DependencyFailed(f"notify `{plan.name}`: there is no secret `{name}`")
        return await resolve_one(reference, self._project.root)


def status_of(state: NotifierState) -> str:
    """Return in one word how it stands: `idle`, `telling`, or `away` when somebody does not answer."""
    if not state.waiting:
        return "idle"
    return "away" if any(health.failures for health in state.health.values()) else "telling"


async def begin_notifying(
    store: Store, environment: str, machine: str, notifiers: tuple[NotifierPlan, ...], after: int
) -> None:
    """Make sure that the environment's releases from the event `after` on are told. Idempotent."""
    found = await store.machines.find(KIND, machine)
    if found is None and notifiers:
        state = NotifierState(environment, machine, notifiers)
        state = msgspec.structs.replace(state, drawing=msgspec.structs.replace(state.drawing, cursor=after))
        await store.machines.create(KIND, machine, status_of(state), msgspec.json.encode(state), {}, id_prefix="notify")
    elif found is not None:
        await store.machines.remind(found)


async def notifier_of(store: Store, machine: str) -> str | None:
    """Return the machine that tells of an environment, by the environment's machine; None: nobody is told."""
    return await store.machines.find(KIND, machine)


async def all_told(store: Store, notifier: str) -> bool:
    """Whether nothing is left to tell, or somebody is away so that waiting is of no use."""
    record = await store.machines.load(notifier)
    if record is None:
        return True
    state = NotifierMachine.load(record)
    if record.status == "away":
        return True
    return record.status == "idle" and not await store.log.read(state.machine, after=state.drawing.cursor, limit=1)
