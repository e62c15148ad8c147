"""How long the ticks of machines take: what a worker spends on looking and on deciding."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Histogram

from forge.engine.machine import MachineKind

T = TypeVar("T")


class TickMetrics:
    """Times of looking at the world (`observe`) and of deciding (`decide`), by kind of machine."""

    def __init__(self) -> None:
        self.seconds = Histogram(
            "forge_tick_seconds",
            "Seconds that a part of a machine's tick took.",
            ("kind", "part"),
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Tell the times by a registry."""
        registry.register(self.seconds)

    def timed(self, kinds: tuple[MachineKind, ...]) -> tuple[MachineKind, ...]:
        """Return the kinds, whose looks and decisions are timed from now on."""
        for kind in kinds:
            name = kind.kind
            kind.observe = self._of_look(kind.observe, name)  # type: ignore[method-assign]
            kind.decide = self._of_decision(kind.decide, name)  # type: ignore[method-assign]
        return kinds

    def _of_look(self, look: Callable[..., Any], kind: str) -> Callable[..., Any]:
        async def observe(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return await look(*arguments)
            finally:
                self.seconds.labels(kind, "observe").observe(time.perf_counter() - begin)

        return observe

    def _of_decision(self, decision: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def decide(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return decision(*arguments)
            finally:
                self.seconds.labels(kind, "decide").observe(time.perf_counter() - begin)

        return decide
