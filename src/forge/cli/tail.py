"""New lines of growing logs, by byte offset, so that it works whoever writes them, and wherever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from forge.service.base import LogPart

CHUNK = 64 * 1024
LONGEST_LINE = 16 * 1024
"""A line without an end is shown in pieces of this size, so that memory stays bounded."""
Read = Callable[[int, int], Awaitable[LogPart]]
"""From an offset (negative: from the end) and a count of bytes to a piece of a log."""


class LogTail:
    """Reads a log from where it stopped. A log that shrank is read from its start again."""

    def __init__(self, read: Read, offset: int = 0) -> None:
        self.read = read
        self.offset = offset
        self.backlog = 0
        """How many bytes were not read yet when it was looked at last."""
        self._rest = b""

    async def lines(self, *, at_most: int = CHUNK, ended: bool = False) -> list[str]:
        """Return the whole lines of the next `at_most` bytes; `ended`: also a last line without a newline."""
        part = await self.read(self.offset, at_most)
        if part.size < self.offset:
            self.offset, self._rest = 0, b""
            part = await self.read(0, at_most)
        self.offset = part.offset + len(part.data)
        self.backlog = max(0, part.size - self.offset)
        *whole, self._rest = (self._rest + part.data).split(b"\n")
        if len(self._rest) > LONGEST_LINE or (ended and self._rest and self.backlog == 0):
            whole.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in whole]


async def last_lines(read: Read, count: int) -> tuple[list[str], int]:
    """Return the last `count` lines of a log without reading all of it, and the offset behind them."""
    end = await read(-1, 1)
    size = end.size
    taken = b""
    position = size
    while position > 0 and taken.count(b"\n") <= count:
        begin = max(0, position - CHUNK)
        taken = (await read(begin, position - begin)).data + taken
        position = begin
    lines = taken.decode("utf-8", "replace").splitlines()
    return lines[-count:] if count > 0 else [], size
