"""Tells every notifier of every region: what to order now, what became of it, and when to try again.

At least once: a region is forgotten only when its end was confirmed, or refused for good. A notifier that fails is
asked for one thing at a time, further and further apart, and keeps nobody else waiting.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from forge.core.notify.regions import Drawing, Happened, Region, drawn, under_way
from forge.model.decision import Action, Decision, Event, Outcome
from forge.model.plan import NotifierPlan

BUSY_SECONDS = 2.0
"""Between two looks at the log while a release goes on."""
IDLE_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
AT_ONCE = 4
"""Regions that one notifier is told of at the same time."""
MOST_WAITING = 2000
"""Regions that wait for a notifier that is away; the oldest are given up beyond that."""


class Told(msgspec.Struct, frozen=True):
    """What one notifier knows of one region."""

    id: str = ""
    """What it calls the region; empty: it does not know it."""
    closed: bool = False
    asked: str = ""
    """Key of the action under way."""
    given_up: bool = False

    @property
    def done(self) -> bool:
        """Whether there is nothing more to tell."""
        return self.closed or self.given_up


class Health(msgspec.Struct, frozen=True):
    """How a notifier fares. `failures` in a row; not asked again before `again_at`."""

    failures: int = 0
    again_at: float = 0.0
    problem: str = ""


class NotifierState(msgspec.Struct, frozen=True):
    """What is to be told of one environment."""

    environment: str
    machine: str
    """The environment's machine, whose log is read."""
    notifiers: tuple[NotifierPlan, ...] = ()
    drawing: Drawing = Drawing()
    told: dict[str, dict[str, Told]] = {}
    """Notifier's name -> key of a region -> what it knows of it."""
    health: dict[str, Health] = {}
    asked: int = 0
    """Actions ordered so far; part of every key."""

    @property
    def waiting(self) -> bool:
        """Whether something that happened has not been told to everybody."""
        return any(
            _next(region, self.told.get(plan.name, {}).get(region.key, Told()))
            for plan in self.notifiers
            for region in self.drawing.regions
        )


class Seen(msgspec.Struct, frozen=True):
    """The log since the cursor, and who is to be told now (None: as before). `more`: the log goes on."""

    events: tuple[Happened, ...] = ()
    notifiers: tuple[NotifierPlan, ...] | None = None
    more: bool = False


def decide(state: NotifierState, seen: Seen, outcomes: tuple[Outcome, ...], now: float) -> Decision[NotifierState]:
    """Take in what happened and what became of what was ordered; order what is next."""
    events: list[Event] = []
    for outcome in outcomes:
        state = _heard(state, outcome, now, events)
    if seen.notifiers is not None:
        state = _with_notifiers(state, seen.notifiers)
    state = replace(state, drawing=drawn(state.drawing, seen.events))
    state, actions = _ordered(state, now)
    state = _forgotten(state, events)
    return Decision(state, tuple(actions), tuple(events), _wake(state, seen, now))


def _next(region: Region, told: Told) -> str:
    """Return what a notifier is to be told of a region now: `open`, `close` or nothing."""
    if told.done:
        return ""
    if not told.id:
        return "open"
    return "close" if region.ended is not None else ""


def _with_notifiers(state: NotifierState, notifiers: tuple[NotifierPlan, ...]) -> NotifierState:
    """Another configuration is tried at once; one that is gone is not waited for."""
    names = {plan.name for plan in notifiers}
    changed = {plan.name for plan in notifiers if plan not in state.notifiers}
    return replace(
        state,
        notifiers=notifiers,
        told={name: told for name, told in state.told.items() if name in names},
        health={name: one for name, one in state.health.items() if name in names - changed},
    )


def _heard(state: NotifierState, outcome: Outcome, now: float, events: list[Event]) -> NotifierState:
    for name, regions in state.told.items():
        for key, told in regions.items():
            if told.asked == outcome.key:
                after, health = _judged(state, name, told, outcome, now, events)
                return replace(
                    state,
                    told={**state.told, name: {**regions, key: after}},
                    health={**state.health, name: health},
                )
    return state


def _judged(
    state: NotifierState, name: str, told: Told, outcome: Outcome, now: float, events: list[Event]
) -> tuple[Told, Health]:
    health = state.health.get(name, Health())
    told = replace(told, asked="")
    data = {"environment": state.environment, "notifier": name}
    if outcome.result == "succeeded":
        if health.failures:
            events.append(Event("notifier_back", f"{name} answers again", data))
        identity = str(outcome.data.get("id", told.id))
        return replace(told, id=identity, closed=bool(outcome.data.get("closed", False))), Health()
    if outcome.result == "failed":
        if outcome.message != health.problem:
            events.append(Event("notifier_refused", f"{name} cannot be told: {outcome.message}", data))
        return replace(told, given_up=True), Health(problem=outcome.message)
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(health.failures, 20))
    if not health.failures:
        words = f"{name} cannot be told, which delays nothing and is tried again: {outcome.message}"
        events.append(Event("notifier_away", words, data))
    return told, Health(health.failures + 1, now + pause, outcome.message)


def _ordered(state: NotifierState, now: float) -> tuple[NotifierState, list[Action]]:
    actions: list[Action] = []
    for plan in state.notifiers:
        health = state.health.get(plan.name, Health())
        regions = dict(state.told.get(plan.name, {}))
        room = (1 if health.failures else AT_ONCE) - sum(bool(told.asked) for told in regions.values())
        if now < health.again_at:
            continue
        for region in state.drawing.regions:
            told = regions.get(region.key, Told())
            kind = "" if told.asked or room < 1 else _next(region, told)
            if kind:
                state = replace(state, asked=state.asked + 1)
                key = f"{kind}#{state.asked}:{plan.name}:{region.key}"
                payload = {"notifier": plan.name, "region": msgspec.to_builtins(region), "id": told.id}
                actions.append(Action(key, kind, payload))
                regions[region.key] = replace(told, asked=key)
                room -= 1
        state = replace(state, told={**state.told, plan.name: regions})
    return state, actions


def _forgotten(state: NotifierState, events: list[Event]) -> NotifierState:
    """Forget the regions that everybody knows to the end, and the oldest of too many."""
    names = [plan.name for plan in state.notifiers]
    kept = [
        region
        for region in state.drawing.regions
        if region.ended is None or not all(state.told.get(name, {}).get(region.key, Told()).done for name in names)
    ]
    if names and len(kept) > MOST_WAITING:
        dropped = len(kept) - MOST_WAITING
        kept = kept[dropped:]
        words = f"{dropped} steps of old releases are not told any more: too many wait"
        events.append(Event("notifier_gave_up", words, {"environment": state.environment, "regions": dropped}))
    keys = {region.key for region in kept}
    told = {name: {key: one for key, one in known.items() if key in keys} for name, known in state.told.items()}
    return replace(state, drawing=replace(state.drawing, regions=tuple(kept)), told=told)


def _wake(state: NotifierState, seen: Seen, now: float) -> float:
    if seen.more:
        return now
    look = now + (BUSY_SECONDS if under_way(state.drawing) else IDLE_SECONDS)
    if not state.waiting:
        return look
    retries = [health.again_at for health in state.health.values() if health.again_at > now]
    return min([look, *retries])
