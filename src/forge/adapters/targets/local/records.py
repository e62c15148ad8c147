"""An environment's state on disk: read, reduced, and put for people."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec.structs import replace

from forge.adapters.targets.local import reconcile
from forge.adapters.targets.local.folders import EnvironmentFolder
from forge.adapters.targets.local.state import AgentState
from forge.model.errors import CorruptData


def since_boot() -> float:
    """Return seconds since the machine's boot: no change of the wall clock makes a wait longer."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def state_view(state: AgentState, agent: int | None) -> dict[str, Any]:
    """Return an environment's state for people, as JSON data."""
    counts = reconcile.count(state)
    versions = {
        version: {
            **msgspec.to_builtins(counts[version]),
            "command": list(wish.config.command),
            "replicas": [
                {
                    "replica": replica.number,
                    "pid": replica.process.pid if replica.process else None,
                    "port": replica.port,
                    "phase": replica.phase,
                    "ready": replica.ready,
                    "restarts": replica.restarts,
                    "message": replica.message,
                }
                for replica in sorted(state.replicas.values(), key=lambda r: r.number)
                if replica.version == version
            ],
        }
        for version, wish in state.wishes.items()
    }
    proxy = state.proxy
    host = f"[{proxy.config.listen}]" if ":" in proxy.config.listen else proxy.config.listen
    return {
        "environment": state.environment,
        "agent": agent,
        "address": f"http://{host}:{proxy.port}" if proxy.port else None,
        "proxy": {
            "pid": proxy.process.pid if proxy.process else None,
            "restarts": proxy.restarts,
            "message": proxy.message,
        },
        "versions": versions,
    }


def load_state(folder: EnvironmentFolder) -> AgentState:
    """Return the saved state, or a fresh one. Raises CorruptData when it cannot be read."""
    try:
        return msgspec.json.decode(folder.state.read_bytes(), type=AgentState)
    except FileNotFoundError:
        return AgentState()
    except (msgspec.DecodeError, OSError) as error:
        msg = f"{folder.state} cannot be read: {error}"
        raise CorruptData(msg) from None


def forgotten(state: AgentState) -> AgentState:
    """Return what stays when an environment was taken down: its token and its port."""
    proxy = replace(state.proxy, process=None, tables={}, message="", retry_at=0.0, crashes=0)
    return replace(state, environment="", wishes={}, replicas={}, stopping=False, proxy=proxy)
