"""Logs that a store keeps (Elasticsearch, Loki): error lines counted by the store, and a few of them fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from forge.adapters.signals.base import Field, QueryResult, Reading
from forge.adapters.signals.counters import LATE, IntervalSums
from forge.adapters.signals.log_lines import LineReader
from forge.adapters.signals.templates import LogKinds
from forge.model.errors import DependencyFailed, ForgeError

MOST_LINES = 100
"""Newest error lines of a version that one reading fetches to tell their kinds."""
OVERLAP = 30.0
"""Seconds that are fetched again, for lines that reached the store late; each line counts once."""
REMEMBERED = 1000
"""Lines of a version that are known to have been fetched."""


class VersionCounts(msgspec.Struct, frozen=True):
    """What a store counted of one version: {beginning of an interval: error lines}, and when its newest line is from."""

    errors: dict[float, float]
    newest: float | None = None


class StoredLine(msgspec.Struct, frozen=True):
    """One error line. `key` tells it apart from every other one."""

    key: str
    text: str


class LogStore(Protocol):
    """Raises DependencyFailed for whatever is not a whole answer: a part of the lines is never told as all."""

    def query(self) -> str:
        """Return what is asked, for people."""

    async def counts(self, version_ids: Sequence[str], start: float, end: float) -> dict[str, VersionCounts]:
        """Return the counts of the versions that wrote anything in [start, end); `start` is aligned to the step."""

    async def lines(self, version_ids: Sequence[str], start: float, end: float) -> dict[str, list[StoredLine]]:
        """Return the newest error lines of each version, at most `MOST_LINES`, the newest first."""

    async def close(self) -> None:
        """Let go of connections."""


class StoredLogs:
    """Reads a `LogStore`. A version that wrote no line at all within 10 minutes has no word. See Source."""

    def __init__(self, name: str, store: LogStore, step: float) -> None:
        self.name = name
        self._store = store
        self._step = step
        self._sums = IntervalSums(step)
        self._kinds = LogKinds()
        self._reader = LineReader()
        self._fetched: dict[str, tuple[float, list[str]]] = {}
        """Up to when the lines of a version were fetched, and the keys of the newest of them."""
        self._told: dict[str, int] = {}

    @property
    def gives(self) -> frozenset[Field]:
        """Error lines and their kinds. See Source."""
        return frozenset({"logs", "templates"})

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Ask for the counts, and where they have grown for the newest lines. See Source."""
        if not version_ids:
            return {}
        found = await self._store.counts(version_ids, self._start(now), now)
        present = [version for version in version_ids if version in found]
        sums = self._sums.take({version: found[version].errors for version in present}, now)
        await self._fetch(present, found, {version: round(sums[version]) for version in present}, now)
        readings = {}
        for version in present:
            newest = found[version].newest
            readings[version] = Reading(
                at=min(now, newest) if newest is not None else now,
                good_for=max(15.0, 3 * self._step),
                log_errors=round(sums[version]),
                templates=self._kinds.told(version),
            )
        return readings

    def _start(self, now: float) -> float:
        self._sums.since(now)
        return ((now - LATE) // self._step) * self._step

    async def _fetch(
        self, present: list[str], found: Mapping[str, VersionCounts], sums: Mapping[str, int], now: float
    ) -> None:
        grown = [
            version
            for version in present
            if sums[version] != self._told.get(version, 0)
            or (version not in self._fetched and any(found[version].errors.values()))
        ]
        if not grown:
            return
        start = min(self._fetched[version][0] - OVERLAP if version in self._fetched else 0.0 for version in grown)
        for version, lines in (await self._store.lines(grown, max(start, now - LATE), now)).items():
            self._take(version, lines, now)
        self._told.update({version: sums[version] for version in grown})
        if len(self._told) > REMEMBERED:
            self._told = dict(list(self._told.items())[-REMEMBERED:])

    def _take(self, version: str, lines: list[StoredLine], now: float) -> None:
        known = self._fetched.pop(version, (0.0, []))[1]
        seen = set(known)
        for line in reversed(lines):
            if line.key not in seen:
                seen.add(line.key)
                known.append(line.key)
                whole, shown = self._told_of(line.text)
                self._kinds.add(version, whole, shown=shown)
        self._fetched[version] = (now, known[-REMEMBERED:])
        if len(self._fetched) > 50:
            del self._fetched[next(iter(self._fetched))]

    def _told_of(self, text: str) -> tuple[str, str]:
        """Return what tells the kind of a line, which may be many with a stack trace, and what is shown of it."""
        lines = text[:20_000].strip().splitlines() or [""]
        error = next((error for error, _ in self._reader.errors(lines) if error is not None), None)
        return (error.whole, error.text) if error is not None else (lines[0], lines[0])

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Tell how many error lines there were in the last ten minutes. See Source."""
        query = self._store.query()
        try:
            found = await self._store.counts(version_ids or ["(no version)"], self._start(now), now)
        except ForgeError as error:
            return [QueryResult("error lines", query, problem=_told(error))]
        values = {version: sum(found[version].errors.values()) if version in found else None for version in version_ids}
        newest = [one.newest for one in found.values() if one.newest is not None]
        return [QueryResult("error lines", query, values, at=max(newest, default=None), unit="lines in 10 min")]

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Source."""
        fetched = {version: [at, keys[-MOST_LINES:]] for version, (at, keys) in self._fetched.items()}
        return {"sums": self._sums.state(), "kinds": self._kinds.state(), "fetched": fetched, "told": self._told}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`. See Source."""
        try:
            saved = msgspec.convert(state, _Saved)
        except msgspec.ValidationError:
            return
        self._sums.restore(saved.sums)
        self._kinds.restore(saved.kinds)
        self._fetched, self._told = saved.fetched, saved.told

    async def close(self) -> None:
        """Let go of connections. See Source."""
        await self._store.close()


class _Saved(msgspec.Struct):
    sums: dict[str, object] = {}
    kinds: dict[str, object] = {}
    fetched: dict[str, tuple[float, list[str]]] = {}
    told: dict[str, int] = {}


def _told(error: ForgeError) -> str:
    hint = getattr(error, "hint", "")
    return f"{error.message}; {hint}" if hint else error.message


def misshapen(name: str, what: str) -> DependencyFailed:
    """Return the error for an answer in which something is not where it belongs."""
    return DependencyFailed(f"{name}: answered without {what}", hint="is the URL that of the store's API?")
