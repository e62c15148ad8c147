"""Signals without a proxy, for the engine's tests and simulations: the test says what users experienced."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec

from forge.adapters.signals.envoy import Counters, EnvoyCounters
from forge.model.errors import DependencyFailed
from forge.model.traffic import Sample

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, math.inf)


class MemorySignals:
    """Counts what `serve` was told. `reset` is a restart of the source: its counters begin at nothing again.

    Faults for tests: `unreachable` makes reading fail; versions in `silent` have no data.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.unreachable = False
        self.silent: set[str] = set()
        self._raw: dict[str, Counters] = {}
        self._cpu: dict[str, float] = {}
        self._memory: dict[str, int] = {}
        self._counters = EnvoyCounters()
        self._starts = 0

    def serve(self, version: str, requests: int, *, errors: int = 0, latency: Iterable[float] | float = 0.004) -> None:
        """Count requests; `latency` in seconds is of all of them, or one value each."""
        before = self._raw.get(version, Counters(latency=tuple((bound, 0) for bound in BOUNDS)))
        each = [latency] * requests if isinstance(latency, (int, float)) else list(latency)
        histogram = tuple((bound, count + sum(1 for one in each if one <= bound)) for bound, count in before.latency)
        self._raw[version] = Counters(before.requests + requests, before.errors + errors, histogram)

    def use(self, version: str, *, cpu_seconds: float = 0.0, memory: int | None = None) -> None:
        """Add CPU time to a version, and set the memory of its largest replica."""
        self._cpu[version] = self._cpu.get(version, 0.0) + cpu_seconds
        if memory is not None:
            self._memory[version] = memory

    def reset(self) -> None:
        """Have the source begin anew. What it counted since the last reading is lost, as with a real one."""
        self._raw = {version: Counters(latency=tuple((b, 0) for b in BOUNDS)) for version in self._raw}
        self._starts += 1

    async def read(self, version_ids: list[str]) -> dict[str, Sample]:
        """Return one sample of each version that was served or used. See Signals."""
        if self.unreachable:
            raise DependencyFailed("the signals cannot be read")
        known = [v for v in version_ids if (v in self._raw or v in self._cpu) and v not in self.silent]
        counted = self._counters.take(self._raw, str(self._starts), known)
        return {
            version: Sample(
                at=self.clock(),
                requests=counted[version].requests,
                errors=counted[version].errors,
                latency=counted[version].latency,
                cpu_seconds=self._cpu.get(version),
                memory=self._memory.get(version),
            )
            for version in known
        }

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Signals."""
        state: dict[str, object] = msgspec.to_builtins(self._counters.state())
        return state

    def restore(self, state: dict[str, object]) -> None:
        """Go on from `state`. See Signals."""
        self._counters.restore(cast("dict[str, Any]", state))
