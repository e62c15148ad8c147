"""What to do next for replicas: pure functions from state and time to state and actions.

The agent calls the `on_…` functions with what it saw, then `reconcile`; it performs the actions and saves
the state before a started replica may run its command.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from forge.adapters.targets.local.processes import ProcessIdentity
from forge.adapters.targets.local.state import AgentState, Replica, Wish
from forge.model.traffic import ReplicaCount

STEADY = 10.0
"""A replica that was ready for so many seconds starts its back-off anew."""


class Action(msgspec.Struct, frozen=True):
    """Something that the agent has to do for one replica."""

    kind: Literal["start", "terminate", "kill"]
    key: str


class Reconciled(msgspec.Struct, frozen=True):
    """The next state, what to do, and when to look again at the latest (None: when something happens)."""

    state: AgentState
    actions: tuple[Action, ...] = ()
    wake_at: float | None = None


def reconcile(state: AgentState, now: float, idle: frozenset[str] = frozenset()) -> Reconciled:
    """Bring replicas towards what is wanted. `idle`: draining replicas that have nothing in flight any more."""
    replicas = dict(state.replicas)
    actions: list[Action] = []
    for version, wish in state.wishes.items():
        wanted = 0 if wish.removing or state.stopping else wish.replicas
        _scale(version, wanted, replicas, now)
    wakes: list[float] = []
    for key, replica in list(replicas.items()):
        wish_of = state.wishes.get(replica.version)
        grace = wish_of.config.stop_grace if wish_of else 0.0
        drain = wish_of.config.drain if wish_of and key not in idle else 0.0
        after, action, wake = _advance(replica, grace, drain, now)
        if after is None:
            del replicas[key]
        else:
            replicas[key] = after
        if action is not None:
            actions.append(action)
        if wake is not None:
            wakes.append(wake)
    wishes = {
        version: wish
        for version, wish in state.wishes.items()
        if not (wish.removing or state.stopping) or any(r.version == version for r in replicas.values())
    }
    after_all = replace(state, wishes=wishes, replicas=replicas)
    return Reconciled(after_all, tuple(actions), min(wakes, default=None))


def _scale(version: str, wanted: int, replicas: dict[str, Replica], now: float) -> None:
    """Add replicas that lack; send away the ones too many, the least useful and the youngest first."""
    here = [r for r in replicas.values() if r.version == version]
    staying = [r for r in here if r.phase in ("waiting", "running")]
    for replica in sorted(staying, key=lambda r: (r.ready, -r.number))[: max(0, len(staying) - wanted)]:
        replicas[replica.key] = replace(replica, phase="draining", since=now, ready=False, message="")
    taken = {r.number for r in here}
    number = 1
    for _ in range(wanted - len(staying)):
        while number in taken:
            number += 1
        taken.add(number)
        added = Replica(version=version, number=number, retry_at=now, since=now, message="starting")
        replicas[added.key] = added


def _advance(
    replica: Replica, grace: float, drain: float, now: float
) -> tuple[Replica | None, Action | None, float | None]:
    """Take one replica one step on: what it is now (None: gone), what to do, when to look again."""
    if replica.phase == "waiting":
        if now >= replica.retry_at:
            return replica, Action("start", replica.key), None
        return replica, None, replica.retry_at
    if replica.phase == "running":
        if replica.condemned_at is None or replica.killed:
            return replica, None, None
        if now < replica.condemned_at + grace:
            return replica, None, replica.condemned_at + grace
        return replace(replica, killed=True), Action("kill", replica.key), None
    if replica.process is None:
        return None, None, None
    if replica.phase == "draining":
        if now < replica.since + drain:
            return replica, None, replica.since + drain
        return replace(replica, phase="stopping", since=now), Action("terminate", replica.key), now + grace
    if not replica.killed and now >= replica.since + grace:
        return replace(replica, killed=True), Action("kill", replica.key), None
    return replica, None, None if replica.killed else replica.since + grace


def on_started(state: AgentState, key: str, process: ProcessIdentity, port: int, now: float) -> AgentState:
    """A replica's process exists (it waits for the go byte)."""
    return _put(
        state,
        replace(
            state.replicas[key], phase="running", process=process, port=port, started_at=now, since=now,
            ready=False, ready_since=None, failures=0, killed=False, message="started, not ready yet",
            lived=False, live_failures=0, condemned_at=None,
        ),
    )  # fmt: skip


def on_start_failed(state: AgentState, key: str, reason: str, now: float) -> AgentState:
    """A replica's process could not be made."""
    return _put(state, _back_off(state, state.replicas[key], reason, now))


def on_exit(state: AgentState, key: str, how: str, log_tail: str, now: float) -> AgentState:
    """A replica's process ended: expected while it is stopping, else to be started again after a delay."""
    replica = state.replicas.get(key)
    if replica is None:
        return state
    if replica.phase in ("draining", "stopping"):
        return _put(state, replace(replica, process=None, phase="stopping", ready=False))
    steady = replica.ready_since is not None and now - replica.ready_since >= STEADY
    calm = replace(replica, crashes=0) if steady else replica
    text = f"replica {replica.number} {how} after {max(0.0, now - replica.started_at):.1f}s"
    if replica.condemned_at is not None:
        text = f"{replica.message}; it {how}"
    if log_tail:
        text += f"; last log lines: {log_tail}"
    after = _back_off(state, calm, text, now)
    return _put(state, replace(after, restarts=replica.restarts + 1))


