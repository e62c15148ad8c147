"""What people and steps ask of an environment. Nothing is dropped silently: what cannot be done is said in words."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from forge.core.release.migrations import begin_contract, end_contract, gone
from forge.core.release.policing import held_growth, policy_of
from forge.core.release.policing import words as policy_words
from forge.core.release.progress import next_step, pause, promote
from forge.core.release.releases import start_deploy, start_restore
from forge.core.release.rollback import begin_rollback, choose_target
from forge.core.release.state import RELEASE_FINAL, ReleaseState
from forge.core.release.strategies import phase_of
from forge.core.release.tick import Tick, takes_over
from forge.model.configs import DeployConfig
from forge.model.decision import Command
from forge.model.migrations import Contract
from forge.model.plan import Approval, EnvironmentPlan
from forge.model.traffic import Version


def obey(tick: Tick, command: Command) -> None:
    """Apply one command. One that cannot be read or is not known becomes an event, never an exception."""
    handler = COMMANDS.get(command.kind)
    if handler is None:
        known = ", ".join(sorted(COMMANDS))
        _refuse(tick, command, f"there is no command `{command.kind}`; there are {known}")
        return
    try:
        if tick.state.down and command.kind in WAKING:
            tick.change(down=False)
            tick.say("environment_up", f"{tick.state.name} is brought up again", actor=command.actor)
        handler(tick, command)
    except (msgspec.ValidationError, KeyError) as problem:
        _refuse(tick, command, f"its payload cannot be read: {problem}")


def _deploy(tick: Tick, command: Command) -> None:
    payload = command.payload
    request = msgspec.convert(payload["request"], DeployConfig)
    for step in request.strategy.steps:
        msgspec.convert(step.approval or {}, Approval)  # a gate that cannot be read must not start
    version = msgspec.convert(payload["version"], Version)
    plan = msgspec.convert(payload["plan"], EnvironmentPlan)
    key, run = str(payload.get("key", "")), str(payload.get("run", ""))
    start_deploy(tick, request, version, plan, actor=command.actor, run=run, key=key)


def _promote(tick: Tick, command: Command) -> None:
    if command.payload.get("override") and _override_queued(tick, command):
        return
    releases = [release for release in _chosen(tick, command) if release.status not in {"queued", "rolling_back"}]
    if not releases:
        held = [f"{release.id} waits for {release.waits_for}" for release in tick.queued if release.held_by]
        words = f": {'; '.join(held)}; pass its gates with --override and a reason" if held else ""
        _refuse(tick, command, f"no release is under way that could be promoted{words}")
        return
    if len(releases) > 1:
        _refuse(tick, command, f"several releases are under way, name one: {', '.join(r.id for r in releases)}")
        return
    release = releases[0]
    if _kept_by_policy(tick, command, release):
        return
    release = tick.state.releases[release.id]
    full = bool(command.payload.get("full")) or release.step >= len(release.strategy.steps)
    _note(tick, command, release, "promoted by hand" + (", all the way" if full else ", on to the next step"))
    if full:
        _promote_fully(tick, command, release)
    elif phase_of(release) == "starting":
        _refuse(tick, command, f"{release.id} is still starting, there is no step to leave: {release.waits_for}")
    else:
        next_step(tick, release)


def _override_queued(tick: Tick, command: Command) -> bool:
    """Let releases that wait for gates pass them; True when that was all that was asked."""
    wanted = str(command.payload.get("release", "") or "")
    held = [release for release in tick.queued if release.held_by and wanted in {"", release.id}]
    if not held or (not wanted and tick.active):
        return False
    if len(held) > 1:
        _refuse(tick, command, f"several releases wait, name one: {', '.join(release.id for release in held)}")
        return True
    _override(tick, command, held[0])
    return True


def _override(tick: Tick, command: Command, release: ReleaseState) -> ReleaseState:
    reason = str(command.payload["override"])
    passing = replace(release, override=f"{command.actor or 'somebody'}: {reason}")
    tick.put(passing)
    tick.say("policy_overridden", f"{release.id}: {command.actor or 'somebody'} lets it pass the policy: {reason}",
             release=release.id, actor=command.actor, reason=reason, held_by=list(release.held_by))  # fmt: skip
    return passing


def _kept_by_policy(tick: Tick, command: Command, release: ReleaseState) -> bool:
    """Whether a gate keeps a release that a person wants to go on; with `override` it passes."""
    holds = held_growth(tick, release)
    if holds and command.payload.get("override"):
        _override(tick, command, release)
        return False
    if holds:
        words = f"{release.id} waits for {policy_words(holds)}; pass it with --override and a reason"
        _refuse(tick, command, words)
    return bool(holds)


def _promote_fully(tick: Tick, command: Command, release: ReleaseState) -> None:
    """Let nothing but readiness, capacity and a bad verdict hold the release any more."""
    phase = phase_of(release)
    forced = replace(
        release, forced=True, step=len(release.strategy.steps), strategy=replace(release.strategy, auto_promote=True),
        status="progressing" if phase == "waiting_approval" else phase, paused_by="", paused_from="", votes=(),
    )  # fmt: skip
    tick.put(forced)
    busy = [other.id for other in tick.active if other.id != release.id and takes_over(other)]
    if busy:
        _note(tick, command, forced, f"follows as soon as {', '.join(busy)} has taken stable's place")
    elif forced.status == "progressing" and release.strategy.name != "rolling" and tick.state.stable:
        promote(tick, forced, f"{command.actor or 'somebody'} promoted it")


def _pause(tick: Tick, command: Command) -> None:
    able = {"starting", "progressing", "promoting", "baking", "waiting_approval"}
    releases = [release for release in _chosen(tick, command) if release.status in able]
    if not releases:
        _refuse(tick, command, "no release is under way that could be paused")
    for release in releases:
        words = f"{command.actor or 'somebody'} to resume it: forge release resume {tick.state.name}"
        pause(tick, release, command.actor or "somebody", words)


def _resume(tick: Tick, command: Command) -> None:
    releases = [release for release in _chosen(tick, command) if release.status == "paused"]
    if not releases:
        _refuse(tick, command, "no release is paused")
    for release in releases:
        _resume_one(tick, release, command)


def _resume_one(tick: Tick, release: ReleaseState, command: Command) -> None:
    if release.status != "paused":
        return
    if release.paused_by == "strategy" and _kept_by_policy(tick, command, release):
        return
    release = tick.state.releases[release.id]
    _note(tick, command, release, "resumed")
    at_end = release.step >= len(release.strategy.steps)
    if release.paused_by == "strategy" and at_end:
        promote(tick, release, f"{command.actor or 'somebody'} resumed it")
    elif release.paused_by == "strategy":
        next_step(tick, release)
    else:
        back = release.paused_from or "progressing"
        tick.put(
            replace(
                release, status=back, paused_by="", paused_from="", patience_from=tick.now, waits_for="",
                data_missing_since=None,
            )
        )  # fmt: skip


def _abort(tick: Tick, command: Command) -> None:
    releases = [release for release in _chosen(tick, command) if release.status != "rolling_back"]
    if not releases:
        _refuse(tick, command, "no release is under way, so nothing was aborted")
    for release in releases:
        _note(tick, command, release, "aborted")
        begin_rollback(tick, release, "aborted", _because(command, "aborted"))


def _rollback(tick: Tick, command: Command) -> None:
    to, key = str(command.payload.get("to", "") or ""), str(command.payload.get("key", "") or "")
    if key and any(release.key == key for release in tick.state.releases.values()):
        return
    under_way = [release for release in _chosen(tick, command) if release.status != "rolling_back"]
    if over := _nothing_to_take_back(tick, command):
        _refuse(tick, command, over)
        return
    if to and to != tick.state.stable:
        target = choose_target(tick.state, to, override=bool(command.payload.get("override")))
        if not target.version:
            _refuse(tick, command, f"nothing was rolled back: {target.why}")
            return
        if any(release.version == to for release in under_way if release.kind == "rollback"):
            _refuse(tick, command, f"{tick.state.name} goes back to {to} already")
            return
        for release in tick.active:
            if release.version == to:
                _give_way(tick, release, command)
            else:
                begin_rollback(tick, release, "aborted", _because(command, f"rolled back to {to}"))
        if command.payload.get("override"):
            _note_override(tick, command, to)
        start_restore(tick, target, actor=command.actor, reason=_because(command, "rolled back"), key=key)
        return
    restoring = [release for release in under_way if release.kind == "rollback"]
    under_way = [release for release in under_way if release.kind != "rollback"]
    if restoring and not under_way:
        # Asked twice in a hurry: to end the way back would be to stay with what is bad.
        words = f"{tick.state.name} goes back to {restoring[0].version} already"
        _refuse(tick, command, f"{words}; `forge release abort {tick.state.name}` stops that")
        return
    if not under_way and any(release.status == "rolling_back" for release in tick.active):
        _refuse(tick, command, "a rollback is under way already")
    elif under_way:
        for release in under_way:
            begin_rollback(tick, release, "aborted", _because(command, "rolled back"))
    elif to:
        _refuse(tick, command, f"{to} is stable in {tick.state.name} already")
    else:
        start_restore(
            tick, choose_target(tick.state), actor=command.actor, reason=_because(command, "rolled back"), key=key
        )


def _note_override(tick: Tick, command: Command, to: str) -> None:
    if obstacle := gone(tick.state, to):
        words = f"{command.actor or 'somebody'} goes back all the same: {command.payload['override']}: {obstacle}"
        tick.say("contract_overridden", words, actor=command.actor, version=to)


def _nothing_to_take_back(tick: Tick, command: Command) -> str:
    """Why a release that is named cannot be taken back: it is over, and another one came after it. Else empty."""
    name = str(command.payload.get("release", "") or "")
    if not name or _chosen(tick, command):
        return ""
    named = tick.state.releases.get(name)
    if named is None or named.version != tick.state.stable or named.status != "promoted":
        return f"{name} is not under way, and {tick.state.stable or 'nothing'} is stable"
    if tick.active:
        return f"{name} is over, and {', '.join(release.id for release in tick.active)} is under way: name that one"
    return ""


def _retry(tick: Tick, command: Command) -> None:
    wanted = str(command.payload.get("release", "") or "")
    ended = [
        release
        for release in tick.state.releases.values()
        if release.kind == "deploy" and release.status in RELEASE_FINAL and release.status != "promoted"
        and wanted in {"", release.id}
    ]  # fmt: skip
    known = tick.version(ended[-1].version) if ended else None
    if known is None:
        _refuse(tick, command, "there is no release that ended without success and could be tried again")
        return
    old = ended[-1]
    request = DeployConfig(tick.state.name, version=old.version, strategy=old.strategy, routes=old.routes, fix=old.fix)
    key = str(command.payload.get("key", "") or "")
    start_deploy(
        tick,
        request,
        known.version,
        tick.state.plan,
        actor=command.actor,
        run=old.run,
        key=key or f"retry#{command.id}",
    )


def _approve(tick: Tick, command: Command) -> None:
    waiting = [release for release in _chosen(tick, command) if release.status == "waiting_approval"]
    wanted = str(command.payload.get("release", "") or "")
    held = [release for release in tick.queued if "approval" in release.held_by and wanted in {"", release.id}]
    if held and not waiting:
        _approve_start(tick, command, held)
        return
    if not waiting:
        _refuse(tick, command, "no release waits for an approval")
    for release in waiting:
        approval = msgspec.convert(release.strategy.steps[release.step].approval or {}, Approval)
        if approval.approvers and command.actor not in approval.approvers:
            _refuse(tick, command, f"{command.actor} is not one of {', '.join(approval.approvers)}")
        elif not approval.allow_self and command.actor == release.actor:
            _refuse(tick, command, f"{command.actor} asked for {release.id}; another person has to approve it")
        elif command.actor not in release.votes:
            tick.put(replace(release, votes=(*release.votes, command.actor)))
            _note(tick, command, release, f"approved ({len(release.votes) + 1} of {approval.required})")


def _approve_start(tick: Tick, command: Command, held: list[ReleaseState]) -> None:
    """Say yes to the start of a queued release, as the environment's policy asks for."""
    rule = policy_of(tick).approvals
    if len(held) > 1 or rule is None:
        _refuse(tick, command, f"several releases wait, name one: {', '.join(release.id for release in held)}")
        return
    release = held[0]
    if rule.approvers and command.actor not in rule.approvers:
        _refuse(tick, command, f"{command.actor} is not one of {', '.join(rule.approvers)}")
    elif not rule.allow_self and command.actor == release.actor:
        _refuse(tick, command, f"{command.actor} asked for {release.id}; another person has to approve it")
    elif command.actor not in release.votes:
        tick.put(replace(release, votes=(*release.votes, command.actor)))
        _note(tick, command, release, f"approved ({len(release.votes) + 1} of {rule.required})")


