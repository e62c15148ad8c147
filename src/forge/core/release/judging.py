"""Asks the judge about every arm with traffic, in every state that a release can be in, and acts on a rollback."""

from __future__ import annotations

from msgspec.structs import replace

from forge.core.judge.base import JudgesTogether, Series
from forge.core.judge.history import calibration_of
from forge.core.judge.quality import Quality, with_quality
from forge.core.judge.registry import judge_of
from forge.core.release import harm
from forge.core.release.observe import fresh_sample
from forge.core.release.releases import start_restore
from forge.core.release.rollback import begin_rollback, choose_target
from forge.core.release.state import ReleaseState, ReleaseStatus, Verdict
from forge.core.release.tick import Tick, takes_over
from forge.model.units import format_duration

CRASHES = 3
"""Restarts, or refusals by the target, after which a version that was never ready is given up early."""


def judge_arms(tick: Tick) -> None:
    """Give every arm its verdict; a bad one begins to roll back in this tick."""
    harm.count(tick)
    _stop_what_is_spent(tick)
    judged: dict[str, Verdict] = {}
    for release in tick.active:
        if release.status != "rolling_back" and not _gave_up(tick, release):
            verdict = _judge(tick, release)
            if verdict is not None:
                judged[release.id] = verdict
    for name, verdict in _together(tick, judged).items():
        _conclude(tick, name, verdict)
    _watch_promoted(tick)


def _stop_what_is_spent(tick: Tick) -> None:
    """Roll back every arm that has spent its own harm budget, whatever the judge says of it."""
    for release in tick.active:
        words = harm.budget_spent(tick, release) if release.status != "rolling_back" else ""
        if words:
            _say_spent(tick, release, words)
            begin_rollback(tick, release, "rolled_back", words)


def _say_spent(tick: Tick, release: ReleaseState, words: str) -> None:
    low, high = harm.interval(tick.state, release)
    tick.say(
        "harm_budget_spent", f"{release.id}: {words}", release=release.id, failed_requests=release.failed_requests,
        requests=release.requests, excess_failed=release.excess_failed, excess_interval=[round(low, 1), round(high, 1)],
    )  # fmt: skip


def needs_data(tick: Tick, release: ReleaseState) -> bool:
    """Whether missing data has to hold this release; not a rollback, and not one that a person promoted."""
    if release.kind == "rollback" or release.forced:
        return False
    return judge_of(tick.state.plan).needs_data(release)


def in_doubt(release: ReleaseState) -> bool:
    """Whether something speaks against the release, but does not prove it bad yet: it must not grow meanwhile."""
    verdict = release.verdict
    return verdict is not None and verdict.kind == "hold" and bool(verdict.data.get("doubt")) and not release.forced


def warm_at(release: ReleaseState) -> float:
    """Return when the declared warm-up of the release's version is over."""
    return (release.traffic_since or 0.0) + release.strategy.warm_up


def series(tick: Tick, version: str, release: ReleaseState) -> Series:
    """Return the version's readings since the release gave it traffic."""
    samples = [samples[version] for _, samples in tick.state.history if version in samples]
    baseline = release.baseline
    if baseline is not None and version == release.version:
        samples = [baseline, *(sample for sample in samples if sample.at > baseline.at)]
    found = calibration_of(tick.state.own_history)
    weights = (tick.asked.get(version, 0), tick.observed(version) or 0)
    return Series(version, tuple(samples), warm_at(release), tick.ready(version), weights, found)


def _judge(tick: Tick, release: ReleaseState) -> Verdict | None:
    """Return the judge's word on one arm and remember what it saw; None when there is nothing to judge."""
    if release.traffic_since is None or release.kind == "rollback":
        return None
    if fresh_sample(tick, release.version) is None and judge_of(tick.state.plan).needs_data(release):
        if release.verdict is not None and "quality" in release.verdict.data:
            quality: Quality = "stale" if release.version in (tick.observation.samples or {}) else "missing"
            tick.put(replace(release, verdict=with_quality(release.verdict, quality)))
        return None
    left = warm_at(release) - tick.now
    if left > 0:
        return Verdict("hold", f"warming up for {format_duration(left)} more")
    verdict, memory = _ask(tick, release)
    tick.put(replace(release, judge_state=memory))
    return verdict


def _together(tick: Tick, judged: dict[str, Verdict]) -> dict[str, Verdict]:
    """Let the judge look at all arms at once; one that could not be read now counts with what was known of it."""
    judge = judge_of(tick.state.plan)
    if not judged or not isinstance(judge, JudgesTogether):
        return judged
    beside = {r.id: r.verdict for r in tick.active if r.status != "rolling_back" and r.kind == "deploy" and r.verdict}
    told = judge.finish({**beside, **judged})
    return {name: told[name] for name in judged}


def _conclude(tick: Tick, name: str, verdict: Verdict) -> None:
    release = tick.state.releases[name]
    changed = release.verdict is None or release.verdict.kind != verdict.kind
    release = replace(release, verdict=verdict)
    tick.put(release)
    if changed:
        tick.say("verdict", f"{release.id}: {verdict.kind}: {verdict.why}", release=release.id, **verdict.data)
    if verdict.kind == "rollback":
        begin_rollback(tick, release, "rolled_back", verdict.why)


def _ask(tick: Tick, release: ReleaseState) -> tuple[Verdict, dict[str, object]]:
    judge = judge_of(tick.state.plan)
    arm = series(tick, release.version, release)
    stable = series(tick, tick.state.stable, release)
    return judge.judge(release.judge_state, release, arm, stable, tick.now)


def _gave_up(tick: Tick, release: ReleaseState) -> bool:
    """Roll back a version that cannot become ready: after the deadline, or early when it crashes in a loop."""
    known = tick.version(release.version)
    if known is None or tick.observation.replicas is None or known.unready_since is None:
        return False
    waited = tick.now - known.unready_since
    told = (known.seen.message if known.seen else "") or known.problem
    words = f"{tick.ready(release.version)} of {known.wanted} replicas of {release.version} ready"
    looping = not known.ever_ready and (
        bool(known.seen and known.seen.restarts >= CRASHES) or known.failures >= CRASHES
    )
    if not looping and waited < release.strategy.progress_deadline:
        return False
    limit = f"within {format_duration(release.strategy.progress_deadline)}"
    reason = f"{words} {limit}" if not looping else f"{words} and it keeps failing after {format_duration(waited)}"
    ends_as: ReleaseStatus = "failed" if release.kind == "rollback" else "rolled_back"
    begin_rollback(tick, release, ends_as, reason + (f": {told}" if told else ""))
    return True


def _watch_promoted(tick: Tick) -> None:
    """Judge the newest promoted version while the one before is warm; a bad verdict goes back to that one."""
    if any(takes_over(release) or release.kind == "rollback" for release in tick.active):
        return
    for release in list(tick.state.releases.values()):
        if release.status != "promoted" or release.version != tick.state.stable or release.kind == "rollback":
            continue
        if not harm.watched_after_promotion(tick, release) or release.traffic_since is None:
            continue
        if words := harm.budget_spent(tick, release):
            _say_spent(tick, release, words)
            start_restore(tick, choose_target(tick.state), actor="forge", reason=words)
            return
        if fresh_sample(tick, release.version) is None:
            continue
        verdict, memory = _ask(tick, release)
        tick.put(replace(release, verdict=verdict, judge_state=memory))
        if verdict.kind == "rollback":
            start_restore(tick, choose_target(tick.state), actor="forge", reason=verdict.why)
            return
