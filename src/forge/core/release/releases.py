"""How releases come into being, wait for their turn, and end as promoted."""

from __future__ import annotations

from msgspec.structs import replace

from forge.core.judge.registry import JUDGES, judge_of
from forge.core.release.migrations import too_old
from forge.core.release.policing import held_at_start, note_start, unreadable
from forge.core.release.rollback import Target, begin_rollback
from forge.core.release.state import RELEASE_FINAL, ReleaseState, VersionState
from forge.core.release.tick import Tick, takes_over
from forge.model.configs import DeployConfig
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.model.traffic import Version
from forge.model.units import format_duration

MAX_ARMS = 4
KEPT_RELEASES = 20
KEPT_PREVIOUS = 10


def start_deploy(
    tick: Tick, request: DeployConfig, version: Version, plan: EnvironmentPlan, *, actor: str, run: str, key: str
) -> None:
    """Accept a release: adopt the plan, and start it or queue it. The same key is the same release."""
    if key and any(release.key == key for release in tick.state.releases.values()):
        return
    release = ReleaseState(
        id=_next_id(tick), version=version.id, strategy=request.strategy, actor=actor, run=run, key=key,
        created_at=tick.now, routes=tuple(replace(route, version=version.id) for route in request.routes),
        fix=request.fix, waits_for="a first look at the environment",
    )  # fmt: skip
    if plan.judge not in JUDGES:
        _end_at_once(tick, release, "failed", f"there is no judge `{plan.judge}`; there are {', '.join(JUDGES)}")
        return
    try:
        judge_of(plan)
    except UsageError as error:
        _end_at_once(tick, release, "failed", error.message)
        return
    if problem := unreadable(plan.policy):
        _end_at_once(tick, release, "failed", f"the policy of {plan.name} cannot be read: {problem}")
        return
    tick.change(plan=plan)
    known = tick.version(version.id)
    if known is not None and _content(known.version) != _content(version):
        _end_at_once(tick, release, "failed", f"{version.id} exists already with other content; name it differently")
        return
    if obstacle := too_old(tick.state, version):
        _end_at_once(tick, release, "failed", obstacle)
        return
    if known is None:
        tick.change(versions={**tick.state.versions, version.id: VersionState(version)})
    tick.put(release)
    tick.say(
        "release_accepted", f"{release.id}: {version.id} by {release.strategy.name}, asked for by {actor or 'nobody'}",
        release=release.id, version=version.id, strategy=release.strategy.name, run=release.run,
    )  # fmt: skip
    if not held_at_start(tick, release):
        _take_precedence(tick, release)


def start_restore(tick: Tick, target: Target, *, actor: str, reason: str, key: str = "") -> None:
    """Begin a release that goes back to `target`. It never queues: going back is urgent."""
    if not target.version:
        tick.say("rollback_impossible", f"nothing was rolled back: {target.why}", actor=actor)
        return
    release = ReleaseState(
        id=_next_id(tick), version=target.version, strategy=Strategy("blue_green", thresholds=(), keep_previous=0.0),
        actor=actor, key=key, created_at=tick.now, started_at=tick.now, step_started_at=tick.now, kind="rollback",
        status="promoting", previous=tick.state.stable, reason=reason,
    )  # fmt: skip
    tick.put(release)
    _keep(tick, target.version)
    tick.change_version(tick.state.stable, faulted=reason)
    tick.say(
        "rollback_started",
        f"{release.id}: {tick.state.name} goes back from {tick.state.stable} to {target.version}: {reason}. "
        f"{target.why}",
        release=release.id, version=target.version, previous=tick.state.stable, reason=reason, why=target.why,
    )  # fmt: skip


def _keep(tick: Tick, version: str) -> None:
    """Take back a removal that was asked for: the version is needed after all.

    It is asked for anew under a newer generation, and counts as ready when it was seen after that.
    """
    known = tick.version(version)
    if known is not None and known.removing_since is not None:
        tick.change_version(version, removing_since=None, wanted=0, seen=None, ensured_at=0.0)


def admit(tick: Tick) -> None:
    """Start queued releases in order of arrival, as many as policy allows; the others say what they wait for."""
    blocked = ""
    for queued in tick.queued:
        before = queued.held_by
        if held_at_start(tick, queued):
            continue  # its own gates keep it, so it keeps nobody else
        release = tick.state.releases[queued.id]
        if before:
            _take_precedence(tick, release)
        blocked = blocked or _obstacle(tick, release)
        if blocked:
            if release.waits_for != blocked:
                tick.put(replace(release, waits_for=blocked))
                tick.say("release_queued", f"{release.id} waits: {blocked}", release=release.id)
            blocked = f"{release.id} to start first"
        else:
            _start(tick, release)


def promoted(tick: Tick, release: ReleaseState) -> None:
    """Make the release's version stable; the one before stays warm for `keep_previous` seconds."""
    before = tick.state.stable
    reason = _praise(tick, release)
    tick.put(
        replace(
            release, status="promoted", finished_at=tick.now, reason=reason, waits_for="", earliest=None,
        )
    )  # fmt: skip
    tick.change_version(release.version, faulted="", warm_until=None)
    if before not in {"", release.version}:
        warm = 0.0 if release.strategy.name == "rolling" else release.strategy.keep_previous
        tick.change_version(before, warm_until=tick.now + warm)
    tick.change(stable=release.version, previous=_lineage(tick, release, before))
    for other in tick.active:
        tick.put(replace(other, previous=release.version))
    tick.say(
        "release_promoted", f"{release.id}: {release.version} is stable: {reason}",
        release=release.id, version=release.version, previous=before, requests=release.requests,
        failed_requests=release.failed_requests,
    )  # fmt: skip
    if release.kind == "rollback":
        _mark_rolled_back(tick, release, before)


