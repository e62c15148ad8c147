"""The transitions of a release: one small function for each status, called until nothing changes any more.

None of them is reached by a release whose verdict is rollback: judging comes first in every tick.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from forge.core.policy.gates import Gate
from forge.core.release import harm, policing
from forge.core.release.foresight import tell_sensitivity
from forge.core.release.growing import fall_back, grow
from forge.core.release.judging import in_doubt, needs_data, warm_at
from forge.core.release.observe import fresh_sample
from forge.core.release.releases import promoted
from forge.core.release.rollback import begin_rollback
from forge.core.release.saturating import refused
from forge.core.release.state import RELEASE_FINAL, ReleaseState, ReleaseStatus
from forge.core.release.strategies import kept_weight, needed_to_start, weight_at
from forge.core.release.tick import Tick, takes_over
from forge.model.plan import Approval
from forge.model.strategy import Adaptive
from forge.model.units import WHOLE, format_duration, format_weight

MOST_TRANSITIONS = 60
"""Of one release in one tick: more than any strategy has steps that need no waiting."""


def note_holds(tick: Tick) -> None:
    """Remember since when a release cannot know what it needs; patience is counted from then."""
    for release in tick.active:
        held = hold_reason(tick, release)
        if held and release.data_missing_since is None:
            tick.put(replace(release, data_missing_since=tick.now))
            tick.say("release_holds", f"{release.id}: holds its traffic, waits for {held}", release=release.id)
        elif not held and release.data_missing_since is not None:
            gap = tick.now - release.data_missing_since
            tick.put(replace(release, data_missing_since=None))
            words = f"{release.id}: what was missing for {format_duration(gap)} is back"
            tick.say("release_goes_on", words, release=release.id)


def advance(tick: Tick) -> None:
    """Move every release as far as it can go now, oldest first."""
    for release_id in [release.id for release in tick.active]:
        for _ in range(MOST_TRANSITIONS):
            before = tick.state.releases[release_id]
            if before.status in RELEASE_FINAL:
                break
            TRANSITIONS[before.status](tick, before)
            after = tick.state.releases[release_id]
            if (after.status, after.step) == (before.status, before.step):
                break


def hold_reason(tick: Tick, release: ReleaseState) -> str:
    """Why nothing of this release may grow now (missing data); empty when it may."""
    if tick.blind:
        return f"{tick.blind}: {tick.observation.problem}" if tick.observation.problem else tick.blind
    if release.traffic_since is None or not needs_data(tick, release):
        return ""
    if fresh_sample(tick, release.version) is not None:
        return ""
    since = release.data_missing_since
    ago = f", missing for {format_duration(tick.now - since)}" if since is not None else ""
    why = f" ({tick.observation.problem})" if tick.observation.problem else ""
    return f"metrics of {release.version}{ago}{why}"


def wait(tick: Tick, release: ReleaseState, words: str, earliest: float | None = None) -> None:
    """Say what the release waits for, and the earliest time at which that can change by itself."""
    if release.waits_for != words or release.earliest != earliest:
        tick.put(replace(release, waits_for=words, earliest=earliest))


def pause(tick: Tick, release: ReleaseState, by: str, words: str) -> None:
    """Stop where it is; only a person makes it go on (a rollback is never held up)."""
    weight = kept_weight(tick, release)
    tick.put(
        replace(
            release, status="paused", paused_from=release.status, paused_by=by, held_weight=weight,
            waits_for=words, earliest=None,
        )
    )  # fmt: skip
    tick.say(
        "release_paused", f"{release.id}: paused at {format_weight(weight)} by {by}: {words}",
        release=release.id, weight=weight, by=by,
    )  # fmt: skip


def next_step(tick: Tick, release: ReleaseState) -> None:
    """Go to the next step of the strategy."""
    tick.put(
        replace(
            release, status="progressing", step=release.step + 1, step_started_at=tick.now, votes=(), paused_by="",
            paused_from="", patience_from=None, waits_for="", earliest=None,
        )
    )  # fmt: skip


def promote(tick: Tick, release: ReleaseState, words: str) -> None:
    """Begin to take stable's place."""
    tick.put(
        replace(
            release, status="promoting", step_started_at=tick.now, paused_by="", paused_from="", votes=(),
            patience_from=None, waits_for="", earliest=None,
        )
    )  # fmt: skip
    tick.say("release_promoting", f"{release.id}: {release.version} goes to all of the traffic: {words}",
             release=release.id, version=release.version)  # fmt: skip


