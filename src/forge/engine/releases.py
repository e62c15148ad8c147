"""What steps ask of environments: a release, a command, a reading; waited for until it is settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from forge.adapters.steps.private import process_key
from forge.core.judge.base import Series
from forge.core.judge.classic import examine
from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState
from forge.engine.environments import KIND, EnvironmentMachine, empty_state
from forge.engine.notifying import begin_notifying
from forge.model.errors import DependencyFailed, UsageError
from forge.model.migrations import Contract
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Threshold
from forge.model.traffic import Observation
from forge.store.contract import Store, StoredEvent

__all__ = ["EngineReleases", "EnvironmentMachine"]

LOOK_AGAIN = 0.1
"""Seconds between two looks at the log of an environment that is waited for."""
LOST_AFTER = 60.0
"""Seconds after which a command that nobody takes up is reported: no worker tends the environment."""
_PAGE = 500


class EngineReleases:
    """Implements the steps' `ReleaseClient` on the database: it sends commands and reads states, nothing else."""

    def __init__(self, store: Store, environments: EnvironmentMachine) -> None:
        self._store = store
        self._environments = environments

    async def deploy(self, environment: EnvironmentPlan, request: dict[str, Any], *, key: str, actor: str) -> str:
        """Ask for a release. See ReleaseClient."""
        head, parts = empty_state(environment)
        machine = await self._store.machines.create(KIND, environment.name, "empty", head, parts, id_prefix="env")
        after = await self._store.log.last(machine)
        await begin_notifying(self._store, environment.name, machine, environment.notify, after)
        payload = {**request, "plan": msgspec.to_builtins(environment), "key": key}
        sent = await self._store.inbox.send(machine, "deploy", actor, payload, key=key)
        await self._taken(machine, environment.name, sent)
        await begin_notifying(self._store, environment.name, machine, environment.notify, after)  # there is news now
        state = await self._state(environment.name)
        for release in state.releases.values():
            if release.key == key:
                return release.id
        refusal = await self._refusal(machine, after, "deploy")
        raise DependencyFailed(f"{environment.name} did not take the release: {refusal or 'no reason was recorded'}")

    async def wait(self, environment: str, release: str, on_change: Callable[[str], None]) -> dict[str, Any]:
        """Wait until the release is final. See ReleaseClient."""
        machine = await self._machine(environment)
        after = 0
        view: dict[str, Any] | None = None
        looked = begun = False
        while True:
            events = await self._store.log.read(machine, after=after, limit=_PAGE)
            for stored in events:
                # Before the release's own first line, what concerns all of the environment was about others.
                begun = begun or _is_of(stored, release)
                if begun and stored.event.data.get("release") in {release, None}:
                    on_change(stored.event.message)
            after = events[-1].seq if events else after
            if len(events) == _PAGE:
                continue
            if view is not None:  # and what led to it has been told, which may have come after the page before
                return view
            if events or not looked:
                known, looked = (await self._state(environment)).releases.get(release), True
                if known is None:
                    raise DependencyFailed(f"the release {release} is not on record any more")
                if known.status in RELEASE_FINAL:
                    view = _view(known)
                    continue
            await asyncio.sleep(LOOK_AGAIN)

    async def command(self, environment: str, kind: str, payload: dict[str, Any], *, key: str, actor: str) -> str:
        """Send a command and wait until it was taken into account. See ReleaseClient."""
        machine = await self._machine(environment)
        after = await self._store.log.last(machine)
        sent = await self._store.inbox.send(machine, kind, actor, {**payload, "key": key}, key=key)
        await self._taken(machine, environment, sent)
        return await self._refusal(machine, after, kind)

    async def begin_contract(self, environment: EnvironmentPlan, contract: Contract, *, actor: str) -> str:
        """Have the environment remember a contract migration. See ReleaseClient."""
        head, parts = empty_state(environment)
        machine = await self._store.machines.create(KIND, environment.name, "empty", head, parts, id_prefix="env")
        after = await self._store.log.last(machine)
        payload = {"contract": msgspec.to_builtins(contract)}
        sent = await self._store.inbox.send(machine, "begin_contract", actor, payload, key=contract.key)
        await self._taken(machine, environment.name, sent)
        # A refusal that was told to a worker that died is not told again: what the environment remembers decides.
        if any(known.key == contract.key for known in (await self._state(environment.name)).contracts):
            return ""
        refusal = await self._refusal(machine, after, "begin_contract")
        return refusal or f"{environment.name} has refused it before: forge env show {environment.name} tells why"

    async def view(self, environment: str) -> dict[str, Any]:
        """Return what the environment stands at. See ReleaseClient."""
        state = await self._state(environment)
        going = [release for release in state.releases.values() if release.status not in RELEASE_FINAL]
        stable = state.versions.get(state.stable)
        return {
            "name": state.name,
            "stable": state.stable,
            "settled": not going,
            "waits_for": "; ".join(f"{release.id}: {release.waits_for or release.status}" for release in going),
            "wanted": stable.wanted if stable else 0,
            "ready": stable.seen.ready if stable and stable.seen else 0,
            "problem": (stable.seen.message if stable.seen else stable.problem) if stable else "",
        }

    async def address(self, environment: str) -> str:
        """Return where clients reach the environment, empty while nobody can tell. See ReleaseClient."""
        return await self._environments.address(await self._state(environment))

    async def examine(self, environment: str, thresholds: tuple[Threshold, ...]) -> list[dict[str, Any]]:
        """Hold thresholds against the stable version as it is now. See ReleaseClient."""
        state = await self._state(environment)
        now = await self._store.now()
        # An environment at rest is not looked at by its machine, so this reads for itself; reading is free.
        seen = await self._environments.observe(state, now)
        if seen.samples is None or state.stable not in seen.samples:
            why = seen.problem or f"nothing was measured of {state.stable or environment}"
            return [{"exceeded": None, "why": why} for _ in thresholds]
        arm = _series(state, seen)
        return [_finding(threshold, arm, now) for threshold in thresholds]

    async def withdraw(self, run: str, key: str, environment: str, release: str, actor: str) -> bool:
        """Abort a release whose step was told to stop. See ReleaseClient."""
        intents = await self._store.intents.of(run)
        told = any(intent.cancel and process_key(run, intent.action.key) == key for intent in intents)
        if not told:
            return False
        payload = {"release": release, "comment": f"{run} was cancelled"}
        await self.command(environment, "abort", payload, key=f"withdraw {key}", actor=actor)
        await self.wait(environment, release, lambda _line: None)
        return True

    async def _machine(self, environment: str) -> str:
        machine = await self._store.machines.find(KIND, environment)
        if machine is None:
            raise UsageError(f"nothing was released to {environment} yet", hint="a `deploy` step does that")
        return machine

    async def _state(self, environment: str) -> EnvironmentState:
        record = await self._store.machines.load(await self._machine(environment))
        if record is None:
            raise DependencyFailed(f"the environment {environment} is gone from the database")
        return EnvironmentMachine.load(record)

    async def _taken(self, machine: str, environment: str, command: int) -> None:
        """Return when the command was taken into account."""
        deadline = asyncio.get_running_loop().time() + LOST_AFTER
        while any(waiting.id == command for waiting in await self._store.inbox.of(machine)):
            if asyncio.get_running_loop().time() > deadline:
                raise DependencyFailed(
                    f"no worker took up the command to {environment} within {LOST_AFTER:.0f} s",
                    hint="`forge doctor` shows what is wrong",
                )
            await asyncio.sleep(0.02)

    async def _refusal(self, machine: str, after: int, kind: str) -> str:
        for stored in await self._store.log.read(machine, after=after, limit=_PAGE):
            if stored.event.kind == "rollback_impossible":
                return stored.event.message
            if stored.event.kind == "command_without_effect" and stored.event.data.get("command") == kind:
                return stored.event.message
        return ""


