"""What a screen shows of one release: where it stands, what it measured, and what it waits for."""

from __future__ import annotations

from typing import Any

import msgspec

from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState
from forge.model.strategy import Strategy, StrategyStep
from forge.model.units import format_duration, format_weight
from forge.views.harm import HarmView, budget_words, harm_view
from forge.views.links import grafana_links
from forge.views.run import elapsed


class VerdictView(msgspec.Struct, frozen=True):
    """The judge's last word."""

    kind: str
    why: str
    data: dict[str, Any] = {}


class StrategyStepView(msgspec.Struct, frozen=True):
    """A step of the strategy: `done`, `current` or `pending`."""

    text: str
    state: str


class ReleaseView(msgspec.Struct, frozen=True):
    """One release. Weights are basis points; `actual_weight` is what the router itself reports, None: unknown."""

    id: str
    environment: str
    version: str
    state: str
    strategy: str
    step: int
    steps: tuple[StrategyStepView, ...]
    set_weight: int
    actual_weight: int | None
    previous: str = ""
    actor: str = ""
    run: str = ""
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    duration: float | None = None
    requests: int = 0
    failed_requests: int = 0
    excess_failed: float = 0.0
    """Failed requests above what stable would have failed on as many."""
    kind: str = "deploy"
    verdict: VerdictView | None = None
    reason: str = ""
    note: str = ""
    waits_for: str = ""
    earliest: float | None = None
    votes: tuple[str, ...] = ()
    held_by: tuple[str, ...] = ()
    """The policy gates that keep it from starting or growing: freeze, window, rate, budget, burn, approval."""
    fix: bool = False
    override: str = ""
    """Who let it pass the policy, and why."""
    next: tuple[str, ...] = ()
    harm: HarmView | None = None
    """What it has cost its users; None: it never had traffic."""
    links: tuple[str, ...] = ()
    """Where it can be looked at in Grafana."""

    @property
    def final(self) -> bool:
        """Whether it is over."""
        return self.state in RELEASE_FINAL

    @property
    def progress(self) -> str:
        """How many of the strategy's steps are done: `2/5`; empty for a strategy without steps."""
        return f"{min(self.step, len(self.steps))}/{len(self.steps)}" if self.steps else ""


def release_view(state: EnvironmentState, release: ReleaseState, now: float) -> ReleaseView:
    """Return what to show of a release of this environment at `now`."""
    verdict = release.verdict
    return ReleaseView(
        id=release.id,
        environment=state.name,
        version=release.version,
        state=release.status,
        strategy=release.strategy.name,
        step=release.step,
        steps=_steps(release.strategy, release),
        set_weight=(state.traffic.weights.get(release.version, 0) if state.traffic else 0),
        actual_weight=(None if state.observed is None else state.observed.get(release.version, 0)),
        previous=release.previous,
        actor=release.actor,
        run=release.run,
        created_at=release.created_at,
        started_at=release.started_at,
        finished_at=release.finished_at,
        duration=elapsed(release.started_at, release.finished_at, now),
        requests=release.requests,
        failed_requests=release.failed_requests,
        excess_failed=release.excess_failed,
        kind=release.kind,
        verdict=None if verdict is None else VerdictView(verdict.kind, verdict.why, verdict.data),
        reason=release.reason,
        note=release.note,
        waits_for="" if release.status in RELEASE_FINAL else release.waits_for,
        earliest=None if release.status in RELEASE_FINAL else release.earliest,
        votes=release.votes,
        held_by=() if release.status in RELEASE_FINAL else release.held_by,
        fix=release.fix,
        override=release.override,
        next=_next_commands(state.name, release),
        harm=harm_view(state, release),
        links=grafana_links(state, release),
    )


def describe_step(step: StrategyStep) -> str:
    """Return a strategy's step in words: `weight 5%`, `pause 10m`, `pause until resumed`, `approval`."""
    if step.weight is not None:
        return f"weight {format_weight(step.weight)}"
    if step.approval is not None:
        return "approval"
    if step.until_resumed:
        return "pause until resumed"
    return f"pause {format_duration(step.pause or 0.0)}"


def describe_strategy(strategy: Strategy) -> str:
    """Return a strategy in one line: its name and its steps, or its surge, and what it may cost."""
    budget = f", at most {budget_words(strategy.harm_budget)}" if strategy.harm_budget is not None else ""
    return _way(strategy) + budget


def _way(strategy: Strategy) -> str:
    if strategy.steps:
        return f"{strategy.name}: " + " → ".join(describe_step(step) for step in strategy.steps)
    if strategy.adaptive is not None:
        most, tolerance = format_weight(strategy.adaptive.most), f"{strategy.adaptive.tolerance * 100:g}%"
        return f"canary: adaptive up to {most}, all of it when {tolerance} more errors are excluded"
    if strategy.name == "rolling":
        return f"rolling: max_surge {strategy.max_surge}, max_unavailable {strategy.max_unavailable}"
    return strategy.name


def _steps(strategy: Strategy, release: ReleaseState) -> tuple[StrategyStepView, ...]:
    under_way = release.status not in RELEASE_FINAL
    states = [
        "done" if at < release.step else "current" if at == release.step and under_way else "pending"
        for at in range(len(strategy.steps))
    ]
    return tuple(StrategyStepView(describe_step(step), is_) for step, is_ in zip(strategy.steps, states, strict=True))


NOT_PASSED = ((), ("approval",))
"""What a person has no reason to pass, or cannot: no gate, and approvals alone."""


def _next_commands(environment: str, release: ReleaseState) -> tuple[str, ...]:
    if release.status in {"aborted", "rolled_back", "failed"}:
        return (f"forge release retry {environment}",)
    if release.status == "promoted" and release.previous:
        return (f"forge rollback {environment}",)
    if release.status in {"promoted", "superseded"}:
        return ()
    if release.status == "queued":
        named = f"{environment} --release {release.id}"
        approve = (f"forge release approve {named}",) if "approval" in release.held_by else ()
        passing = (f"forge release promote {named} --override REASON",) if release.held_by not in NOT_PASSED else ()
        return (*approve, *passing, f"forge release abort {named}")
    if release.held_by and release.status == "progressing":
        return (f"forge release promote {environment} --override REASON", f"forge release abort {environment}")
    if release.status == "waiting_approval":
        return (f"forge release approve {environment}", f"forge release abort {environment}")
    if release.status == "paused":
        return (f"forge release resume {environment}", f"forge release abort {environment}")
    if release.status == "rolling_back":
        return (f"forge release watch {environment}",)
    return (f"forge release watch {environment}", f"forge release abort {environment}")