def _starting(tick: Tick, release: ReleaseState) -> None:
    needed, ready = needed_to_start(tick, release), tick.ready(release.version)
    known = tick.version(release.version)
    if known is not None and known.removing_since is not None:
        wait(tick, release, f"the old replicas of {release.version} to be gone")
        return
    if tick.observation.replicas is None or ready < needed or known is None or known.wanted < needed:
        told = (known.seen.message if known and known.seen else "") or (known.problem if known else "")
        words = f"{ready} of {needed} replicas of {release.version} ready" + (f": {told}" if told else "")
        wait(tick, release, hold_reason(tick, release) or words)
        return
    tick.say("release_ready", f"{release.id}: {ready} replicas of {release.version} are ready", release=release.id)
    if not tick.state.stable:
        promote(tick, release, "it is the first version here")
        return
    tell_sensitivity(tick, release)
    tick.put(replace(release, status="progressing", step_started_at=tick.now, waits_for="", earliest=None))


def _progressing(tick: Tick, release: ReleaseState) -> None:
    held = hold_reason(tick, release)
    if held:
        fall_back(tick, release)
        _hold(tick, tick.state.releases[release.id], held)
    elif policy := policing.held_growth(tick, release):
        _held_by_policy(tick, release, policy)
    elif release.held_by:
        patience = tick.now if release.growth is not None else release.patience_from
        tick.put(replace(release, held_by=(), waits_for="", earliest=None, patience_from=patience))
        tick.say("gates_passed", f"{release.id}: goes on, {', '.join(release.held_by)} passed", release=release.id)
        _progressing(tick, tick.state.releases[release.id])
    elif release.strategy.name == "rolling":
        _rolling(tick, release)
    elif release.strategy.adaptive is not None:
        _adaptive(tick, release, release.strategy.adaptive)
    elif release.step < len(release.strategy.steps):
        _step(tick, release)
    else:
        _finish_steps(tick, release)


def _hold(tick: Tick, release: ReleaseState, held: str) -> None:
    """Wait for data with bounded patience, then for a person. The evidence so far is kept."""
    since = release.data_missing_since if release.data_missing_since is not None else tick.now
    until = max(since, release.patience_from or 0.0) + release.strategy.patience
    if tick.now >= until:
        fall_back(tick, release, after=0.0)
        release = tick.state.releases[release.id]
        pause(tick, release, "forge", f"{held}; neither good nor bad, so a person decides: resume or abort")
        return
    wait(tick, release, f"holds, waits for {held}; pauses in {format_duration(until - tick.now)}")


def _held_by_policy(tick: Tick, release: ReleaseState, policy: tuple[Gate, ...]) -> None:
    """Stay at the present weight until the gates open; a person passes them with a reason."""
    names = tuple(gate.name for gate in policy)
    if release.held_by != names:
        release = replace(release, held_by=names)
        tick.put(release)
        tick.say("release_held", f"{release.id} stays where it is and waits for {policing.words(policy)}",
                 release=release.id, gates={gate.name: gate.data for gate in policy})  # fmt: skip
    earliest = None if any(gate.earliest is None for gate in policy) else max(gate.earliest or 0.0 for gate in policy)
    wait(tick, release, policing.words(policy), earliest)


