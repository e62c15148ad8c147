"""Where a rollback goes and why; and how a release begins to roll back."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from forge.core.release.migrations import gone
from forge.core.release.state import EnvironmentState, ReleaseState, ReleaseStatus
from forge.core.release.tick import Tick
from forge.model.units import format_weight


class Target(msgspec.Struct, frozen=True):
    """The version to go back to (empty: none) and the reason for the choice."""

    version: str
    why: str


def choose_target(state: EnvironmentState, to: str = "", *, override: bool = False) -> Target:
    """Return the version that a rollback of the environment goes to.

    `to` is taken as it is when it was stable before. Otherwise it is the newest version that was stable
    before the present one and has never been rolled back itself. One that cannot run any more, because a
    contract migration took away what it needs, is never chosen; `override` lets a person name it all the same.
    """
    if to:
        if to in state.previous and to in state.versions:
            if (obstacle := gone(state, to)) and not override:
                return Target("", obstacle)
            return Target(to, f"{to} was asked for{_warmth(state, to)}")
        candidates = ", ".join(state.previous) or "none"
        return Target(
            "", f"{to} was never stable in {state.name}, or too long ago; versions to go back to: {candidates}"
        )
    skipped: list[str] = []
    obstacles: list[str] = []
    for version in state.previous:
        known = state.versions.get(version)
        if obstacle := gone(state, version):
            obstacles.append(obstacle)
        elif known is None or known.faulted:
            skipped.append(version)
        else:
            passed = f"; skipped {', '.join(skipped)}, rolled back before" if skipped else ""
            passed += f"; {obstacles[0]}" if obstacles else ""
            return Target(version, f"{version} was stable before {state.stable}{_warmth(state, version)}{passed}")
    if obstacles:
        return Target("", f"{obstacles[0]}; mend it by releasing a later version")
    if skipped:
        return Target("", f"every earlier version was rolled back itself ({', '.join(skipped)}); name one with `to`")
    return Target("", f"there is no earlier version to go back to from {state.stable or 'nothing'}")


def begin_rollback(tick: Tick, release: ReleaseState, ends_as: ReleaseStatus, reason: str) -> None:
    """Take the release's traffic away, from whatever it is doing. It is final when the router confirms that."""
    if release.status == "queued":
        tick.put(replace(release, status=ends_as, finished_at=tick.now, reason=reason, waits_for="", earliest=None))
        tick.say(f"release_{ends_as}", f"{release.id}: {reason}; it had not started", release=release.id)
        return
    if tick.state.stable in {"", release.version}:
        _keep_serving(tick, release, ends_as, reason)
        return
    ended = replace(
        release, status="rolling_back", ends_as=ends_as, reason=reason, paused_from="", waits_for="", earliest=None
    )
    tick.put(ended)
    weight = tick.asked.get(release.version, 0)
    tick.say(
        "release_rolling_back",
        f"{release.id}: {release.version} gives its {format_weight(weight)} back to {tick.state.stable}: {reason}",
        release=release.id, version=release.version, to=tick.state.stable, weight=weight, reason=reason,
    )  # fmt: skip
    if ends_as in {"rolled_back", "failed"}:
        tick.change_version(release.version, faulted=reason)
    elif release.kind == "rollback" and release.actor != "forge":
        # Who asked to go back thinks better of it: the version that was to be left is not one that was rolled back.
        tick.change_version(tick.state.stable, faulted="")


def _keep_serving(tick: Tick, release: ReleaseState, ends_as: ReleaseStatus, reason: str) -> None:
    """A first version has nothing behind it: taking its traffic away would serve nobody, so it keeps it."""
    serving = tick.asked.get(release.version, 0) > 0
    kept = "there is no earlier version to return to, so it keeps the traffic" if serving else "it had no traffic"
    status: ReleaseStatus = "failed" if ends_as == "rolled_back" else ends_as
    tick.put(
        replace(release, status=status, finished_at=tick.now, reason=f"{reason}; {kept}", waits_for="", earliest=None)
    )
    if serving:
        tick.change(stable=release.version)
    tick.say(f"release_{status}", f"{release.id}: {reason}; {kept}", release=release.id, version=release.version)


def _warmth(state: EnvironmentState, version: str) -> str:
    seen = state.versions[version].seen
    if seen and seen.ready:
        return f" and is still warm ({seen.ready} of {seen.desired} replicas ready)"
    return " and has to be started first"
