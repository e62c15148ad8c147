"""All gates of an environment at one moment: each passes, or says what it waits for, on which data, until when."""

from __future__ import annotations

from typing import Any

import msgspec

from forge.core.policy import burn, rate, windows
from forge.core.policy.budget import Budget, Ledger, recovers_at, remaining
from forge.model.policy import LowBudget, ReleasePolicy, Slo
from forge.model.units import format_duration

OVERRIDABLE = frozenset({"freeze", "window", "rate", "budget", "burn"})
"""Gates that a person may pass with a reason on record. Approvals are not: nobody approves for others."""
GROWTH = frozenset({"freeze", "budget", "burn"})
"""Gates that also hold a release under way where it is; the others only keep one from starting."""
MOST_ROUNDS = 200


class Facts(msgspec.Struct, frozen=True):
    """What the gates look at, of the environment (`ledger`, `starts`) and of the release."""

    ledger: Ledger = Ledger()
    starts: tuple[float, ...] = ()
    """When releases started, oldest first."""
    fix: bool = False
    votes: tuple[str, ...] = ()
    override: str = ""
    """Why a person let the release pass; empty: nobody did."""


class Gate(msgspec.Struct, frozen=True):
    """One gate. `what` completes "waits for ..."; `earliest` None: it opens by itself at no known time."""

    name: str
    passes: bool
    what: str = ""
    data: dict[str, Any] = {}
    earliest: float | None = None
    by_time: bool = False
    """Nothing but the time opens it, so nobody needs to look before `earliest`."""


class Limits(msgspec.Struct, frozen=True):
    """How carefully a release has to go: the largest step in basis points (None: any), the shortest bake, and why."""

    largest_step: int | None = None
    bake: float = 0.0
    why: str = ""


def evaluate(policy: ReleasePolicy, facts: Facts, now: float) -> tuple[Gate, ...]:
    """Return every gate that the policy sets, in the order in which they are told."""
    gates = [*_by_time(policy, facts, now), *_by_budget(policy, facts, now)]
    if facts.override:
        gates = [_overridden(gate, facts.override) for gate in gates]
    if policy.approvals is not None:
        gates.append(_approval(policy, facts))
    return tuple(gates)


def holding(policy: ReleasePolicy, facts: Facts, now: float, *, growing: bool = False) -> tuple[Gate, ...]:
    """Return the gates that do not pass now; `growing`: only those that hold a release under way too."""
    gates = evaluate(policy, facts, now)
    return tuple(gate for gate in gates if not gate.passes and (not growing or gate.name in GROWTH))


def earliest_start(policy: ReleasePolicy, facts: Facts, now: float) -> float | None:
    """Return the first moment at which all gates that depend on time alone pass together; None: never."""
    at = now
    for _ in range(MOST_ROUNDS):
        holds = [gate for gate in _by_time(policy, facts, at) if not gate.passes and not facts.override]
        if not holds:
            return at
        if any(gate.earliest is None for gate in holds):
            return None
        at = max(gate.earliest or at for gate in holds)
    return None


def limits(policy: ReleasePolicy, facts: Facts, now: float) -> Limits:
    """Return how carefully a release has to go now, by what is left of the budget and how fast it burns."""
    low, slo = policy.when_budget_low, policy.slo
    if low is None or slo is None or facts.override:
        return Limits()
    budget = remaining(facts.ledger, slo, now)
    why = ""
    if budget.enough and budget.remaining < low.below:
        why = f"{_left(budget)} of the error budget is left, less than {low.below:.0%}"
    elif firing := burn.alerts(facts.ledger, slo, now):
        why = firing[0].words
    return _limits(low, why) if why else Limits()


def _limits(low: LowBudget, why: str) -> Limits:
    return Limits(low.largest_step, low.bake or 0.0, why)


def _by_time(policy: ReleasePolicy, facts: Facts, now: float) -> list[Gate]:
    gates = []
    if policy.freezes:
        gates.append(_freeze(policy, now))
    if policy.windows:
        gates.append(_window(policy, now))
    if policy.max_releases is not None:
        gates.append(_rate(policy, facts, now))
    return gates


def _freeze(policy: ReleasePolicy, now: float) -> Gate:
    freeze = windows.frozen(policy.freezes, now)
    if freeze is None:
        return Gate("freeze", passes=True, by_time=True)
    until = windows.thaws_at(policy.freezes, now)
    reason = f" ({freeze.reason})" if freeze.reason else ""
    what = f"the end of the freeze{reason}: {windows.local_words(until, freeze.zone)}"
    data = {"from": freeze.begins, "to": freeze.ends, "zone": freeze.zone, "reason": freeze.reason}
    return Gate("freeze", passes=False, what=what, data=data, earliest=until, by_time=True)