def forget_old(tick: Tick) -> None:
    """Drop the oldest finished releases and versions to go back to, and what judges remember of what is over."""
    for release in tick.state.releases.values():
        if release.judge_state and release.status in RELEASE_FINAL and not _still_judged(tick, release):
            tick.put(replace(release, judge_state={}))  # by far the largest part of a release
    finished = [r.id for r in tick.state.releases.values() if r.status in RELEASE_FINAL]
    for old in finished[: max(0, len(finished) - KEPT_RELEASES)]:
        tick.change(releases={key: value for key, value in tick.state.releases.items() if key != old})
    if len(tick.state.previous) > KEPT_PREVIOUS:
        tick.change(previous=tick.state.previous[:KEPT_PREVIOUS])


def _still_judged(tick: Tick, release: ReleaseState) -> bool:
    """Whether the release was promoted and the version before it is still warm, so that it can be rolled back."""
    if release.status != "promoted" or release.version != tick.state.stable:
        return False
    before = tick.version(release.previous)
    return before is not None and before.warm_until is not None and tick.now < before.warm_until


def _next_id(tick: Tick) -> str:
    number = tick.state.next_release
    tick.change(next_release=number + 1)
    return f"{tick.state.name}-{number}"


def _content(version: Version) -> tuple[object, ...]:
    return version.artifact, version.config


def _end_at_once(tick: Tick, release: ReleaseState, status: str, reason: str) -> None:
    ended = replace(release, status=status, started_at=tick.now, finished_at=tick.now, reason=reason, waits_for="")
    tick.put(ended)
    tick.say(f"release_{status}", f"{release.id}: {reason}", release=release.id, version=release.version)


def _take_precedence(tick: Tick, newer: ReleaseState) -> None:
    """By policy, end older releases for a newer one, except those that already take stable's place: they finish."""
    if tick.state.plan.policy.get("on_overlap") != "supersede":
        return
    names = list(tick.state.releases)
    older = names[: names.index(newer.id)]
    for release in [*tick.queued, *tick.active]:
        if release.id not in older or release.status == "rolling_back" or takes_over(release):
            continue
        if release.kind == "deploy":
            begin_rollback(tick, release, "superseded", f"superseded by {newer.id} ({newer.version})")


def _obstacle(tick: Tick, release: ReleaseState) -> str:
    """What keeps a queued release from starting; empty when nothing does."""
    active = tick.active
    ids = ", ".join(other.id for other in active)
    for other in active:
        if other.version == release.version:
            return f"{other.id} to finish, which releases {release.version} too"
        if other.kind == "rollback":
            return f"{other.id} to finish going back to {other.version}"
    known = tick.version(release.version)
    if known is not None and known.removing_since is not None:
        return f"the old replicas of {release.version} to be gone"
    if not active:
        return ""
    if not tick.state.stable:
        return f"{ids} to finish, the first release of {tick.state.name}"
    if tick.state.plan.policy.get("on_overlap") == "queue":
        return f"{ids} to finish (policy on_overlap: queue)"
    if release.strategy.name != "canary":
        return f"{ids} to finish: a {release.strategy.name} release replaces all of stable and runs alone"
    for other in active:
        if other.strategy.name != "canary":
            return f"{other.id} to finish: a {other.strategy.name} release runs alone"
    most = tick.state.plan.policy.get("max_arms", MAX_ARMS)
    most = max(1, most) if isinstance(most, int) else MAX_ARMS
    if len(active) >= most:
        return f"one of {ids} to finish: at most {most} versions beside stable (policy max_arms)"
    return ""


def _start(tick: Tick, release: ReleaseState) -> None:
    if release.version == tick.state.stable:
        _end_at_once(tick, release, "promoted", f"{release.version} is already stable in {tick.state.name}")
        return
    tick.put(
        replace(
            release, status="starting", started_at=tick.now, step_started_at=tick.now,
            previous=tick.state.stable, waits_for="",
        )
    )  # fmt: skip
    note_start(tick, release)
    fresh: dict[str, object] = {"warm_until": None, "faulted": "", "failures": 0, "problem": "", "unready_since": None}
    tick.change_version(release.version, **fresh)
    beside = f" beside {tick.state.stable}" if tick.state.stable else ", the first version here"
    tick.say(
        "release_started", f"{release.id}: {release.version} starts{beside}", release=release.id,
        version=release.version, stable=tick.state.stable,
    )  # fmt: skip


def _praise(tick: Tick, release: ReleaseState) -> str:
    took = format_duration(tick.now - (release.started_at or release.created_at))
    if release.kind == "rollback":
        return f"went back from {release.previous} in {took}: {release.reason}"
    rate = f" ({release.failed_requests / release.requests:.2%})" if release.requests else ""
    words = f"after {took}, {release.requests} requests, {release.failed_requests} failed{rate}"
    return f"{words}; {release.note}" if release.note else words


def _lineage(tick: Tick, release: ReleaseState, before: str) -> tuple[str, ...]:
    """The versions to go back to, newest first. Going back leaves what is newer than the target at the end."""
    older = tuple(version for version in tick.state.previous if version not in {release.version, before})
    if not before or before == release.version:
        return older
    return (*older, before) if release.kind == "rollback" else (before, *older)


def _mark_rolled_back(tick: Tick, restore: ReleaseState, before: str) -> None:
    """The release that had made the bad version stable has been rolled back after all."""
    for release in reversed(list(tick.state.releases.values())):
        if release.version == before and release.status == "promoted" and release.kind == "deploy":
            reason = f"rolled back by {restore.id} after its promotion: {restore.reason}"
            tick.put(replace(release, status="rolled_back", reason=reason))
            tick.say("release_rolled_back", f"{release.id}: {reason}", release=release.id, version=before)
            return