def _rolling(tick: Tick, release: ReleaseState) -> None:
    share, full = tick.asked.get(release.version, 0), tick.full(release.version)
    others = sum(w for v, w in tick.asked.items() if v not in {release.version, tick.state.stable})
    if _has_everything(tick, release):
        _take_over(tick, release)
        return
    if release.verdict is not None and release.verdict.kind == "inconclusive" and not release.forced:
        pause(tick, release, "forge", f"inconclusive: {release.verdict.why}; a person decides: promote or abort")
        return
    if release.verdict is not None and in_doubt(release):
        wait(tick, release, f"holds: {release.verdict.why}")
        return
    words = f"{tick.ready(release.version)} of {full} new replicas ready, {format_weight(share)} of the traffic"
    wait(tick, release, words if share < WHOLE - others else f"{words}; the router to confirm it")


def _adaptive(tick: Tick, release: ReleaseState, settings: Adaptive) -> None:
    told = grow(tick, release, settings)
    release = tick.state.releases[release.id]
    if told.pause:
        pause(tick, release, "forge", told.words)
    elif told.all_of_it:
        _finish_steps(tick, release, proof=told.words)
    else:
        wait(tick, release, told.words, told.earliest)


def _step(tick: Tick, release: ReleaseState) -> None:
    step = release.strategy.steps[release.step]
    if step.weight is not None:
        _weight_step(tick, release, step.weight)
    elif step.approval is not None:
        tick.put(replace(release, status="waiting_approval", waits_for=""))
        approval = msgspec.convert(step.approval, Approval)
        tick.say("release_waits_for_approval", f"{release.id}: waits for {approval.required} approval(s)"
                 + (f": {approval.message}" if approval.message else ""), release=release.id)  # fmt: skip
    elif step.until_resumed:
        pause(tick, release, "strategy", f"a person to resume it: forge release resume {tick.state.name}")
    else:
        _timed_pause(tick, release, step.pause or 0.0)


def _weight_step(tick: Tick, release: ReleaseState, weight: int) -> None:
    if release.strategy.name != "canary":
        next_step(tick, release)
        return
    if weight > tick.asked.get(release.version, 0) and release.verdict is not None:
        if release.verdict.kind == "inconclusive" and release.patience_from is None and not release.forced:
            words = f"inconclusive: {release.verdict.why}; a person decides: resume, promote or abort"
            pause(tick, release, "forge", words)
            return
        if in_doubt(release):
            wait(tick, release, f"holds: {release.verdict.why}")
            return
    if weight > tick.asked.get(release.version, 0) and _would_fill(tick, release, weight):
        return
    observed = tick.observed(release.version)
    if observed == weight and tick.asked.get(release.version, 0) == weight:
        tick.say("release_weight", f"{release.id}: {release.version} carries {format_weight(weight)}",
                 release=release.id, version=release.version, weight=weight)  # fmt: skip
        next_step(tick, release)
        return
    asked, capacity = tick.asked.get(release.version, 0), tick.capacity(release.version)
    if asked == weight:
        words = f"the router to confirm {format_weight(weight)} (now {format_weight(observed or 0)})"
    elif capacity < weight:
        words = f"replicas for {format_weight(weight)}: the ready ones carry {format_weight(capacity)}"
    else:
        words = f"{format_weight(weight)} of the traffic: other versions leave it only {format_weight(asked)}"
    wait(tick, release, words)


def _would_fill(tick: Tick, release: ReleaseState, weight: int) -> bool:
    """Pause before a step that would fill something up: it does no harm where it is, and waiting will not help."""
    told = refused(tick, release, weight)
    if told is None:
        return False
    words = f"{told.words}; a person decides: give it more room and resume, promote or abort"
    pause(tick, tick.state.releases[release.id], "forge", words)
    tick.say("saturation_ahead", f"{release.id}: {told.words}", release=release.id, weight=weight,
             gauges={one.name: [one.value, one.expected, one.limit] for one in told.found})  # fmt: skip
    return True


