"""Finding the living processes of a step by session or by the cookie in their environment (Linux `/proc`)."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Mapping


def alive(session: int, cookie: Mapping[str, str]) -> list[int]:
    """Return the pids of all living processes of `session`, or whose environment has every pair of `cookie`.

    A process that fled from its group by `setsid` is found by its cookie; one that threw its environment
    away is found by its session. Zombies do not count: they do nothing any more. 0 is no session.
    """
    wanted = [f"{name}={value}".encode() for name, value in cookie.items()]
    return [pid for pid in _pids() if _belongs(pid, session, wanted)]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each of `pids` that is still there and that we may signal."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def send_group(group: int, number: signal.Signals) -> None:
    """Send a signal to every process of a group at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def group_exists(group: int) -> bool:
    """Tell in microseconds whether a process group has members; zombies count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _pids() -> Iterator[int]:
    own = os.getpid()
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path per process would double the cost
        if name.isdigit() and int(name) != own:
            yield int(name)


def _belongs(pid: int, session: int, wanted: list[bytes]) -> bool:
    try:
        state, of_session = _state_and_session(pid)
        if state in "ZX":
            return False
        return (session > 0 and of_session == session) or (bool(wanted) and _has_cookie(pid, wanted))
    except OSError:  # ended while we looked, or not ours to look at
        return False


def _state_and_session(pid: int) -> tuple[str, int]:
    # The command's name is in brackets and may itself contain brackets and blanks.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return fields[0].decode(), int(fields[3])


def _has_cookie(pid: int, wanted: list[bytes]) -> bool:
    pairs = _read(f"/proc/{pid}/environ").split(b"\0")
    return all(pair in pairs for pair in wanted)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(descriptor, 1 << 16):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)
