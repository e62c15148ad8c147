"""Hides secrets in streams of output, and writes the logs of steps.

A secret is hidden as its value, as each of its lines, and in the encodings that tools print it in. The
output is cut at arbitrary places by the operating system, so whatever might be the beginning of a secret
is held back until it is known; nothing else is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from forge.adapters.runners.base import OutputSink
from forge.adapters.secret_forms import SHORTEST, Heads, any_of, forms

MASK = b"***"
LONGEST_LINE = 16 * 1024
"""Bytes of a line that a listener gets; the file has all of it."""
CUT = " … (line cut)"


class Masker:
    """Masks a set of secrets in one stream of bytes. Not to be shared between streams.

    For every way to cut a text, `feed` of the pieces and `flush` return together what `mask` of the whole
    returns: each stretch of overlapping secrets becomes one `***`.
    """

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        values = secrets or {}
        self.too_short = tuple(name for name, value in values.items() if 0 < len(value.strip()) < SHORTEST)
        """Names of the secrets that are not masked because they are too short; the caller warns of them."""
        needles: set[bytes] = set()
        for value in values.values():
            needles.update(forms(value))
        self._search = any_of(needles)
        self._heads = Heads(needles)
        self._held = b""
        self._covered = 0
        """How many bytes at the start of what is held belong to a stretch whose `***` is already out."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what can be shown now."""
        if self._search is None:
            return data
        text = self._held + data
        return self._emit(text, self._heads.first_possible(text))

    def flush(self) -> bytes:
        """Return what is held back: the stream has ended, so it is not the beginning of a secret after all."""
        text = self._held
        return self._emit(text, len(text)) if text else b""

    def mask(self, text: str) -> str:
        """Return a whole text masked; independent of the stream."""
        if self._search is None:
            return text
        pieces, end = self._stretches(text.encode(errors="surrogateescape"), 0, None)
        return b"".join([*pieces, text.encode(errors="surrogateescape")[end:]]).decode(errors="surrogateescape")

    def fresh(self) -> Masker:
        """Return a masker of the same secrets for another stream."""
        other = object.__new__(Masker)
        other.too_short, other._search, other._heads = self.too_short, self._search, self._heads
        other._held, other._covered = b"", 0
        return other

    def _emit(self, text: bytes, until: int) -> bytes:
        pieces, end = self._stretches(text, self._covered, until)
        if end < until:
            pieces.append(text[end:until])
        self._held = text[until:]
        self._covered = max(end - until, 0)
        return b"".join(pieces)

    def _stretches(self, text: bytes, covered: int, until: int | None) -> tuple[list[bytes], int]:
        """Return the output up to the end of the last stretch that starts before `until`, and that end."""
        pieces: list[bytes] = []
        end = covered
        search = self._search
        if search is None:
            return pieces, end
        last = len(text) if until is None else until
        found = search.search(text)
        while found is not None and found.start() < last:
            if found.start() >= end:
                pieces += (text[end : found.start()], MASK)
            end = max(end, found.end())
            found = search.search(text, found.start() + 1)
        return pieces, end


class StepLog(OutputSink):
    """An `OutputSink` that appends to `path`, with secrets masked and ANSI kept.

    Masked bytes reach the file with each `write`, so the log can be followed live; only what may be the
    beginning of a secret waits. `on_line` is called for each complete line without its line end. A full
    disk does not stop the step: writing stops, and `problem` says why.
    """

    def __init__(
        self, path: Path, masker: Masker | None = None, *, on_line: Callable[[str], None] | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.problem = ""
        self._masker = (masker or Masker()).fresh()
        self._lines = _Lines(on_line) if on_line else None
        self._ends_line = True
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if data:
            self._ends_line = data.endswith(b"\n")
            self._put(self._masker.feed(data))

    def say(self, line: str) -> None:
        """Write one line of Forge's own, on a line of its own."""
        text = line.encode(errors="replace") + b"\n"
        self.write(text if self._ends_line else b"\n" + text)

    def mask(self, text: str) -> str:
        """Return a text with this step's secrets masked."""
        return self._masker.mask(text)

    def close(self) -> None:
        """Write what is held back and close the file. May be called again."""
        if self._file < 0:
            return
        self._put(self._masker.flush())
        if self._lines:
            self._lines.end()
        os.close(self._file)
        self._file = -1

    def __enter__(self) -> StepLog:
        """Return itself; closes at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, data: bytes) -> None:
        if not data:
            return
        if self._lines:
            self._lines.feed(data)
        rest = memoryview(data)
        try:
            while rest and not self.problem:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self.problem = f"the log could not be written: {error.strerror}"


class _Lines:
    """Cuts bytes into lines of bounded length."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """Call the listener for each line that is complete now."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._append(line)
            self.end(even_empty=True)
        self._append(rest)

    def end(self, *, even_empty: bool = False) -> None:
        """The line is complete, or the stream has ended."""
        if not self._skipping and (self._rest or even_empty):
            self._on_line(self._rest.removesuffix(b"\r").decode(errors="replace"))
        self._rest = b""
        self._skipping = False

    def _append(self, piece: bytes) -> None:
        if self._skipping or not piece:
            return
        self._rest += piece
        if len(self._rest) > LONGEST_LINE:
            self._on_line(self._rest[:LONGEST_LINE].decode(errors="replace") + CUT)
            self._rest = b""
            self._skipping = True