def _timed_pause(tick: Tick, release: ReleaseState, seconds: float) -> None:
    due = (release.step_started_at or tick.now) + seconds
    if tick.now < due:
        weight = format_weight(tick.asked.get(release.version, 0))
        wait(tick, release, f"{format_duration(seconds)} at {weight}", due)
    elif _evidence(tick, release, due):
        next_step(tick, release)


def _evidence(tick: Tick, release: ReleaseState, due: float) -> bool:
    """Whether the judge lets the release go on; else hold with patience, then pause as inconclusive."""
    verdict = release.verdict
    if release.traffic_since is None or not needs_data(tick, release):
        return True
    if verdict is not None and verdict.kind == "promote":
        return True
    words = verdict.why if verdict else f"a first reading of {release.version}"
    until = max(due, warm_at(release), release.patience_from or 0.0) + release.strategy.patience
    if tick.now < until and (verdict is None or verdict.kind != "inconclusive"):
        wait(tick, release, f"holds: {words}; pauses in {format_duration(until - tick.now)}")
        return False
    unclear = replace(release, verdict=replace(verdict, kind="inconclusive") if verdict else None)
    tick.put(unclear)
    pause(tick, unclear, "forge", f"inconclusive: {words}; a person decides: resume, promote or abort")
    return False


def _finish_steps(tick: Tick, release: ReleaseState, proof: str = "") -> None:
    """Promote what went through all of its steps, or needs none because of `proof`."""
    for other in tick.active:
        if other.id != release.id and takes_over(other):
            wait(tick, release, f"{other.id} to finish taking stable's place")
            return
    if not proof and not _evidence(tick, release, release.step_started_at or tick.now):
        return
    if _would_fill(tick, release, WHOLE):
        return
    if not release.strategy.auto_promote:
        pause(tick, release, "strategy", f"a person to promote it: forge release promote {tick.state.name}")
        return
    ready, full = tick.ready(release.version), tick.full(release.version)
    if release.strategy.name == "blue_green" and ready < full:
        wait(tick, release, f"{ready} of {full} replicas of {release.version} ready")
        return
    promote(tick, release, proof or (release.verdict.why if release.verdict else "its steps are done"))


def _promoting(tick: Tick, release: ReleaseState) -> None:
    held = hold_reason(tick, release)
    if held and release.kind == "deploy":
        _hold(tick, release, held)
    elif _has_everything(tick, release):
        _take_over(tick, release)
    else:
        share, ready = tick.asked.get(release.version, 0), tick.ready(release.version)
        words = f"{ready} of {tick.full(release.version)} replicas of {release.version} ready"
        wait(tick, release, held or f"all of the traffic: {format_weight(share)} asked for, {words}")


def _has_everything(tick: Tick, release: ReleaseState) -> bool:
    """Whether the router confirms that the version has all that other arms leave, and stable nothing."""
    share = tick.asked.get(release.version, 0)
    stable = tick.state.stable if tick.state.stable != release.version else ""
    others = sum(weight for version, weight in tick.asked.items() if version not in {release.version, stable})
    if share != WHOLE - others or share == 0 or tick.observed(release.version) != share or not tick.confirmed:
        return False
    if tick.split_by_replicas and tick.capacity(release.version) < share:
        return False  # stable lost its replicas: that is no reason to take the rest of them away
    return not stable or tick.observed(stable) == 0


def _take_over(tick: Tick, release: ReleaseState) -> None:
    if not tick.state.stable:
        tick.change(stable=release.version)
    if release.kind == "rollback":
        promoted(tick, release)
        return
    tick.put(replace(release, status="baking", step_started_at=tick.now, waits_for="", earliest=None))
    if release.strategy.bake:
        tick.say("release_baking", f"{release.id}: {release.version} has all of the traffic and is watched for "
                 f"{format_duration(release.strategy.bake)}", release=release.id)  # fmt: skip


