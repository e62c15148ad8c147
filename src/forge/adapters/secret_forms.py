"""The spellings in which a secret may be printed, and how a text is searched for them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Characters. Masking shorter values would make logs unreadable and tell the value by what is missing."""


def forms(value: str) -> Iterator[bytes]:
    """Yield every spelling under which a secret is hidden; none for a value that is too short."""
    spellings = {value, value.strip(), *(line.strip() for line in value.splitlines())}
    for spelling in spellings:
        if len(spelling) < SHORTEST:
            continue
        raw = spelling.encode(errors="surrogateescape")
        encoded = [raw, json.dumps(spelling)[1:-1].encode(), *_base64_forms(raw)]
        for percent in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
            encoded += (percent.encode(), re.sub("%..", lambda found: found[0].lower(), percent).encode())
        yield from (form for form in encoded if len(form) >= SHORTEST)


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """Yield base64 of the secret alone and as it looks inside something longer, where only the characters
    that do not depend on the neighbours are known: three alignments (`user:password` is the usual case)."""
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        yield encode(raw).rstrip(b"=")
        for before in range(3):
            start = (before * 8 + 5) // 6
            end = (before + len(raw)) * 8 // 6
            known = encode(b"\0" * before + raw + b"\0\0")[start:end]
            if len(known) >= 2 * SHORTEST:  # shorter ones would hide innocent words
                yield known


class Heads:
    """Finds where the end of a text may be the beginning of a needle, without trying every needle everywhere."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._by_head: dict[bytes, list[bytes]] = {}
        self._short: set[bytes] = set()
        self._longest = 0
        for needle in needles:
            self._by_head.setdefault(needle[:SHORTEST], []).append(needle)
            self._short.update(needle[:length] for length in range(1, SHORTEST))
            self._longest = max(self._longest, len(needle))
        self._pattern = any_of(self._by_head)

    def first_possible(self, text: bytes) -> int:
        """Return the first index from which on the text is a proper prefix of a needle, or its length."""
        size = len(text)
        start = max(size - self._longest + 1, 0)
        found = self._pattern.search(text, start) if self._pattern else None
        while found is not None:
            tail = text[found.start() :]
            if any(len(needle) > len(tail) and needle.startswith(tail) for needle in self._by_head[found[0]]):
                return found.start()
            found = self._pattern.search(text, found.start() + 1) if self._pattern else None
        for length in range(min(SHORTEST - 1, size), 0, -1):
            if text[size - length :] in self._short:
                return size - length
        return size


def any_of(words: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Return a pattern that finds the longest word at the leftmost place, or None when there is no word."""
    alternatives = sorted(set(words), key=len, reverse=True)
    return re.compile(b"|".join(re.escape(word) for word in alternatives)) if alternatives else None
