"""The policy's place in the decision: what keeps a release from starting or growing, and how carefully it goes.

Nothing here is ever asked about a rollback or an abort: going back is never delayed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from forge.core.policy import gates, rate
from forge.core.policy.budget import record
from forge.core.policy.careful import careful
from forge.core.policy.gates import Facts, Gate
from forge.core.release.observe import fresh_sample
from forge.core.release.state import ReleaseState
from forge.core.release.tick import Tick, takes_over
from forge.model.policy import GATE_KEYS, ReleasePolicy

LOOK_AGAIN = 60.0
"""Seconds between two looks while nothing but the error budget keeps a release."""
KEEP_BOOKS = 300.0
"""Seconds between two looks at an environment at rest that has an objective."""
_NO_POLICY = ReleasePolicy()


def policy_of(tick: Tick) -> ReleasePolicy:
    """Return the gates of the environment's policy; none when it cannot be read: then no release is accepted."""
    given = {key: value for key, value in tick.state.plan.policy.items() if key in GATE_KEYS}
    return _read(msgspec.json.encode(given)) if given else _NO_POLICY


@lru_cache(maxsize=64)
def _read(policy: bytes) -> ReleasePolicy:
    try:
        return msgspec.json.decode(policy, type=ReleasePolicy)
    except msgspec.ValidationError:
        return _NO_POLICY


def unreadable(policy: dict[str, Any]) -> str:
    """Return what is wrong with a policy that a release brings; empty: nothing."""
    try:
        msgspec.convert({key: value for key, value in policy.items() if key in GATE_KEYS}, ReleasePolicy)
    except msgspec.ValidationError as problem:
        return str(problem)
    return ""


def keep_books(tick: Tick) -> None:
    """Add what every version answered since the last look to the ledger, when the policy has an objective."""
    slo = policy_of(tick).slo
    if slo is None or not tick.observation.samples:
        return
    fresh = {name: sample for name in tick.observation.samples if (sample := fresh_sample(tick, name)) is not None}
    if fresh:
        counters = {name: (sample.requests, sample.errors) for name, sample in fresh.items()}
        tick.change(ledger=record(tick.state.ledger, counters, tick.now, slo.window))


def held_at_start(tick: Tick, release: ReleaseState) -> bool:
    """Whether a gate keeps a queued release from starting; the release says what it waits for."""
    policy = policy_of(tick)
    if policy is _NO_POLICY:
        return False
    facts = _facts(tick, release)
    holds = gates.holding(policy, facts, tick.now)
    _note(tick, release, holds, _earliest(policy, facts, holds, tick.now))
    return bool(holds)


def held_growth(tick: Tick, release: ReleaseState) -> tuple[Gate, ...]:
    """Return the gates that hold a release under way where it is: it gets no more traffic."""
    policy = policy_of(tick)
    if policy is _NO_POLICY or release.kind == "rollback" or takes_over(release) or not tick.state.stable:
        return ()
    if release.strategy.name == "rolling":
        return ()  # halfway is no place to stay: it goes on, or back
    return gates.holding(policy, _facts(tick, release), tick.now, growing=True)


def go_carefully(tick: Tick) -> None:
    """Make releases that did not grow yet to their full size go in small steps while the budget is low."""
    policy = policy_of(tick)
    if policy.slo is None or policy.when_budget_low is None:
        return
    for release in tick.active:
        begun = release.traffic_since is not None
        if release.kind == "rollback" or takes_over(release) or not tick.state.stable or release.forced:
            continue
        if release.status == "rolling_back" or (begun and release.strategy.name != "canary"):
            continue
        limits = gates.limits(policy, _facts(tick, release), tick.now)
        strategy = careful(release.strategy, limits, done=release.step)
        if strategy != release.strategy:
            tick.put(replace(release, strategy=strategy))
            tick.say("release_goes_carefully", f"{release.id}: goes in smaller steps: {limits.why}", release=release.id,
                     largest_step=limits.largest_step, bake=limits.bake)  # fmt: skip


def note_start(tick: Tick, release: ReleaseState) -> None:
    """Count a release that starts now."""
    starts = rate.remember(tick.state.release_starts, policy_of(tick).max_releases, tick.now)
    tick.change(release_starts=starts)
    if release.held_by or release.votes:
        tick.put(replace(tick.state.releases[release.id], held_by=(), votes=()))


def next_look(tick: Tick) -> float | None:
    """Return when to look again at an environment in which releases do nothing but wait for gates."""
    looks = [release.earliest for release in tick.queued if release.earliest is not None]
    if any({"budget", "burn"} & set(release.held_by) for release in tick.queued):
        looks.append(tick.now + LOOK_AGAIN)
    return min((max(at, tick.now + 1.0) for at in looks), default=rest(tick))


def rest(tick: Tick) -> float | None:
    """Return when to look again at an environment at rest: never, or often enough to keep its books."""
    return tick.now + KEEP_BOOKS if policy_of(tick).slo is not None and tick.state.stable else None


def words(holds: tuple[Gate, ...]) -> str:
    """Return what the gates wait for, in one line."""
    return "; ".join(gate.what for gate in holds)


def _facts(tick: Tick, release: ReleaseState) -> Facts:
    return Facts(tick.state.ledger, tick.state.release_starts, release.fix, release.votes, release.override)


def _earliest(policy: ReleasePolicy, facts: Facts, holds: tuple[Gate, ...], now: float) -> float | None:
    """When it can pass by itself: when all times allow it together, and not before the budget has recovered."""
    if all(gate.name == "approval" for gate in holds):
        return None
    if any(gate.earliest is None and gate.name != "approval" for gate in holds):
        return None
    after = max((gate.earliest for gate in holds if gate.earliest is not None and not gate.by_time), default=now)
    return gates.earliest_start(policy, facts, after)


def _note(tick: Tick, release: ReleaseState, holds: tuple[Gate, ...], earliest: float | None) -> None:
    names = tuple(gate.name for gate in holds)
    if not holds:
        if release.held_by:
            tick.put(replace(release, held_by=(), waits_for="", earliest=None))
            tick.say("gates_passed", f"{release.id}: passes {', '.join(release.held_by)}", release=release.id)
        return
    tick.put(replace(release, held_by=names, waits_for=words(holds), earliest=earliest))
    if names != release.held_by:
        tick.say(
            "release_held", f"{release.id} waits for {words(holds)}", release=release.id, earliest=earliest,
            gates={gate.name: gate.data for gate in holds},
        )  # fmt: skip