def _baking(tick: Tick, release: ReleaseState) -> None:
    held = hold_reason(tick, release)
    due = max((release.step_started_at or tick.now) + release.strategy.bake, warm_at(release))
    if held:
        _hold(tick, release, held)
    elif tick.now < due:
        wait(tick, release, f"{format_duration(due - (release.step_started_at or tick.now))} of watching it", due)
    elif release.verdict is not None and release.verdict.kind == "inconclusive" and not release.forced:
        pause(tick, release, "forge", f"inconclusive: {release.verdict.why}; a person decides: promote or abort")
    elif release.verdict is not None and in_doubt(release):
        wait(tick, release, f"holds: {release.verdict.why}")
    elif release.verdict is not None and release.verdict.kind != "promote":
        # Nothing can be learned by waiting for requests that nobody sends: it goes on, and says so.
        promoted(tick, replace(release, note=f"not judged: {release.verdict.why}"))
    elif needs_data(tick, release) and release.verdict is None:
        wait(tick, release, f"a first reading of {release.version}")
    else:
        promoted(tick, release)


def _paused(tick: Tick, release: ReleaseState) -> None:
    del tick, release


def _waiting_approval(tick: Tick, release: ReleaseState) -> None:
    approval = msgspec.convert(release.strategy.steps[release.step].approval or {}, Approval)
    if len(release.votes) >= approval.required:
        next_step(tick, release)
        return
    until = None if approval.timeout is None else (release.step_started_at or tick.now) + approval.timeout
    if until is not None and tick.now >= until:
        begin_rollback(tick, release, "aborted", f"nobody approved within {format_duration(approval.timeout or 0.0)}")
        return
    missing = approval.required - len(release.votes)
    who = f" of {', '.join(approval.approvers)}" if approval.approvers else ""
    said = f" (so far: {', '.join(release.votes)})" if release.votes else ""
    wait(tick, release, f"{missing} more approval(s){who}{said}: forge release approve {tick.state.name}", until)


def _rolling_back(tick: Tick, release: ReleaseState) -> None:
    asked, observed = tick.asked.get(release.version, 0), tick.observed(release.version)
    if asked == 0 and ((observed == 0 and tick.confirmed) or tick.state.traffic is None):
        ended = replace(release, status=release.ends_as, finished_at=tick.now, waits_for="", earliest=None)
        tick.put(ended)
        tick.say(
            f"release_{release.ends_as}",
            f"{release.id}: {release.version} carries nothing any more, {tick.state.stable} serves: {release.reason} "
            f"({release.failed_requests} of {release.requests} requests failed)",
            release=release.id, version=release.version, reason=release.reason, requests=release.requests,
            failed_requests=release.failed_requests, excess_failed=release.excess_failed,
        )  # fmt: skip
    elif tick.blind:
        wait(tick, release, f"{hold_reason(tick, release)}; {format_weight(asked)} still asked for")
    elif asked:
        carries = format_weight(tick.capacity(tick.state.stable))
        wait(tick, release, f"replicas of {tick.state.stable}: the ready ones carry {carries}, so "
             f"{release.version} keeps {format_weight(asked)} until more are ready")  # fmt: skip
    else:
        seen = "is unknown" if observed is None else f"is {format_weight(observed)}"
        wait(tick, release, f"the router to confirm that {release.version} carries nothing (its share {seen})")


TRANSITIONS: dict[ReleaseStatus, Callable[[Tick, ReleaseState], None]] = {
    "starting": _starting,
    "progressing": _progressing,
    "promoting": _promoting,
    "baking": _baking,
    "paused": _paused,
    "waiting_approval": _waiting_approval,
    "rolling_back": _rolling_back,
}

__all__ = ["advance", "begin_traffic", "hold_reason", "next_step", "pause", "promote", "wait", "weight_at"]


def begin_traffic(tick: Tick) -> None:
    """Begin to count harm for every release whose version has just been given its first traffic."""
    for release in tick.active:
        if release.traffic_since is None and tick.asked.get(release.version, 0) > 0:
            tick.put(harm.begin(tick, release))
