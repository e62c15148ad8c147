"""Processes of this machine, told apart for certain: a pid alone may be somebody else's tomorrow."""

from __future__ import annotations

import os
import signal
from functools import cache
from pathlib import Path

import msgspec

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One process for certain: `started` is field 22 of `/proc/PID/stat` (ticks since boot), `boot` the boot's id."""

    pid: int
    started: int
    boot: str


class ProcessStat(msgspec.Struct, frozen=True):
    """What the kernel says of a process. CPU counts its reaped children too; `memory` is resident bytes."""

    pid: int
    state: str
    parent: int
    session: int
    started: int
    cpu_seconds: float
    memory: int
    threads: int = 1


@cache
def boot_id() -> str:
    """Return the id of this boot of the machine."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def parse_stat(text: str) -> ProcessStat:
    """Read one `/proc/PID/stat`. The command name may itself hold spaces and parentheses. Raises ValueError."""
    opening, closing = text.index("("), text.rindex(")")
    fields = text[closing + 1 :].split()
    if len(fields) < 22:
        msg = "a process's stat line is too short"
        raise ValueError(msg)
    return ProcessStat(
        pid=int(text[:opening]),
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        cpu_seconds=sum(int(ticks) for ticks in fields[11:15]) / _TICKS,
        memory=int(fields[21]) * _PAGE,
        threads=int(fields[17]),
    )


def stat_of(pid: int) -> ProcessStat | None:
    """Return the state of process `pid`, or None if there is none."""
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text(errors="replace"))
    except (OSError, ValueError):
        return None


def all_stats() -> list[ProcessStat]:
    """Return every process of this machine, in one pass over `/proc`."""
    found = (stat_of(int(entry.name)) for entry in os.scandir(_PROC) if entry.name.isdigit())
    return [stat for stat in found if stat is not None]


def identify(pid: int) -> ProcessIdentity | None:
    """Return who `pid` is now, or None if it is gone or a zombie."""
    stat = stat_of(pid)
    if stat is None or stat.state in "ZX":
        return None
    return ProcessIdentity(pid=pid, started=stat.started, boot=boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    """Return whether that very process still runs."""
    return identity.boot == boot_id() and identify(identity.pid) == identity


def watch(identity: ProcessIdentity) -> int | None:
    """Return a pidfd that becomes readable when that very process ends, or None if it already has."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    # Between the check and the open the pid could have changed hands: check what was opened.
    if is_alive(identity):
        return descriptor
    os.close(descriptor)
    return None


def trees(roots: list[int], stats: list[ProcessStat]) -> dict[int, list[ProcessStat]]:
    """Return, for each root, its process with all descendants and all members of its session."""
    children: dict[int, list[ProcessStat]] = {}
    for stat in stats:
        children.setdefault(stat.parent, []).append(stat)
    found: dict[int, list[ProcessStat]] = {}
    for root in roots:
        members = {stat.pid: stat for stat in stats if root in (stat.pid, stat.session)}
        todo = list(members)
        while todo:
            for child in children.get(todo.pop(), ()):
                if child.pid not in members:
                    members[child.pid] = child
                    todo.append(child.pid)
        found[root] = list(members.values())
    return found


def signal_group(identity: ProcessIdentity, number: signal.Signals) -> None:
    """Send a signal to a session leader and its process group, if that very process still runs."""
    if is_alive(identity):
        try:
            os.killpg(identity.pid, number)
        except (ProcessLookupError, PermissionError):
            return


def kill_leftovers(leader: ProcessIdentity, mark: str) -> list[int]:
    """SIGKILL what a dead session leader left behind in its session; return the pids.

    `mark` (`NAME=value`) must be in a process's environment: the leader's pid may long be somebody else's.
    """
    killed = []
    for stat in all_stats():
        if stat.session != leader.pid or stat.state in "ZX" or leader.boot != boot_id():
            continue
        try:
            environment = (_PROC / str(stat.pid) / "environ").read_bytes().split(b"\0")
            if mark.encode() in environment:
                os.kill(stat.pid, signal.SIGKILL)
                killed.append(stat.pid)
        except OSError:
            continue
    return killed
