"""One environment on this machine: its target, its router and its signals."""

from __future__ import annotations

import asyncio
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from forge.adapters.routers.envoy import EnvoyRouter
from forge.adapters.signals.local import LocalSignals
from forge.adapters.targets.local.client import AgentClient
from forge.adapters.targets.local.folders import EnvironmentFolder
from forge.adapters.targets.local.records import load_state, state_view
from forge.adapters.targets.local.target import LocalTarget
from forge.model.configs import EnvoyRouterConfig
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan


@dataclass(frozen=True, slots=True)
class LocalEnvironment:
    """The three adapters of one environment."""

    target: LocalTarget
    router: EnvoyRouter
    signals: LocalSignals


def open_local(environment: EnvironmentPlan, folder: Path) -> LocalEnvironment:
    """Return the adapters of an environment whose files are in `folder`. Starts nothing yet.

    Raises UsageError for a router configuration that is wrong.
    """
    try:
        router = msgspec.convert(environment.router_config, EnvoyRouterConfig)
    except msgspec.ValidationError as error:
        msg = f"the configuration of the envoy router of {environment.name} is wrong: {error}"
        raise UsageError(msg) from None
    client = AgentClient(EnvironmentFolder(folder), environment.name, router)
    target = LocalTarget(client, environment.target_config)
    return LocalEnvironment(target, EnvoyRouter(client), LocalSignals(client))


async def shutdown(folder: Path) -> None:
    """Drain and stop everything of an environment: proxy, replicas, agent. Fine when nothing runs.

    Its logs, its port and its fencing token stay. Raises DependencyFailed when something does not stop.
    """
    place = EnvironmentFolder(folder)
    if not place.lock.exists():
        return
    client = AgentClient(place, "", EnvoyRouterConfig())
    state = load_state(place)
    if not state.replicas and state.proxy.process is None and not await client.is_alive():
        return
    longest = max((wish.config.drain + wish.config.stop_grace for wish in state.wishes.values()), default=0.0)
    await client.ask("shutdown", timeout=longest * 2 + 30.0)
    while not await asyncio.to_thread(_is_unlocked, place):
        await asyncio.sleep(0.01)


async def status(folder: Path) -> dict[str, Any]:
    """Return an environment's state for people: address, agent, proxy, versions with replicas. Starts nothing;
    `agent` is None when no agent is alive, and the rest is then what the last one had seen."""
    place = EnvironmentFolder(folder)
    client = AgentClient(place, "", EnvoyRouterConfig())
    if place.lock.exists() and await client.is_alive():
        view: dict[str, Any] = await client.ask("status", start=False)
        return view
    return state_view(load_state(place), None)


def _is_unlocked(place: EnvironmentFolder) -> bool:
    lock = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
