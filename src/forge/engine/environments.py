"""Environments as durable machines: joins the pure `core.release.decide` to target, router and signals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from forge.adapters.artifacts.base import ArtifactStore
from forge.adapters.routers.base import Remarking
from forge.adapters.targets.registry import OpenEnvironment, Opener, open_environment
from forge.core.policy.budget import Buckets
from forge.core.release.decide import decide
from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState
from forge.engine.project import Project
from forge.engine.recording import Recorder
from forge.engine.secrets import resolve_one
from forge.model.decision import Action, Command, Decision, Outcome
from forge.model.errors import CorruptData, DependencyFailed, ForgeError, StaleLease
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Observation, Sample, TrafficTable, Version
from forge.store.contract import Claim, Record

KIND = "environment"
SCHEMA_VERSION = 1
LOOK_SECONDS = 5.0
"""How long one look at the world may take; what does not answer in time could not be read."""
COPY_DIGITS = 16
"""How much of an artifact's digest names the folder of an environment's own copy."""
_RELEASE = "release:"
_HISTORY = "history"
_SIGNALS = "signals"
_HOURS = "hours"

T = TypeVar("T")


class _Head(msgspec.Struct, frozen=True):
    """The header as stored: everything but the parts, and which releases are not forgotten, oldest first."""

    state: EnvironmentState
    releases: tuple[str, ...] = ()


class EnvironmentMachine:
    """The `MachineKind` of environments. Releases, recent samples and the signal reader's own state are parts."""

    kind = KIND

    def __init__(self, project: Project, artifacts: ArtifactStore, *, opener: Opener | None = None) -> None:
        self._project = project
        self._artifacts = artifacts
        self._opener = opener or partial(open_environment, secrets=partial(resolve_one, root=project.root))
        self._open: dict[str, tuple[EnvironmentPlan, OpenEnvironment]] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._newest: dict[tuple[str, str], int] = {}
        self._dumped: dict[str, frozenset[str]] = {}
        self._recorders: dict[str, Recorder] = {}

    @staticmethod
    def load(record: Record) -> EnvironmentState:
        """Return the state from its stored form; without parts, only its header."""
        if record.schema_version > SCHEMA_VERSION:
            raise CorruptData(
                f"{record.id} was written by a newer Forge (schema {record.schema_version})", hint="update Forge"
            )
        head = msgspec.json.decode(record.head, type=_Head)
        releases = {
            name: msgspec.json.decode(record.parts[_RELEASE + name], type=ReleaseState)
            for name in head.releases
            if _RELEASE + name in record.parts
        }
        return replace(
            head.state,
            releases=releases,
            history=msgspec.json.decode(
                record.parts.get(_HISTORY, b"[]"), type=tuple[tuple[float, dict[str, Sample]], ...]
            ),
            signals_state=msgspec.json.decode(record.parts.get(_SIGNALS, b"{}")),
            ledger=replace(head.state.ledger, hours=msgspec.json.decode(record.parts.get(_HOURS, b"[]"), type=Buckets)),
        )

    def dump(self, state: EnvironmentState) -> tuple[str, bytes, dict[str, bytes]]:
        """Return (status, head, parts). A release that was forgotten becomes an empty part, which deletes it."""
        opened = self._open.get(state.name)
        signals = opened[1].signals.state() if opened else state.signals_state
        parts = {_RELEASE + name: msgspec.json.encode(release) for name, release in state.releases.items()}
        forgotten = self._dumped.get(state.name, frozenset()) - state.releases.keys()
        parts |= {_RELEASE + name: b"" for name in forgotten}
        self._dumped[state.name] = frozenset(state.releases)
        parts[_HISTORY] = msgspec.json.encode(state.history)
        parts[_SIGNALS] = msgspec.json.encode(signals)
        if state.ledger.at:
            parts[_HOURS] = msgspec.json.encode(state.ledger.hours)
        return status_of(state), _encode_head(state), parts

    async def observe(self, state: EnvironmentState, now: float) -> Observation:
        """Look at replicas, split and samples at the same time; what cannot be read is None, with the reason."""
        if state.down:
            return Observation(now, problem=f"{state.name} is down")
        try:
            world = self._world(state)
        except ForgeError as error:
            return Observation(now, problem=error.message)
        problems: list[str] = []
        replicas, table, samples = await asyncio.gather(
            _look("replicas", world.target.observe(), problems),
            _look("traffic", _split(world), problems),
            _look("metrics", world.signals.read([*state.versions]), problems),
        )
        if isinstance(world.router, Remarking) and world.router.remark:
            problems.append(f"traffic: {world.router.remark}")
        weights, generation = table or (None, None)
        return Observation(now, replicas, weights, samples, "; ".join(problems), generation)

    async def address(self, state: EnvironmentState) -> str:
        """Return where clients reach the environment; empty when its router cannot be asked now."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await self._world(state).router.address()
        except (ForgeError, TimeoutError):
            return ""

    def decide(
        self,
        state: EnvironmentState,
        observation: Observation,
        commands: tuple[Command, ...],
        outcomes: tuple[Outcome, ...],
        now: float,
    ) -> Decision[EnvironmentState]:
        """Call the pure core."""
        return decide(state, observation, commands, outcomes, now)

    def record(
        self,
        before: EnvironmentState,
        observation: Observation,
        commands: tuple[Command, ...],
        outcomes: tuple[Outcome, ...],
        now: float,
        decision: Decision[EnvironmentState],
    ) -> bytes:
        """Return what goes on record of this decision. See Recorder."""
        recorder = self._recorders.setdefault(before.name, Recorder())
        return recorder.record(before, observation, commands, outcomes, now, decision)

    async def perform(self, action: Action, state: EnvironmentState, claim: Claim) -> Outcome:
        """Hand an action to target or router under the environment's fencing token."""
        name = str(action.payload.get("version", "")) if action.kind != "traffic" else "traffic"
        slot, generation = (state.name, name), _generation(action.key)
        self._newest[slot] = max(generation, self._newest.get(slot, 0))
        async with self._locks.setdefault(slot, asyncio.Lock()):
            if state.down:
                return Outcome(action.key, "succeeded", time.time(), "out of date: the environment is down")
            if generation < self._newest[slot]:
                return Outcome(action.key, "succeeded", time.time(), "out of date: a newer wish follows")
            try:
                await self._do(action, state, claim.token)
            except StaleLease as refused:
                folder = self._project.environment_folder(state.name)
                raise StaleLease(
                    f"{refused.message}, by another worker or with another database. If that database is gone for good:"
                    f" `forge env down {state.name} --force`, delete {folder}, and deploy again"
                ) from refused
        return Outcome(action.key, "succeeded", time.time())

    async def _do(self, action: Action, state: EnvironmentState, token: int) -> None:
        world = self._world(state)
        if action.kind == "traffic":
            await world.router.apply(msgspec.convert(action.payload["table"], TrafficTable), token)
        elif action.kind == "remove":
            await world.target.remove(action.payload["version"], token)
        elif action.kind == "ensure":
            known = state.versions.get(action.payload["version"])
            if known is None:
                return
            replicas = int(action.payload["replicas"])
            artifact = await self._artifact(state.name, known.version) if replicas else None
            await world.target.ensure(known.version, replicas, artifact, token)
        else:
            raise DependencyFailed(f"nobody performs `{action.kind}`")

    async def _artifact(self, environment: str, version: Version) -> str | None:
        """Return the artifact's local path, fetched and verified once."""
        if not version.artifact:
            return None
        folder = self._project.environment_folder(environment) / "artifacts" / version.artifact[:COPY_DIGITS]
        path = folder / (Path(version.artifact_name).name or "artifact")
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                await self._artifacts.get(version.artifact, path)
            except KeyError:
                msg = f"the artifact {version.artifact_name} ({version.artifact[:12]}) of {version.id} is not stored"
                raise DependencyFailed(msg, hint="run the pipeline again to publish it") from None
        return str(path)

    def _world(self, state: EnvironmentState) -> OpenEnvironment:
        """Return the environment's adapters; made anew when a release brought another plan."""
        known = self._open.get(state.name)
        if known is None or known[0] != state.plan:
            world = self._opener(state.plan, self._project.environment_folder(state.name))
            world.signals.restore(known[1].signals.state() if known else state.signals_state)
            known = self._open[state.name] = (state.plan, world)
        return known[1]


