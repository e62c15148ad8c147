"""What screens show of harm: what a release cost its users, and what all releases of an environment together did."""

from __future__ import annotations

import msgspec

from forge.core.release import harm
from forge.core.release.account import outage_seconds
from forge.core.release.state import EnvironmentState, ReleaseState
from forge.model.strategy import HarmBudget
from forge.model.units import format_duration

WINDOW = 30 * 86400.0
"""Seconds back of which an environment's releases are added up."""


class HarmView(msgspec.Struct, frozen=True):
    """The ledger of one release, from its first traffic to its end.

    `excess_failed`: failed requests above what `beside` would have failed, `interval` its 95 % bounds, which hold at
    every time at once (None: not kept). `outage_seconds`: of everything failing for everybody, as bad as that; below
    0: it failed less. `user_minutes`: the same times the users at any one time; None: their number is not given.
    `budget`: what is allowed (None: the judge alone), of which `spent` is used, as a fraction.
    """

    requests: int
    failed_requests: int
    excess_failed: float
    interval: tuple[float, float] | None = None
    beside: str = ""
    outage_seconds: float = 0.0
    user_minutes: float | None = None
    budget: HarmBudget | None = None
    spent: float | None = None


class EnvironmentHarmView(msgspec.Struct, frozen=True):
    """What all releases since `since` cost together, as far as they are remembered (`complete`: all of them are)."""

    since: float
    releases: int
    requests: int
    failed_requests: int
    excess_failed: float
    outage_seconds: float
    user_minutes: float | None = None
    rolled_back: int = 0
    complete: bool = True


def harm_view(state: EnvironmentState, release: ReleaseState) -> HarmView | None:
    """Return what the release has cost; None: it never had traffic."""
    if release.traffic_since is None:
        return None
    kept = release.account.seen is not None
    bounds = harm.interval(state, release) if kept else None
    outage = outage_seconds(release.account)
    return HarmView(
        requests=release.requests, failed_requests=release.failed_requests, excess_failed=release.excess_failed,
        interval=None if bounds is None else (round(bounds.low, 1), round(bounds.high, 1)),
        beside=release.account.beside, outage_seconds=round(outage, 3), user_minutes=user_minutes(state, outage),
        budget=release.strategy.harm_budget, spent=_spent(release, outage),
    )  # fmt: skip


def environment_harm_view(state: EnvironmentState, now: float, window: float = WINDOW) -> EnvironmentHarmView | None:
    """Return what the releases of the last `window` seconds cost together; None: none of them had traffic.

    A first version, and a release that goes back, cost nothing above stable: they are not in the sum.
    """
    since = now - window
    known = list(state.releases.values())
    counted = [
        release
        for release in known
        if release.traffic_since is not None and release.kind == "deploy" and release.previous
        and (release.finished_at is None or release.finished_at >= since)
    ]  # fmt: skip
    if not counted:
        return None
    outage = sum(outage_seconds(release.account) for release in counted)
    oldest = known[0]
    forgotten = not oldest.id.endswith("-1") and (oldest.finished_at is None or oldest.finished_at >= since)
    return EnvironmentHarmView(
        since=since, releases=len(counted), requests=sum(release.requests for release in counted),
        failed_requests=sum(release.failed_requests for release in counted),
        excess_failed=round(sum(release.excess_failed for release in counted), 1), outage_seconds=round(outage, 3),
        user_minutes=user_minutes(state, outage), rolled_back=sum(r.status == "rolled_back" for r in counted),
        complete=not forgotten,
    )  # fmt: skip


def user_minutes(state: EnvironmentState, outage: float) -> float | None:
    """Return the minutes of outage times the users at any one time, where the environment's policy has their number."""
    users = state.plan.policy.get("users")
    return round(outage / 60 * users, 1) if isinstance(users, int) and not isinstance(users, bool) else None


def harm_words(view: HarmView) -> tuple[str, ...]:
    """Return the ledger in words: what is above stable, how bad that is, and what is left of the budget."""
    beside = view.beside or "stable"
    if not view.beside and view.interval is not None:
        return ("a first version: there is nothing to compare it with",)
    sure = ""
    if view.interval is not None:
        low, high = view.interval
        sure = f" (95 % interval {low:,.0f} to {high:,.0f})"
    than = "more" if view.excess_failed > -0.5 else "fewer"
    lines = [f"{abs(view.excess_failed):,.0f} {than} than {beside} would have failed on as many{sure}"]
    if view.outage_seconds >= 1:
        people = "" if view.user_minutes is None else f", {view.user_minutes:,.0f} user-minutes"
        lines.append(f"as bad as {format_duration(view.outage_seconds)} of full outage{people}")
    if view.budget is not None and view.spent is not None:
        lines.append(f"harm budget: {budget_words(view.budget)}, {max(0.0, view.spent):.0%} spent")
    return tuple(lines)


def environment_harm_words(view: EnvironmentHarmView) -> str:
    """Return what the releases of the window cost together, in one line."""
    people = "" if view.user_minutes is None else f" or {view.user_minutes:,.0f} user-minutes"
    lasted = f", as bad as {format_duration(view.outage_seconds)} of full outage{people}"
    return (
        f"{view.releases} releases{'' if view.complete else ' (older ones are forgotten)'}, {view.rolled_back} rolled "
        f"back; {view.failed_requests:,} of {view.requests:,} requests to new versions failed, "
        f"{view.excess_failed:,.0f} more than stable would have{lasted if view.outage_seconds >= 1 else ''}"
    )


def budget_words(budget: HarmBudget) -> str:
    """Return what a harm budget allows."""
    parts = []
    if budget.failed_requests is not None:
        parts.append(f"{budget.failed_requests:,g} failed requests above stable")
    if budget.outage is not None:
        parts.append(f"{format_duration(budget.outage)} of full outage")
    return " or ".join(parts)


def _spent(release: ReleaseState, outage: float) -> float | None:
    budget = release.strategy.harm_budget
    if budget is None:
        return None
    used = [(release.excess_failed, budget.failed_requests), (outage, budget.outage)]
    return round(max(amount / limit for amount, limit in used if limit), 4)
