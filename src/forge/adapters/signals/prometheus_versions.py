"""Which version a series belongs to, by what its labels look like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from forge.adapters.signals.queried import filled

EXACTLY = "$version"


class Versions:
    """Finds the versions of an environment in the label `label`, whose whole value looks as `pattern` says.

    In a pattern of its own, what stands between the parts of a version's name may be any of `.`, `-`, `_` and `+`:
    many systems write 1.4.0 as 1-4-0. Where two versions fit, it is the one with the longer name. `first`: a label
    that decides where it is not empty (a canary of ingress-nginx is named apart from the service).
    """

    def __init__(
        self, version_ids: Sequence[str], label: str, pattern: str, environment: str, *, first: str = ""
    ) -> None:
        self._label, self._first = label, first
        self._exact = {version for version in version_ids if pattern == EXACTLY}
        quote = re.escape if pattern == EXACTLY else loosely
        longest = sorted(version_ids, key=lambda version: (-len(version), version))
        self._ids = longest
        self._patterns = [filled(pattern, version, environment, quote) for version in longest]
        self._found: dict[str, str | None] = {}
        self._any: re.Pattern[str] | None = None

    def matchers(self) -> list[str]:
        """Return the label matchers that find the series of all of these versions; one query each."""
        every = "|".join(self._patterns).replace("\\", "\\\\").replace('"', '\\"')
        if not self._first:
            return [f'{self._label}=~"{every}"']
        return [f'{self._label}=~"{every}",{self._first}=""', f'{self._first}=~"{every}"']

    def of(self, labels: Mapping[str, str]) -> str | None:
        """Return the version that a series counts for; None: none of these."""
        value = (labels.get(self._first, "") if self._first else "") or labels.get(self._label, "")
        if value in self._exact:
            return value
        if value not in self._found:
            self._found[value] = self._search(value)
        return self._found[value]

    def _search(self, value: str) -> str | None:
        if self._exact or not value:
            return None
        if self._any is None:
            # A group of its own around each, which the last of them to close names.
            self._any = re.compile("|".join(f"(?P<v{at}>(?:{text}))" for at, text in enumerate(self._patterns)))
        found = self._any.fullmatch(value)
        named = found.groupdict() if found else {}
        return next((self._ids[int(name[1:])] for name, text in named.items() if text is not None), None)


def loosely(version: str) -> str:
    """Return a regular expression of a version as names of pods and services write it."""
    return re.sub(r"\\?[.\-_+]", "[-._+]", re.escape(version))
