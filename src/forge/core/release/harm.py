"""What a release has cost its users, kept for each arm, and the budget that stops it whatever the judge says."""

from __future__ import annotations

from msgspec.structs import replace

from forge.core.judge.calibrate import SHORTEST_HISTORY
from forge.core.judge.history import OwnHistory, calibration_of
from forge.core.release import account as books
from forge.core.release.account import Account, Interval, Pair
from forge.core.release.observe import fresh_sample
from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState
from forge.core.release.tick import Tick
from forge.model.strategy import HarmBudget
from forge.model.traffic import Sample
from forge.model.units import WHOLE, format_duration

STRAGGLERS = 10.0
"""Seconds after the end of a release in which answers to requests already under way are still counted."""
CERTAIN = 0.99
"""How sure it must be that an arm is worse than stable at all before its budget stops it."""


def begin(tick: Tick, release: ReleaseState) -> ReleaseState:
    """Return the release at the moment when it is given its first traffic: counting starts here."""
    baseline = _latest(tick, release.version) or Sample(tick.now, 0, 0)
    beside = _beside(tick, release)
    other = _latest(tick, beside) if beside else None
    account = books.opened(beside, _pair(baseline), _pair(other) if other else None, tick.now, _past(tick, beside))
    return replace(
        release, baseline=baseline, stable_baseline=replace(other, latency=()) if other else None,
        traffic_since=tick.now, account=account,
    )  # fmt: skip


def count(tick: Tick) -> None:
    """Bring the accounts of every release that has, or just had, traffic up to date."""
    newest = {release.version: release.id for release in tick.state.releases.values()}
    for release in tick.state.releases.values():
        if release.baseline is None or newest[release.version] != release.id or not _still_counts(tick, release):
            continue
        sample = fresh_sample(tick, release.version)
        if sample is not None:
            counted = _counted(tick, release, sample)
            if counted != release:
                tick.put(counted)


def budget_spent(tick: Tick, release: ReleaseState) -> str:
    """Return in words and numbers how the release has spent its harm budget; empty: it has not, or has none.

    The estimate is what is held against the budget, so that harm is not twice what is allowed before anything happens;
    but a version that is no worse than stable has luck and bad luck too, and given time an estimate crosses every
    limit. So the interval must exclude, at 99 % and at every time at once, that it is no worse at all.
    """
    budget, beside = release.strategy.harm_budget, release.account.beside
    if budget is None or release.kind == "rollback" or not beside:
        return ""
    allowed = _crossed(release, budget)
    clump = measured_clump(tick.state)
    if not allowed or books.excess_interval(release.account, release.failed_requests, clump, CERTAIN).low <= 0:
        return ""
    low, high = (max(0.0, bound) for bound in interval(tick.state, release))
    return (
        f"its harm budget is spent: {release.failed_requests:,} of {release.requests:,} requests failed, "
        f"{release.excess_failed:,.0f} more than {beside} would have failed (95 % interval {low:,.0f} to {high:,.0f}), "
        f"{allowed}"
    )


def interval(state: EnvironmentState, release: ReleaseState) -> Interval:
    """Return the 95 % interval, at every time at once, of the release's failed requests above stable."""
    clump = calibration_of(state.own_history).clump
    return books.excess_interval(release.account, release.failed_requests, clump)


def measured_clump(state: EnvironmentState) -> float:
    """Return how many errors come as one, as measured; 1 while it is not: what is not known must not delay a budget."""
    return calibration_of(state.own_history).clump if _has_history(state.own_history) else 1.0


def _counted(tick: Tick, release: ReleaseState, sample: Sample) -> ReleaseState:
    own, beside = _pair(sample), _beside(tick, release)
    before = release.account if release.account.seen is not None else _carried_over(tick, release)
    new = books.grown(before, own)
    account = _read(tick, release.version, before, own, sample.at)
    if account.beside != beside:
        other = fresh_sample(tick, beside) if beside else None
        account = books.turned(account, beside, _pair(other) if other else None, _past(tick, beside))
    failed = release.failed_requests + new[1]
    excess = round(failed - books.expected_failures(account), 3)
    requests = release.requests + new[0]
    return replace(release, account=account, requests=requests, failed_requests=failed, excess_failed=excess)


def _read(tick: Tick, version: str, account: Account, own: Pair, at: float) -> Account:
    other = fresh_sample(tick, account.beside) if account.beside else None
    weight = tick.observed(version)
    rests = tick.observed(account.beside) == 0 and not tick.asked.get(account.beside, 0)
    share = (tick.asked.get(version, 0) if weight is None else weight) / WHOLE
    return books.read(account, own, _pair(other) if other else None, at, share, rests=rests)


def _carried_over(tick: Tick, release: ReleaseState) -> Account:
    """Open the account of a release that got its traffic before there were accounts, with what it had then."""
    assert release.baseline is not None
    beside, other = _beside(tick, release), release.stable_baseline
    own = (release.baseline.requests + release.requests, release.baseline.errors + release.failed_requests)
    opened = books.opened(beside, own, _pair(other) if other else None, release.baseline.at, _past(tick, beside))
    return replace(opened, expected=round(release.failed_requests - release.excess_failed, 6))


def _beside(tick: Tick, release: ReleaseState) -> str:
    """Return the version to compare with: stable, or what was stable before where the release's own version is now."""
    stable = tick.state.stable
    if stable == release.version:
        return release.previous if release.previous != release.version else ""
    return stable


def _still_counts(tick: Tick, release: ReleaseState) -> bool:
    if release.status not in RELEASE_FINAL:
        return True
    if release.status == "promoted":
        return watched_after_promotion(tick, release)
    return tick.now - (release.finished_at or 0.0) <= STRAGGLERS


def watched_after_promotion(tick: Tick, release: ReleaseState) -> bool:
    """Whether the release is stable now and the version before it is still warm, or on its way back."""
    if release.version != tick.state.stable or release.kind == "rollback":
        return False
    before = tick.version(release.previous)
    warm = before is not None and before.warm_until is not None and tick.now < before.warm_until
    return warm or any(other.kind == "rollback" for other in tick.active)


def _crossed(release: ReleaseState, budget: HarmBudget) -> str:
    """Return which limit of the budget is reached, in words; empty: none."""
    if budget.failed_requests is not None and release.excess_failed >= budget.failed_requests:
        return f"{budget.failed_requests:,g} are allowed"
    outage = books.outage_seconds(release.account)
    if budget.outage is not None and outage >= budget.outage:
        return f"as bad as {format_duration(outage)} of full outage, {format_duration(budget.outage)} is allowed"
    return ""


def _past(tick: Tick, version: str) -> Pair:
    """Return the requests and failures of the version in the history that is kept: what its rate is known from."""
    samples = [samples[version] for _, samples in tick.state.history if version in samples]
    if len(samples) < 2:
        return 0, 0
    requests, failed = samples[-1].requests - samples[0].requests, samples[-1].errors - samples[0].errors
    return (requests, failed) if requests >= failed >= 0 else (0, 0)


def _has_history(history: OwnHistory) -> bool:
    return history.seconds >= SHORTEST_HISTORY


def _latest(tick: Tick, version: str) -> Sample | None:
    fresh = fresh_sample(tick, version)
    if fresh is not None:
        return fresh
    return next((samples[version] for _, samples in reversed(tick.state.history) if version in samples), None)


def _pair(sample: Sample) -> Pair:
    return sample.requests, sample.errors
