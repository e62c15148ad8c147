"""The whole decision on an environment: pure, so that the same inputs always give the same answer."""

from __future__ import annotations

from msgspec.structs import replace

from forge.core.release import policing
from forge.core.release.commands import obey
from forge.core.release.fulfil import in_effect, note_outcomes, route_traffic, settled, size_versions, tidy, wishes
from forge.core.release.judging import judge_arms
from forge.core.release.observe import absorb
from forge.core.release.progress import advance, begin_traffic, note_holds
from forge.core.release.releases import admit, forget_old
from forge.core.release.saturating import follow_gauges
from forge.core.release.state import EnvironmentState
from forge.core.release.tick import Tick
from forge.model.decision import Command, Decision, Outcome
from forge.model.traffic import Observation

INTERVAL = 1.0
"""Seconds between two looks while anything is under way."""


def decide(
    state: EnvironmentState,
    observation: Observation,
    commands: tuple[Command, ...],
    outcomes: tuple[Outcome, ...],
    now: float,
) -> Decision[EnvironmentState]:
    """Return the next state of the environment, what to do, and why.

    Actions: `ensure` {version, replicas}, `remove` {version}, `traffic` {table}. They may be performed in any
    order and more than once; one whose generation (the number in its key) is older than the last one of its
    kind and version is out of date and need not be performed. An outcome that never comes is no harm: what
    the world does not show within five seconds is asked for again.
    """
    tick = Tick(state, observation, now)
    if not state.down:
        absorb(tick)
        policing.keep_books(tick)
    note_outcomes(tick, outcomes)
    for command in commands:
        obey(tick, command)
    if state.down or tick.state.down:
        for release in [*tick.active, *tick.queued]:
            if not release.waits_for:
                tick.put(replace(release, waits_for=f"a first look at {state.name}, which is brought up again"))
        # Nothing was looked at while it was down: what it comes up for begins with a look.
        why = "; ".join(event.message for event in tick.events) or f"{state.name} is down"
        return Decision(tick.state, (), tuple(tick.events), None if tick.state.down else now, why=why)
    admit(tick)
    policing.go_carefully(tick)
    judge_arms(tick)
    follow_gauges(tick)
    note_holds(tick)
    advance(tick)
    wanted = wishes(tick)
    route_traffic(tick, wanted)
    begin_traffic(tick)
    size_versions(tick, wanted)
    tidy(tick)
    forget_old(tick)
    why = "; ".join(event.message for event in tick.events) or _waiting(tick)
    return Decision(tick.state, tuple(tick.actions), tuple(tick.events), _next_look(tick), why=why)


def _next_look(tick: Tick) -> float | None:
    """When to look again: soon while anything is under way, else when a gate can open by itself."""
    if settled(tick):
        return policing.rest(tick)
    if not tick.active and in_effect(tick) and all(release.held_by for release in tick.queued):
        return policing.next_look(tick)
    return tick.now + INTERVAL


def _waiting(tick: Tick) -> str:
    words = [f"{release.id}: {release.waits_for or release.status}" for release in [*tick.active, *tick.queued]]
    return "; ".join(words) or f"{tick.state.name} is at rest"
