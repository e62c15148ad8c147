"""The gates of a policy in a hunt: drawn at random, and what each decision is held against, told from outside.

Nothing of the code under test decides here whether a gate is open: windows and freezes are plain UTC clocks, the
rate is counted from the statuses of releases.
"""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec
from msgspec.structs import replace

from forge.core.release.state import EnvironmentState, ReleaseState
from forge.model.decision import Command, Decision
from forge.model.policy import GATE_KEYS, Approvals, Freeze, LowBudget, MaxReleases, ReleasePolicy, Slo, Window
from forge.model.strategy import Adaptive
from forge.simulate.invariants import InvariantBroken
from forge.simulate.story import MONDAY, SETTLING, Story

GATES = 5
"""The number of the invariant: gates hold what starts and grows, and never what goes back."""


def gated(story: Story, rng: Random) -> Story:
    """Return the story with gates, and now and then an adaptive canary and sticky users."""
    policy = ReleasePolicy(
        slo=rng.choice((None, Slo(0.99, 3600.0), Slo(0.9, 600.0))),
        when_budget_low=rng.choice((None, LowBudget(0.5, 500, 20.0))),
        when_budget_empty=rng.choice(("fixes_only", "go_on")),
        windows=_windows(rng) if rng.random() < 0.4 else (),
        freezes=_freezes(rng) if rng.random() < 0.4 else (),
        max_releases=rng.choice((None, MaxReleases(1, 300.0), MaxReleases(2, 900.0))),
        approvals=rng.choice((None, None, Approvals(1), Approvals(2))),
    )
    strategy = story.strategy
    if strategy.name == "canary" and rng.random() < 0.4:
        strategy = replace(strategy, steps=(), adaptive=_adaptive(rng))
    shape = replace(story.shape, users=500, stay=rng.choice((5.0, 300.0))) if rng.random() < 0.2 else story.shape
    plan = replace(story.plan, policy={**story.plan.policy, **as_in_a_plan(policy)})
    return replace(story, plan=plan, strategy=strategy, shape=shape)


def as_in_a_plan(policy: ReleasePolicy) -> dict[str, Any]:
    """Return the policy as it stands in a plan that was written and read."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(policy))
    return plain


def check_gates(
    before: EnvironmentState, decision: Decision[EnvironmentState], commands: tuple[Command, ...], now: float
) -> None:
    """Raise InvariantBroken when a release started or grew although a gate was closed."""
    policy = _gates_of(before)
    for name, release in decision.state.releases.items():
        old = before.releases.get(name)
        waited = old is None or old.status == "queued"
        if waited and release.kind == "deploy" and release.status == "starting":
            votes = {*(old.votes if old is not None else ()), *(c.actor for c in commands if c.kind == "approve")}
            _check_start(decision.state, policy, release, votes, now)
        elif old is not None and release.kind == "deploy" and is_frozen(policy, now):
            _check_growth(before, decision.state, release)


def is_frozen(policy: ReleasePolicy, now: float) -> bool:
    """Whether a freeze of the policy (all of them in UTC) holds now."""
    at = datetime.fromtimestamp(now, UTC)
    spans = [(_moment(each.begins), _moment(each.ends)) for each in policy.freezes]
    return any(begins <= at < ends for begins, ends in spans)


def is_outside(policy: ReleasePolicy, now: float) -> bool:
    """Whether no window of the policy (all of them daily, in UTC) is open now."""
    at = datetime.fromtimestamp(now, UTC)
    minute = at.hour * 60 + at.minute
    return bool(policy.windows) and not any(each.opens <= minute < each.closes for each in policy.windows)


def _gates_of(state: EnvironmentState) -> ReleasePolicy:
    known = {key: value for key, value in state.plan.policy.items() if key in GATE_KEYS}
    return msgspec.convert(known, ReleasePolicy)


def _check_start(
    state: EnvironmentState, policy: ReleasePolicy, release: ReleaseState, votes: set[str], now: float
) -> None:
    needed = policy.approvals.required if policy.approvals is not None else 0
    _need(len(votes) >= needed, f"{release.id} started with {len(votes)} of {needed} votes")
    if release.override:
        return
    _need(not is_frozen(policy, now), f"{release.id} started in a freeze")
    _need(not is_outside(policy, now), f"{release.id} started outside of all windows")
    most = policy.max_releases
    if most is not None:
        starts = [each for each in state.releases.values() if _started_since(each, now - most.per)]
        _need(len(starts) <= most.count, f"{release.id} is start number {len(starts)} within {most.per:g} s")


def _started_since(release: ReleaseState, since: float) -> bool:
    """Whether it really started: one that was refused or had nothing to do begins and ends at one moment."""
    started = release.kind == "deploy" and release.started_at is not None and release.started_at > since
    return started and release.started_at != release.finished_at


def _check_growth(before: EnvironmentState, state: EnvironmentState, release: ReleaseState) -> None:
    old = before.releases[release.id]
    stays = {"starting", "progressing", "paused", "waiting_approval"}
    taking_over = {"promoting", "baking"} & {old.paused_from, release.paused_from}
    if release.override or release.strategy.name == "rolling" or taking_over or {old.status, release.status} - stays:
        return
    if not before.stable or before.stable != state.stable or release.version == state.stable:
        return
    was, got = _weight(before, release.version), _weight(state, release.version)
    if old.status == release.status == "paused":
        was = max(was, old.held_weight)  # what it had when it was paused, and may have lost with its replicas
    _need(got <= was, f"{release.id} grew from {was} to {got} in a freeze")


def _weight(state: EnvironmentState, version: str) -> int:
    return state.traffic.weights.get(version, 0) if state.traffic else 0


def _need(holds: bool, words: str) -> None:
    if not holds:
        raise InvariantBroken(GATES, words)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _windows(rng: Random) -> tuple[Window, ...]:
    """Daily windows in UTC around the beginning of stories, which is midnight."""
    found = []
    for _ in range(rng.randrange(1, 3)):
        opens = rng.randrange(0, 25)
        closes = opens + rng.randrange(1, 15)
        words = f"{opens // 60:02}:{opens % 60:02}-{closes // 60:02}:{closes % 60:02} UTC"
        found.append(Window(words, "UTC", tuple(range(7)), opens, closes))
    return tuple(found)


def _freezes(rng: Random) -> tuple[Freeze, ...]:
    begins = MONDAY + SETTLING + rng.uniform(-300.0, 1200.0)
    ends = begins + rng.choice((30.0, 300.0, 900.0))
    return (Freeze(_text(begins), _text(ends), "UTC", "a feast"),)


def _text(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).replace(tzinfo=None).isoformat()


def _adaptive(rng: Random) -> Adaptive:
    return Adaptive(
        budget=rng.choice((2.0, 20.0, 500.0)), tolerance=rng.choice((0.001, 0.05)), start=rng.choice((100, 2000)),
        most=rng.choice((2500, 5000)), every=rng.choice((1.0, 10.0)), decide_within=rng.choice((30.0, 300.0)),
    )  # fmt: skip
