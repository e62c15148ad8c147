"""The largest resident size that a process of a command has had, by looking now and then (Linux `/proc`).

The kernel's own account at the end of a process begins with the peak of the process that it was forked from,
so that for everything smaller than Forge itself it tells of Forge. Looking tells the truth, but misses what
lives for a few milliseconds only.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

FIRST = 0.02
LONGEST = 1.0
MOST = 256
"""Processes that are looked at in one go."""


class PeakMemory:
    """Watches a process and its descendants while they run; `bytes` is the largest size of one of them."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._pause = FIRST
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(FIRST, self._look_again)

    def stop(self) -> None:
        """Look no more."""
        self._next.cancel()

    def look(self) -> None:
        """Take one look now."""
        waiting = [self._pid]
        for _ in range(MOST):
            if not waiting:
                return
            pid = waiting.pop()
            # Processes come and go while we look; what is gone has nothing to tell.
            with contextlib.suppress(OSError):
                self.bytes = max(self.bytes, _own_peak(pid))
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split())

    def _look_again(self) -> None:
        self.look()
        self._pause = min(self._pause * 2, LONGEST)
        self._next = self._loop.call_later(self._pause, self._look_again)


def _own_peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_bytes()
    _, found, rest = status.partition(b"\nVmHWM:")
    return int(rest.split(None, 1)[0]) * 1024 if found else 0
