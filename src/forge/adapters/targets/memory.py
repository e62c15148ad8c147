"""A target without processes, for the engine's tests and simulations: replicas become ready on its own clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from msgspec.structs import replace

from forge.model.errors import DependencyFailed, StaleLease
from forge.model.traffic import ReplicaCount, Version


class Fence:
    """Remembers the largest token of an environment, for its target and its router alike."""

    def __init__(self) -> None:
        self.token = 0

    def check(self, token: int) -> None:
        """Raise StaleLease for a token smaller than one that was seen."""
        if token < self.token:
            msg = f"token {token} is stale: {self.token} was seen"
            raise StaleLease(msg)
        self.token = token


class MemoryTarget:
    """Keeps what is wanted; a replica is ready `ready_after` seconds of `clock` after it was wanted.

    Faults for tests: `never_ready` maps versions to the reason why they never get ready, `unreachable` makes
    every call fail, `lines` is what `logs` yields.
    """

    def __init__(self, clock: Callable[[], float], *, ready_after: float = 0.0, fence: Fence | None = None) -> None:
        self.clock = clock
        self.ready_after = ready_after
        self.fence = fence or Fence()
        self.never_ready: dict[str, str] = {}
        self.unreachable = False
        self.lines: list[tuple[str, str]] = []
        self.versions: dict[str, Version] = {}
        self.artifacts: dict[str, str | None] = {}
        self._born: dict[str, list[float]] = {}
        self._crashed: dict[str, int] = {}

    async def ensure(self, version: Version, replicas: int, artifact: str | None, token: int) -> None:
        """Want `replicas` of `version`. See Target."""
        self._reach()
        self.fence.check(token)
        born = self._born.setdefault(version.id, [])
        self.versions[version.id] = version
        self.artifacts[version.id] = artifact
        del born[replicas:]
        born += [self.clock()] * (replicas - len(born))

    async def remove(self, version_id: str, token: int) -> None:
        """Forget a version. See Target."""
        self._reach()
        self.fence.check(token)
        self._born.pop(version_id, None)
        self.versions.pop(version_id, None)
        self.artifacts.pop(version_id, None)

    async def observe(self) -> dict[str, ReplicaCount]:
        """Return what runs. See Target."""
        self._reach()
        return {version: self._count(version) for version in self._born}

    async def logs(self, version_id: str | None, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """Yield `lines`. See Target."""
        del follow
        chosen = [f"{replica}: {line}" for replica, line in self.lines if version_id in (None, replica.split("/")[0])]
        for line in chosen[-tail:] if tail > 0 else []:
            yield line

    def crash(self, version_id: str, replicas: int = 1) -> None:
        """Have some replicas of a version die now; they come back like new ones."""
        born = self._born[version_id]
        for index in range(min(replicas, len(born))):
            born[index] = self.clock()
        self._crashed[version_id] = self._crashed.get(version_id, 0) + replicas

    def is_ready(self, version_id: str) -> bool:
        """Return whether at least one replica of a version is ready."""
        return version_id in self._born and self._count(version_id).ready > 0

    def _count(self, version: str) -> ReplicaCount:
        born = self._born[version]
        count = ReplicaCount(len(born), len(born), 0, "", self._crashed.get(version, 0))
        reason = self.never_ready.get(version)
        if reason is not None:
            return replace(count, message=reason if born else "")
        ready = sum(1 for since in born if self.clock() >= since + self.ready_after)
        return replace(count, ready=ready, message="" if ready == len(born) else "starting")

    def _reach(self) -> None:
        if self.unreachable:
            raise DependencyFailed("the target cannot be reached")
