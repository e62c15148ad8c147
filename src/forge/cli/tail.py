"""New lines of growing log files, by byte offset, so that it works whoever writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

CHUNK = 64 * 1024
LONGEST_LINE = 16 * 1024
"""A line without an end is shown in pieces of this size, so that memory stays bounded."""


@dataclass(slots=True)
class LogTail:
    """Reads a file from where it stopped. A file that shrank is read from its start again."""

    path: Path
    offset: int = 0
    _rest: bytes = field(default=b"", repr=False)

    def backlog(self) -> int:
        """Return how many bytes are not read yet; 0 for a file that is not there."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return 0
        return size - self.offset if size >= self.offset else size

    def skip_to_last(self, count: int) -> int:
        """Jump to the last `count` bytes, at a line's start; return how many bytes were skipped."""
        skipped = self.backlog() - count
        if skipped <= 0:
            return 0
        self.offset += skipped
        self._rest = b""
        lines = self._read(LONGEST_LINE)
        head, newline, _ = lines.partition(b"\n")
        self.offset += len(head) + 1 if newline else 0
        return skipped + (len(head) + 1 if newline else 0)

    def lines(self, *, at_most: int = CHUNK, ended: bool = False) -> list[str]:
        """Return the whole lines of the next `at_most` bytes; `ended`: also a last line without a newline."""
        if self.backlog() == 0 and not (ended and self._rest):
            return []
        try:
            if self.path.stat().st_size < self.offset:
                self.offset, self._rest = 0, b""
        except OSError:
            return []
        data = self._read(at_most)
        self.offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE or (ended and self._rest and self.backlog() == 0):
            whole.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "replace").rstrip("\r") for line in whole]

    def _read(self, count: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(count)
        except OSError:
            return b""


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last `count` lines of a file without reading all of it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            taken = b""
            position = size
            while position > 0 and taken.count(b"\n") <= count:
                step = min(CHUNK, position)
                position -= step
                file.seek(position)
                taken = file.read(step) + taken
    except OSError:
        return []
    lines = taken.decode("utf-8", "replace").splitlines()
    return lines[-count:] if count > 0 else []