def _begin_contract(tick: Tick, command: Command) -> None:
    contract = msgspec.convert(command.payload["contract"], Contract)
    if obstacle := begin_contract(tick, contract):
        _refuse(tick, command, obstacle)


def _end_contract(tick: Tick, command: Command) -> None:
    end_contract(tick, str(command.payload["contract"]), str(command.payload.get("failed", "") or ""))


def _look(_tick: Tick, _command: Command) -> None:
    """Change nothing: the tick that takes this in looks at the world, and brings back what is missing there."""


def _down(tick: Tick, command: Command) -> None:
    if tick.active or tick.queued:
        names = ", ".join(release.id for release in [*tick.active, *tick.queued])
        _refuse(tick, command, f"{names} is under way; abort it first")
        return
    versions = {name: replace(known, warm_until=None) for name, known in tick.state.versions.items()}
    tick.change(down=True, versions=versions, observed=None, data_missing_since=None)
    tick.say(
        "environment_down", f"{tick.state.name} was taken down by {command.actor or 'somebody'}", actor=command.actor
    )


def _handed_back(tick: Tick, command: Command) -> None:
    """Forget what runs: somebody else has it now. What was released stays on record, to be looked at."""
    if not tick.state.down:
        _refuse(tick, command, f"{tick.state.name} is up; it is taken down first")
        return
    tick.change(
        down=False, stable="", previous=(), versions={}, traffic=None, observed=None, history=(), signals_state={},
        data_missing_since=None, traffic_problem="", contracts=(),
    )  # fmt: skip
    tick.say(
        "environment_handed_back", f"{tick.state.name} was handed back by {command.actor or 'somebody'}",
        actor=command.actor,
    )  # fmt: skip