def _is_of(stored: StoredEvent, release: str) -> bool:
    return stored.event.data.get("release") == release


def _series(state: EnvironmentState, seen: Observation) -> Series:
    """Return the stable version's readings: those on record, and the one taken now."""
    past = [samples[state.stable] for _, samples in state.history if state.stable in samples]
    latest = (seen.samples or {})[state.stable]
    replicas = (seen.replicas or {}).get(state.stable)
    readings = (*(sample for sample in past if sample.at < latest.at), latest)
    return Series(state.stable, readings, replicas=replicas.ready if replicas else 0)


def _finding(threshold: Threshold, arm: Series, now: float) -> dict[str, Any]:
    """Return what one threshold says. With `minimum_requests` 0, nobody having asked is no reason to wait."""
    found = examine(threshold, arm, now)
    exceeded = found.exceeded
    if exceeded is None and threshold.minimum_requests == 0 and found.data.get("requests") == 0:
        return {**found.data, "exceeded": False, "why": "no requests, and none are asked for"}
    return {**found.data, "exceeded": exceeded, "why": found.why}


def _view(release: ReleaseState) -> dict[str, Any]:
    return {
        "id": release.id,
        "status": release.status,
        "reason": release.reason or release.note,
        "version": release.version,
        "previous": release.previous,
        "requests": release.requests,
        "failed_requests": release.failed_requests,
        "excess_failed_requests": release.excess_failed,
    }
