"""Reading what is added to log files that grow, rotate, are emptied or go away; no byte twice, and never too many."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

LONGEST_LINE = 64 * 1024
"""Bytes after which a line is cut: a file without line ends is not kept in memory."""
FIRST_LOOK = 512 * 1024
"""Bytes at the end of a log that is seen for the first time: what a running version wrote before tells its kinds."""
AT_ONCE = 1024 * 1024
"""Bytes of one log that are read at once; the rest comes with the next reading."""
TOO_MUCH = 8 * 1024 * 1024
"""Bytes that were added since the last reading, beyond which the older ones are skipped."""


class Place(msgspec.Struct, omit_defaults=True):
    """How far a log was read. `inode` tells a new file of the same name; `aside` the newest rotation."""

    inode: int
    position: int
    aside: int = 0
    skipped: int = 0
    """Bytes that were never read because there were too many."""


class Piece(msgspec.Struct):
    """Whole lines that were read of one file, with where each ends in it, and whether the file has been rotated."""

    lines: list[str]
    ends: list[int]
    ended: bool = False
    """The file is complete: what is open at its end is over."""


class GrowingLog:
    """One log. `read` returns what is new; `done` tells how much of that will not be asked for again."""

    def __init__(self, path: Path, place: Place | None = None) -> None:
        self.path = path
        self.place = place
        self._aside = path.with_name(f"{path.name}.1")
        self._coming = path.with_name(f"{path.name}.new")

    def read(self, *, first_look: int | None = None, most: int = AT_ONCE) -> Piece:
        """Return new whole lines. `first_look`: bytes at the end of a log that is not known; None: all of it.

        Raises FileNotFoundError when there is no log.
        """
        found = self.path.stat()
        rotated = self._rotation()
        if self.place is None or self.place.inode != found.st_ino:
            self.place = self._beginning(found.st_ino, found.st_size, rotated, first_look)
        place = self.place
        if rotated != place.aside:
            piece = self._rest(self._aside, place.position, most)
            if piece.lines:
                return piece
            place.position, place.aside = 0, rotated
        elif found.st_size < place.position:
            if self._coming.exists() or self._rotation() != rotated:
                return Piece([], [])  # in the middle of a rotation: the rest is in the other file in a moment
            place.position = 0
        self._skip(found.st_size)
        return self._lines(self.path, place.position, most)

    def done(self, end: int) -> None:
        """Everything up to this end of a line is dealt with."""
        if self.place is not None:
            self.place.position = end

    def _beginning(self, inode: int, size: int, rotated: int, first_look: int | None) -> Place:
        start = 0 if first_look is None else max(0, size - first_look)
        place = Place(inode, start, rotated)
        if start:
            # The first line is not whole: it begins somewhere before.
            head = _bytes(self.path, start, LONGEST_LINE)
            place.position = start + head.find(b"\n") + 1
        return place

    def _skip(self, size: int) -> None:
        place = self.place
        if place is None or size - place.position <= TOO_MUCH:
            return
        start = size - AT_ONCE
        start += _bytes(self.path, start, LONGEST_LINE).find(b"\n") + 1
        place.skipped += start - place.position
        place.position = start

    def _rest(self, path: Path, position: int, most: int) -> Piece:
        """Return what is left of a file that is written no more; its last line may lack its end."""
        try:
            piece = self._lines(path, position, most)
            if not piece.lines and (tail := _bytes(path, position, LONGEST_LINE)):
                piece = Piece([_text(tail)], [position + len(tail)])
        except FileNotFoundError:
            return Piece([], [])
        piece.ended = True
        return piece

    def _lines(self, path: Path, position: int, most: int) -> Piece:
        data = _bytes(path, position, most)
        *whole, rest = data.split(b"\n")
        if len(rest) >= min(LONGEST_LINE, most):
            whole.append(rest)
        piece = Piece([], [])
        end = position
        for line in whole:
            end += len(line) + 1
            piece.lines.append(_text(line))
            piece.ends.append(min(end, position + len(data)))
        return piece

    def _rotation(self) -> int:
        try:
            return self._aside.stat().st_mtime_ns
        except OSError:
            return 0


def _text(line: bytes) -> str:
    return line[:LONGEST_LINE].decode(errors="replace")


def _bytes(path: Path, position: int, most: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, most, position)
    finally:
        os.close(descriptor)
