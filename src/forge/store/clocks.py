"""Clocks that no correction of the wall clock moves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

_SUSPENDED_TOO: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def steady() -> float:
    """Return seconds since some moment; goes on while the machine is suspended, where there is such a clock."""
    if _borrowed:
        return _borrowed[-1]()
    return time.monotonic() if _SUSPENDED_TOO is None else time.clock_gettime(_SUSPENDED_TOO)


def leases() -> float:
    """Return the seconds by which leases of this machine's processes run."""
    return _borrowed[-1]() if _borrowed else time.monotonic()


@contextlib.contextmanager
def borrowed(clock: Callable[[], float]) -> Iterator[None]:
    """Let all of this process run by another clock meanwhile: a simulation's, whose time is virtual."""
    _borrowed.append(clock)
    try:
        yield
    finally:
        _borrowed.remove(clock)


_borrowed: list[Callable[[], float]] = []


def wall() -> Callable[[], float]:
    """Return a clock that begins at the wall clock's time, in seconds since the epoch, and never jumps."""
    offset = time.time() - steady()
    return lambda: offset + steady()