def _window(policy: ReleasePolicy, now: float) -> Gate:
    opens = windows.opens_at(policy.windows, now)
    texts = [window.text for window in policy.windows]
    if opens == now:
        return Gate("window", passes=True, data={"windows": texts}, by_time=True)
    words = f"the release window {' or '.join(texts)}"
    words += ", which never opens" if opens is None else f": {windows.local_words(opens, policy.windows[0].zone)}"
    return Gate("window", passes=False, what=words, data={"windows": texts}, earliest=opens, by_time=True)


def _rate(policy: ReleasePolicy, facts: Facts, now: float) -> Gate:
    rule = policy.max_releases
    if rule is None:
        raise AssertionError("asked without a rule")
    free = rate.free_at(facts.starts, rule, now)
    data = {"count": rule.count, "per": rule.per, "starts": list(facts.starts)}
    if free <= now:
        return Gate("rate", passes=True, data=data, by_time=True)
    what = f"its turn: at most {rule.count} releases start within {format_duration(rule.per)}"
    return Gate("rate", passes=False, what=what, data=data, earliest=free, by_time=True)


def _by_budget(policy: ReleasePolicy, facts: Facts, now: float) -> list[Gate]:
    slo = policy.slo
    if slo is None or policy.when_budget_empty == "go_on":
        return []
    return [_budget(slo, facts, now), _burn(slo, facts, now)]


def _budget(slo: Slo, facts: Facts, now: float) -> Gate:
    budget = remaining(facts.ledger, slo, now)
    data = {
        "requests": budget.requests, "errors": budget.errors, "allowed": budget.allowed,
        "remaining": budget.remaining, "since": facts.ledger.since,
    }  # fmt: skip
    if facts.fix or not budget.enough or budget.remaining > 0:
        return Gate("budget", passes=True, data=data)
    objective = f"{slo.objective * 100:g}% over {format_duration(slo.window)}"
    what = (
        f"the error budget to recover: {budget.errors:,} of {budget.requests:,} requests failed, "
        f"{budget.allowed:,.0f} may ({objective}); only fixes pass"
    )
    # While exactly nothing is left it is spent: it opens when there is something left.
    recovers = _recovery(facts.ledger, slo, now)
    return Gate("budget", passes=False, what=what, data=data, earliest=recovers)


def _recovery(ledger: Ledger, slo: Slo, now: float) -> float | None:
    return recovers_at(ledger, slo.window, 1.0 - slo.objective, now)


def _burn(slo: Slo, facts: Facts, now: float) -> Gate:
    pages = [alert for alert in burn.alerts(facts.ledger, slo, now) if alert.rule.severity == "page"]
    if facts.fix or not pages:
        return Gate("burn", passes=True)
    data = {
        "alerts": [
            {"factor": a.rule.factor, "long": a.rule.long, "short": a.rule.short, "long_rate": a.long_rate,
             "short_rate": a.short_rate}
            for a in pages
        ]
    }  # fmt: skip
    ends = [alert.ends for alert in pages]
    earliest = None if None in ends else max(end for end in ends if end is not None)
    what = f"the end of an incident: {pages[0].words}; only fixes pass"
    return Gate("burn", passes=False, what=what, data=data, earliest=earliest)


def _approval(policy: ReleasePolicy, facts: Facts) -> Gate:
    rule = policy.approvals
    if rule is None:
        raise AssertionError("asked without a rule")
    data = {"required": rule.required, "votes": list(facts.votes)}
    missing = rule.required - len(facts.votes)
    if missing <= 0:
        return Gate("approval", passes=True, data=data)
    who = f" of {', '.join(rule.approvers)}" if rule.approvers else ""
    said = f" (so far: {', '.join(facts.votes)})" if facts.votes else ""
    return Gate("approval", passes=False, what=f"{missing} more approval(s){who}{said}", data=data)


def _overridden(gate: Gate, reason: str) -> Gate:
    if gate.passes or gate.name not in OVERRIDABLE:
        return gate
    return Gate(gate.name, passes=True, data={**gate.data, "overridden": reason})


def _left(budget: Budget) -> str:
    return f"{max(0.0, budget.remaining):.0%}"