def _back_off(state: AgentState, replica: Replica, reason: str, now: float) -> Replica:
    wish = state.wishes.get(replica.version)
    first, most = (wish.config.restart_delay, wish.config.restart_max_delay) if wish else (0.5, 30.0)
    # Doubling is bounded by the exponent too: 2.0**1025 would overflow a float after a long outage.
    delay = min(most, first * 2.0 ** min(replica.crashes, 32))
    return replace(
        replica, phase="waiting", process=None, ready=False, ready_since=None, failures=0, since=now,
        condemned_at=None, crashes=replica.crashes + 1, retry_at=now + delay, message=f"{reason}; restarting in {delay:.1f}s",
    )  # fmt: skip


def on_probe(state: AgentState, key: str, reason: str | None, now: float) -> AgentState:
    """A readiness probe answered: `reason` is why it failed, None: it passed."""
    replica = state.replicas.get(key)
    if replica is None or replica.phase != "running" or replica.condemned_at is not None:
        return state
    if reason is None:
        since = replica.ready_since if replica.ready and replica.ready_since is not None else now
        # After it was started anew for its liveness check, only that check tells that this has helped.
        lived = replica.lived or not replica.renewed
        return _put(state, replace(replica, ready=True, ready_since=since, failures=0, message="", lived=lived))
    wish = state.wishes.get(replica.version)
    allowed = wish.config.ready.failures if wish else 1
    failures = min(replica.failures + 1, max(1, allowed))
    still = replica.ready and failures < allowed
    message = f"replica {replica.number} is not ready: {reason}"
    return _put(
        state,
        replace(
            replica, ready=still, ready_since=replica.ready_since if still else None, failures=failures,
            message="" if still else message,
        ),
    )  # fmt: skip


def on_live(state: AgentState, key: str, reason: str | None, now: float) -> AgentState:
    """A liveness check answered: `reason` is why it failed, None: it passed.

    A replica that failed too often is condemned: its process is to be told to end, and is then started anew like
    one that crashed. Of one version there is only one at a time on that way, until it passes the check again: when
    what all replicas need is away, starting them anew would only add to the trouble.
    """
    replica = state.replicas.get(key)
    if replica is None or replica.phase != "running" or replica.condemned_at is not None:
        return state
    if reason is None:
        return _put(state, replace(replica, lived=True, live_failures=0, renewed=False))
    wish = state.wishes.get(replica.version)
    if wish is None or wish.config.live is None or not replica.lived:
        return state
    allowed = max(1, wish.config.live.failures)
    failures = min(replica.live_failures + 1, allowed)
    others = [one for one in state.replicas.values() if one.version == replica.version and one.key != key]
    if failures < allowed or any(one.renewed for one in others):
        return _put(state, replace(replica, live_failures=failures))
    message = f"replica {replica.number} hangs: {failures} liveness checks in a row failed: {reason}"
    condemned = replace(
        replica, live_failures=failures, condemned_at=now, renewed=True, ready=False, ready_since=None, message=message
    )
    return _put(state, condemned)


def want(state: AgentState, wish: Wish) -> AgentState:
    """Wish for a version; one that was on its way out comes back."""
    return replace(state, wishes={**state.wishes, wish.version.id: wish})


def unwant(state: AgentState, version: str) -> AgentState:
    """Send a version away; an unknown one is fine."""
    wish = state.wishes.get(version)
    if wish is None:
        return state
    return replace(state, wishes={**state.wishes, version: replace(wish, removing=True)})


def adopt(state: AgentState, alive: set[str], now: float) -> AgentState:
    """Take over from an agent that is gone: replicas not in `alive` are treated as having exited."""
    state = replace(state, replicas={key: _clamped(r, now) for key, r in state.replicas.items()})
    for key, replica in state.replicas.items():
        if replica.process is not None and key not in alive:
            state = on_exit(state, key, "was gone when the agent came back", "", now)
    return state


def _clamped(replica: Replica, now: float) -> Replica:
    """Return a replica with no time in the future, as one from before a reboot would have."""
    return replace(
        replica,
        since=min(replica.since, now),
        started_at=min(replica.started_at, now),
        ready_since=None if replica.ready_since is None else min(replica.ready_since, now),
        condemned_at=None if replica.condemned_at is None else min(replica.condemned_at, now),
        retry_at=min(replica.retry_at, now) if replica.since > now else replica.retry_at,
    )


def count(state: AgentState) -> dict[str, ReplicaCount]:
    """Return what runs of each version."""
    counts = {}
    for version, wish in state.wishes.items():
        here = [r for r in state.replicas.values() if r.version == version]
        staying = [r for r in here if r.phase in ("waiting", "running")]
        messages = [r.message for r in sorted(staying, key=lambda r: r.number) if not r.ready and r.message]
        counts[version] = ReplicaCount(
            desired=0 if wish.removing or state.stopping else wish.replicas,
            running=sum(1 for r in staying if r.process is not None),
            ready=sum(1 for r in staying if r.ready),
            message=messages[0] if messages else "",
            restarts=sum(r.restarts for r in here),
        )
    return counts


def endpoints(state: AgentState, version: str) -> tuple[list[int], list[int]]:
    """Return the ports that get requests, and the ports that only finish what they have."""
    here = sorted((r for r in state.replicas.values() if r.version == version), key=lambda r: r.number)
    ready = [r.port for r in here if r.phase == "running" and r.ready]
    leaving = [r.port for r in here if r.phase == "draining" and r.process is not None]
    return ready, leaving


def _put(state: AgentState, replica: Replica) -> AgentState:
    return replace(state, replicas={**state.replicas, replica.key: replica})
