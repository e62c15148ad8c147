"""The invariants of the architecture as seen from outside, checked after every decision.

Nothing of the code under test is used to compute what it is held against. Numbers are those of
docs/architecture.md: 1 weights and capacity, 2 scaling down, 3 rollback first, 4 missing data, 6 replay, 8 waiting.
"""

from __future__ import annotations

import msgspec

from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState
from forge.model.decision import Command, Decision
from forge.model.traffic import Observation
from forge.model.units import WHOLE

Decided = Decision[EnvironmentState]
ROUNDING = 2


class InvariantBroken(AssertionError):
    """A decision broke an invariant: which, and in what words."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(f"invariant {number}: {words}")
        self.number = number


def check(before: EnvironmentState, decision: Decided, seen: Observation, commands: tuple[Command, ...] = ()) -> None:
    """Raise InvariantBroken for the first invariant that the decision breaks."""
    if decision.state.down:
        return
    _check_weights(before, decision.state, seen)
    _check_scaling(before, decision, seen)
    _check_rollbacks(before, decision.state, seen, commands)
    _check_missing_data(before, decision.state, seen)
    _check_keys(before, decision)
    _check_waiting(decision.state)


def check_durable(decision: Decided) -> None:
    """Raise InvariantBroken when the state does not survive being written and read."""
    encoded = msgspec.json.encode(decision.state)
    if msgspec.json.decode(encoded, type=EnvironmentState) != decision.state:
        raise InvariantBroken(6, "the state is another one after it was written and read")


def check_replay(decision: Decided, again: Decided) -> None:
    """Raise InvariantBroken when the same inputs gave another decision."""
    if msgspec.json.encode(decision) != msgspec.json.encode(again):
        raise InvariantBroken(6, "the same inputs gave another decision")


def _need(number: int, holds: bool, words: str) -> None:
    if not holds:
        raise InvariantBroken(number, words)


def _capacity(state: EnvironmentState, version: str, seen: Observation) -> int:
    """The share of all traffic that the ready replicas can carry, in basis points, rounded up."""
    count = (seen.replicas or {}).get(version)
    known = state.versions.get(version)
    full = known.version.config.get("replicas", 2) if known else 2
    return min(WHOLE, -(-(count.ready if count else 0) * WHOLE // max(1, full)))


def _check_weights(before: EnvironmentState, state: EnvironmentState, seen: Observation) -> None:
    if state.traffic is None:
        return
    weights = state.traffic.weights
    _need(1, sum(weights.values()) == WHOLE, f"the weights {weights} do not sum to {WHOLE}")
    _need(1, all(weight > 0 for weight in weights.values()), f"a weight of {weights} is not positive")
    if seen.replicas is None:
        same = before.traffic is not None and weights == before.traffic.weights
        _need(1, same, f"{weights} was asked for without seeing any replica")
        return
    going = {release.version for release in state.releases.values() if release.status not in RELEASE_FINAL}
    leaving = {name for name, known in before.versions.items() if known.removing_since is not None}
    seen = msgspec.structs.replace(seen, replicas={k: v for k, v in seen.replicas.items() if k not in leaving})
    bounds = {name: _capacity(state, name, seen) for name in {*weights, *(going & state.versions.keys()), state.stable}}
    total = sum(bounds.values())
    if not total or not before.stable:
        return
    for version, weight in weights.items():
        if version in {state.stable, before.stable}:
            continue
        bound = bounds[version] if total >= WHOLE else -(-WHOLE * bounds[version] // total)
        _need(1, weight <= bound + ROUNDING, f"{version} is given {weight} and can carry {bound} ({weights})")


def _check_scaling(before: EnvironmentState, decision: Decided, seen: Observation) -> None:
    state = decision.state
    asked = state.traffic.weights if state.traffic else {}
    blind = seen.weights is None and before.traffic is not None
    for action in decision.actions:
        version = action.payload.get("version", "")
        carried = max((seen.weights or {}).get(version, 0), asked.get(version, 0))
        if action.kind == "remove":
            _need(2, version != state.stable, f"{version} is stable and was removed")
            _need(2, not blind, f"{version} was removed without seeing the split")
            _need(2, carried == 0, f"{version} was removed while it carries {carried}")
        elif action.kind == "ensure" and version in before.versions:
            size = action.payload["replicas"]
            if size < before.versions[version].wanted:
                _check_shrinking(before, state, version, size, carried, blind=blind)


def _check_shrinking(
    before: EnvironmentState, state: EnvironmentState, version: str, size: int, carried: int, *, blind: bool
) -> None:
    _need(2, not blind, f"{version} was scaled down without seeing the split")
    rolling = [release for release in state.releases.values() if release.strategy.name == "rolling"]
    if version == before.stable == state.stable:
        _need(2, bool(rolling), f"{version} is stable and was scaled down to {size}")
    slack = max((release.strategy.max_unavailable for release in rolling), default=0)
    full = before.versions[version].version.config.get("replicas", 2)
    enough = (size + slack) * WHOLE >= (carried - ROUNDING) * full
    _need(2, enough, f"{version} was scaled down to {size} of {full} while it carries {carried}")


def _check_rollbacks(
    before: EnvironmentState, state: EnvironmentState, seen: Observation, commands: tuple[Command, ...]
) -> None:
    for release in state.releases.values():
        if release.status in RELEASE_FINAL or release.status in {"rolling_back", "queued"}:
            continue
        condemned = release.verdict is not None and release.verdict.kind == "rollback"
        # A verdict from before is acted on in its own tick; an old one may stand on a release that was tried again.
        _need(3, not condemned, f"{release.id} is {release.status} under a verdict of rollback")
    _check_aborts(before, state, commands)
    if seen.replicas is None or state.traffic is None:
        return
    spare = WHOLE - _capacity(state, state.stable, seen) if state.stable else WHOLE
    for release in state.releases.values():
        if release.status == "rolling_back":
            kept = state.traffic.weights.get(release.version, 0)
            _need(3, kept <= spare + ROUNDING, f"{release.id} rolls back and keeps {kept}; stable lacks {spare}")


def _check_aborts(before: EnvironmentState, state: EnvironmentState, commands: tuple[Command, ...]) -> None:
    """Abort wins over promote, whichever came first. Queued releases are aborted by name only."""
    if not any(command.kind == "abort" and not command.payload.get("release") for command in commands):
        return
    if any(command.kind not in {"abort", "promote"} for command in commands):
        return
    for name, old in before.releases.items():
        if old.status not in RELEASE_FINAL and old.status not in {"rolling_back", "queued"}:
            now = state.releases[name].status
            ended = now in RELEASE_FINAL or now == "rolling_back"
            _need(3, ended and now != "promoted", f"{name} was aborted and is {now}")


def _check_missing_data(before: EnvironmentState, state: EnvironmentState, seen: Observation) -> None:
    if seen.samples is not None:
        return
    for name, release in state.releases.items():
        old = before.releases.get(name)
        if old is None or not _is_judged(before, release):
            continue
        same = old.verdict == release.verdict or (release.verdict is not None and release.verdict.kind != "rollback")
        _need(4, same, f"{name} got a verdict of rollback without any data")
        promoted = release.status == "promoted" and old.status != "promoted"
        _need(4, not promoted, f"{name} was promoted without any data")


def _is_judged(state: EnvironmentState, release: ReleaseState) -> bool:
    needs = bool(release.strategy.thresholds) and state.plan.judge != "none"
    return needs and release.kind == "deploy" and not release.forced and bool(state.stable) and (
        release.version != state.stable
    )  # fmt: skip


def _check_keys(before: EnvironmentState, decision: Decided) -> None:
    keys = [action.key for action in decision.actions]
    _need(6, len(keys) == len(set(keys)), f"two actions have one key: {keys}")
    numbers = [int(key.partition("#")[2].partition(":")[0]) for key in keys]
    _need(6, all(number > before.generation for number in numbers), f"a key was used before: {keys}")
    for name, release in decision.state.releases.items():
        old = before.releases.get(name)
        if old is not None:
            grown = release.requests >= old.requests and release.failed_requests >= old.failed_requests
            _need(6, grown, f"{name} counted fewer requests than before")
            stays = old.status not in RELEASE_FINAL or release.status in {old.status, "rolled_back"}
            _need(6, stays, f"{name} was {old.status} for good and is {release.status}")


def _check_waiting(state: EnvironmentState) -> None:
    for release in state.releases.values():
        if release.status in RELEASE_FINAL:
            _need(8, bool(release.reason), f"{release.id} is {release.status} and does not say why")
        elif release.status != "progressing":
            _need(8, bool(release.waits_for), f"{release.id} is {release.status} and does not say what it waits for")
