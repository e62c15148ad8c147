"""An event loop on virtual time: when everybody sleeps, it jumps to the first who wakes.

While threads of the database are at work, time stands still; so a story is the same on a slow machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from forge.store.clocks import borrowed

T = TypeVar("T")
PATIENCE = 0.5
"""Real seconds for which threads are waited for at a time."""

STEP = 1e-6
"""Seconds by which a jump goes beyond its end, so that rounding never leaves a sleeper a little too early."""


class Skipping(selectors.DefaultSelector):
    """Waits for nothing: it tells the loop how long it would have."""

    busy: Callable[[], bool]
    skip: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; else let virtual time pass, unless threads are at work."""
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None or self.busy():
            return super().select(PATIENCE)
        self.skip(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at second 0. `at_work` counts what threads have to do."""

    def __init__(self) -> None:
        self.at_work = 0
        self._virtual = 0.0
        selector = Skipping()
        selector.busy = lambda: self.at_work > 0
        selector.skip = self._skip
        super().__init__(selector)
        self._clock_resolution = 0.0  # else what is due within it fires while time stands still, for ever

    def time(self) -> float:
        """Return virtual seconds since the beginning."""
        return self._virtual

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Count the work of threads."""
        self.at_work += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._done)
        return future

    async def counted(self, work: Awaitable[T]) -> T:
        """Await what threads do; time stands still meanwhile."""
        self.at_work += 1
        try:
            return await work
        finally:
            self.at_work -= 1

    def _done(self, _: object) -> None:
        self.at_work -= 1

    def _skip(self, seconds: float) -> None:
        self._virtual += seconds + STEP


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run `main` on a loop of its own with virtual time, which the engine's clocks follow meanwhile."""
    loop = VirtualLoop()
    try:
        with borrowed(loop.time):
            return loop.run_until_complete(main(loop))
    finally:
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
