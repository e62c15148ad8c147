"""What the agent of one environment knows: what is wanted, and what it has seen. Saved at each change."""

from __future__ import annotations

from typing import Literal

import msgspec

from forge.adapters.targets.local.processes import ProcessIdentity
from forge.model.configs import EnvoyRouterConfig, LocalTargetConfig
from forge.model.traffic import TrafficTable, Version

Phase = Literal["waiting", "running", "draining", "stopping"]
"""`waiting`: to be started at `retry_at`. `draining`: leaves the proxy. `stopping`: was sent TERM."""


class Replica(msgspec.Struct, frozen=True):
    """One replica. Times are seconds since the machine's boot, asleep or awake."""

    version: str
    number: int
    phase: Phase = "waiting"
    port: int = 0
    """Kept over restarts; 0: not chosen yet."""
    process: ProcessIdentity | None = None
    started_at: float = 0.0
    ready: bool = False
    ready_since: float | None = None
    failures: int = 0
    """Probes that failed in a row."""
    message: str = ""
    """Why it is not ready."""
    restarts: int = 0
    crashes: int = 0
    """Exits in a row without a good while in between: how far back-off has grown."""
    retry_at: float = 0.0
    since: float = 0.0
    """When its phase began."""
    killed: bool = False
    """KILL was sent."""
    lived: bool = False
    """It passed its liveness check since it was started, or was ready at first: from then on a failure counts."""
    live_failures: int = 0
    """Liveness checks that failed in a row."""
    condemned_at: float | None = None
    """When its liveness check had failed too often: it was sent TERM, to be started anew."""
    renewed: bool = False
    """It is being started anew for its liveness check, and has not passed it since."""

    @property
    def key(self) -> str:
        """Its name in the environment."""
        return f"{self.version}/{self.number}"


class Wish(msgspec.Struct, frozen=True):
    """A version that is wanted, or, with `removing`, still has replicas that are on their way out."""

    version: Version
    config: LocalTargetConfig
    replicas: int
    removing: bool = False


class Proxy(msgspec.Struct, frozen=True):
    """The environment's Envoy. `table_versions` are the tables that were handed to it, by RDS version."""

    config: EnvoyRouterConfig = EnvoyRouterConfig()
    port: int = 0
    process: ProcessIdentity | None = None
    restarts: int = 0
    crashes: int = 0
    started_at: float = 0.0
    retry_at: float = 0.0
    message: str = ""
    serial: int = 0
    """Grows with every file that is written for it."""
    tables: dict[str, TrafficTable] = {}


class AgentState(msgspec.Struct, frozen=True):
    """All of it. `token` is the largest fencing token that was seen."""

    environment: str = ""
    folder: str = ""
    """Where it was saved: the processes of a copied state belong to the original."""
    token: int = 0
    wishes: dict[str, Wish] = {}
    replicas: dict[str, Replica] = {}
    proxy: Proxy = Proxy()
    stopping: bool = False
    """Everything is to go, the agent too."""