def status_of(state: EnvironmentState) -> str:
    """Return the environment's state in one word, for lists."""
    going = [release.status for release in state.releases.values() if release.status not in RELEASE_FINAL]
    for status in ("rolling_back", "paused", "waiting_approval"):
        if status in going:
            return status
    if going:
        return "releasing"
    return "stable" if state.stable else "empty"


async def _split(world: OpenEnvironment) -> tuple[dict[str, int], int]:
    table = await world.router.observed()
    return (table.weights, table.generation) if table is not None else ({}, 0)


async def _look(what: str, reading: Awaitable[T], problems: list[str]) -> T | None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await reading
    except TimeoutError:
        problems.append(f"{what}: no answer within {LOOK_SECONDS:.0f} s")
    except ForgeError as error:
        problems.append(f"{what}: {error.message}")
    except Exception as error:
        problems.append(f"{what}: {type(error).__name__}: {error}")
    return None


def _generation(key: str) -> int:
    number = key.partition("#")[2].partition(":")[0]
    return int(number) if number.isdigit() else 0


def _encode_head(state: EnvironmentState) -> bytes:
    bare = replace(state, releases={}, history=(), signals_state={}, ledger=replace(state.ledger, hours=()))
    return msgspec.json.encode(_Head(bare, tuple(state.releases)))


def empty_state(plan: EnvironmentPlan) -> tuple[bytes, dict[str, bytes]]:
    """Return head and parts of an environment to which nothing was ever released."""
    return _encode_head(EnvironmentState(plan.name, plan)), {}
