"""Following a container's log to its end: no line is lost and none comes twice, however often the connection breaks.

Lines come with the node's time stamps. After a break the log is asked for from a whole second on, and as many lines
are passed over as were seen of it: the log's order is the same each time it is read.
"""

from __future__ import annotations

import asyncio
import calendar
import re
import time
from collections.abc import Callable
from functools import lru_cache

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import PERMISSIONS
from forge.adapters.kubernetes.streams import log_chunks
from forge.model.errors import DependencyFailed

SILENCE = 60.0
"""Seconds without a line after which the connection is made anew: a dead one looks the same as a quiet command."""
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 3.0
LONGEST_LINE = 1 << 20
"""Bytes without a line end after which they are passed on as they are."""
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d) ?")


class Position(msgspec.Struct):
    """Up to where a log was read: lines by the second they were written in, of the last two such seconds."""

    newest: int = 0
    lines: dict[int, int] = {}

    @property
    def since(self) -> str:
        """From which second on the log has to be read again; empty: from its beginning."""
        if not self.lines:
            return ""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(self.lines)))


class Reader:
    """Turns a log's bytes into the lines that are new; `write` gets them without their time stamps."""

    def __init__(self, position: Position, write: Callable[[bytes], object]) -> None:
        self.position = position
        self._write = write
        self._rest = b""
        self._begins = True
        self._passing = 0

    def begin(self) -> None:
        """The log is read from `position.since` on again."""
        self._rest = b""
        self._begins = True
        self._passing = sum(self.position.lines.values())

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the log."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        fresh = b"".join(self._take(line + b"\n") for line in lines)
        if len(self._rest) > LONGEST_LINE and not self._passing:
            fresh += self._take(self._rest)
            self._rest, self._begins = b"", False
        if fresh:
            self._write(fresh)

    def end(self) -> None:
        """The log is over: what stands there without a line end is a line, too."""
        fresh = self._take(self._rest) if self._rest else b""
        self._rest = b""
        if fresh:
            self._write(fresh)

    def _take(self, line: bytes) -> bytes:
        begins, self._begins = self._begins, line.endswith(b"\n")
        found = _STAMP.match(line) if begins else None
        if found is None:
            return b"" if self._passing else line  # the rest of a long line, or words of the cluster's own
        second = _second(found[1].decode(), found[2].decode())
        if self._passing and second <= self.position.newest:
            self._passing -= 1
            return b""
        self._passing = 0
        self._count(second)
        return line[found.end() :]

    def _count(self, second: int) -> None:
        position = self.position
        position.newest = max(position.newest, second)
        lines = {**position.lines, second: position.lines.get(second, 0) + 1}
        position.lines = {each: count for each, count in lines.items() if each >= position.newest - 1}


async def follow(
    cluster: Cluster,
    pod: str,
    container: str,
    reader: Reader,
    ended: Callable[[], bool],
    *,
    namespace: str = "",
    changed: Callable[[Position], object] = lambda _position: None,
) -> None:
    """Pass on the log until the container has ended and all of it was read. `changed` is told how far it is.

    A log that cannot be had any more when the container has ended (its node is gone) ends it, too. Raises
    DependencyFailed when it may not be read.
    """
    pause = FIRST_PAUSE
    while True:
        over = ended()
        try:
            await _read(cluster, pod, container, reader, follow_on=not over, namespace=namespace, changed=changed)
            pause = FIRST_PAUSE if not over else pause
            if over:
                reader.end()
                return
        except DependencyFailed as error:
            if error.hint == PERMISSIONS:
                raise
            if over and pause >= LONGEST_PAUSE:
                return
        if not ended() or over:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


async def _read(
    cluster: Cluster, pod: str, container: str, reader: Reader, *, follow_on: bool, namespace: str,
    changed: Callable[[Position], object],
) -> None:  # fmt: skip
    params = {"container": container, "timestamps": "true"}
    if follow_on:
        params["follow"] = "true"
    if since := reader.position.since:
        params["sinceTime"] = since
    reader.begin()
    silence = SILENCE if follow_on else 10.0
    async for chunk in log_chunks(cluster, pod, params, namespace=namespace, silence=silence):
        reader.feed(chunk)
        changed(reader.position)


@lru_cache(maxsize=64)
def _second(stamp: str, zone: str) -> int:
    second = calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S"))
    if zone == "Z":
        return second
    hours, minutes = zone[1:].split(":")
    offset = int(hours) * 3600 + int(minutes) * 60
    return second - offset if zone[0] == "+" else second + offset
