"""Targets: where versions run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from forge.model.traffic import ReplicaCount, Version


class Target(Protocol):
    """Runs N replicas of each version of one environment.

    Called by `engine/releases.py` only, by one worker at a time. Every change carries the environment's
    fencing `token`; a target refuses (StaleLease) a token smaller than the largest it has seen. Calls
    return when the wish is on disk, not when it is fulfilled: `observe` tells how far it came. All calls
    are idempotent. DependencyFailed means that the target could not be reached or failed itself.
    """

    async def ensure(self, version: Version, replicas: int, artifact: str | None, token: int) -> None:
        """Want `replicas` of `version` running (0: none, but keep its files). `artifact` is a local path."""

    async def remove(self, version_id: str, token: int) -> None:
        """Drain and stop all replicas of a version and forget it."""

    async def observe(self) -> dict[str, ReplicaCount]:
        """Return what runs, by version id. Reads only; takes milliseconds."""

    def logs(self, version_id: str | None, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """Yield log lines of one version (None: of all), each begun with `version/replica: `."""
