"""Clocks that no correction of the wall clock moves."""

from __future__ import annotations

import time
from collections.abc import Callable

_SUSPENDED_TOO: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def steady() -> float:
    """Return seconds since some moment; goes on while the machine is suspended, where there is such a clock."""
    return time.monotonic() if _SUSPENDED_TOO is None else time.clock_gettime(_SUSPENDED_TOO)


def wall() -> Callable[[], float]:
    """Return a clock that begins at the wall clock's time, in seconds since the epoch, and never jumps."""
    offset = time.time() - steady()
    return lambda: offset + steady()