def _give_way(tick: Tick, release: ReleaseState, command: Command) -> None:
    """End a release whose version is the one to go back to: taking its weight away and giving it back helps nobody."""
    reason = _because(command, f"rolled back to {release.version} at once")
    tick.put(replace(release, status="superseded", finished_at=tick.now, reason=reason, waits_for="", earliest=None))
    tick.say("release_superseded", f"{release.id}: {reason}", release=release.id, version=release.version)


def _chosen(tick: Tick, command: Command) -> list[ReleaseState]:
    """The release that the command names, or all that are under way (a queued one only by its name)."""
    wanted = str(command.payload.get("release", "") or "")
    if not wanted:
        return tick.active
    return [release for release in [*tick.active, *tick.queued] if release.id == wanted]


def _because(command: Command, verb: str) -> str:
    comment = str(command.payload.get("comment", "") or command.payload.get("reason", "") or "")
    return f"{verb} by {command.actor or 'somebody'}" + (f": {comment}" if comment else "")


def _note(tick: Tick, command: Command, release: ReleaseState, words: str) -> None:
    tick.say(f"command_{command.kind}", f"{release.id}: {words} by {command.actor or 'somebody'}",
             release=release.id, actor=command.actor)  # fmt: skip


def _refuse(tick: Tick, command: Command, words: str) -> None:
    tick.say("command_without_effect", f"{command.kind} by {command.actor or 'somebody'}: {words}",
             command=command.kind, id=command.id, actor=command.actor)  # fmt: skip


WAKING = frozenset({"deploy", "look", "retry", "rollback", "undo"})
"""What an environment that is down comes up for."""
COMMANDS: dict[str, Callable[[Tick, Command], None]] = {
    "deploy": _deploy,
    "promote": _promote,
    "pause": _pause,
    "resume": _resume,
    "abort": _abort,
    "undo": _rollback,
    "rollback": _rollback,
    "retry": _retry,
    "approve": _approve,
    "begin_contract": _begin_contract,
    "end_contract": _end_contract,
    "look": _look,
    "down": _down,
    "handed_back": _handed_back,
}
