"""`logs`: the error lines that the replicas of this machine's target write, read from their own log files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from forge.adapters.signals.base import Field, QueryResult, Reading, Source
from forge.adapters.signals.log_files import FIRST_LOOK, GrowingLog, Piece, Place
from forge.adapters.signals.log_lines import Format, LineReader
from forge.adapters.signals.registry import SourceContext
from forge.adapters.signals.templates import LogKinds
from forge.adapters.targets.local.folders import EnvironmentFolder, path_element
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import SourcePlan

FILES_KEPT = 2000
"""Places in logs that are remembered."""
AT_ONCE = 4 * 1024 * 1024
"""Bytes of all logs together that one reading takes."""


KINDS_AT_ONCE = 1000
"""Error lines of a version whose kinds one reading tells; those beyond are counted only."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`errors`: what an error line looks like, instead of its level; `ignore`: what is no error (regular expressions)."""

    errors: str = ""
    ignore: tuple[str, ...] = ()
    format: Format = "auto"


class ProcessLogs:
    """Counts the error lines of each version's replicas. A version without a log has no word. See Source."""

    def __init__(self, name: str, folder: EnvironmentFolder, config: Config) -> None:
        self.name = name
        self._folder = folder
        self._reader = LineReader(config.errors, config.ignore, config.format)
        self._kinds = LogKinds()
        self._logs: dict[str, GrowingLog] = {}
        self._waiting: dict[str, int] = {}
        """Where a log ended when its last error was still open: if nothing was added since, the error is complete."""
        self._sorted = 0
        self._known: set[str] = set()
        """Versions that were read before: a log of theirs that is new is read from its beginning."""

    @property
    def gives(self) -> frozenset[Field]:
        """Error lines and their kinds. See Source."""
        return frozenset({"logs", "templates"})

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Read what was written since the last time. See Source."""
        return await asyncio.to_thread(self._read, version_ids, now)

    def _read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        found = {}
        left = AT_ONCE
        several = {version: self._paths(version) for version in version_ids}
        for place, (version, paths) in enumerate(several.items()):
            if paths is None:
                continue
            share = left // (len(several) - place)  # nobody's flood of lines keeps others from being read
            fresh = version not in self._known
            self._sorted = 0
            for path in paths:
                taken = self._take(version, path, FIRST_LOOK if fresh else None, share)
                left, share = left - taken, share - taken
            self._known.add(version)
            found[version] = Reading(
                at=now, log_errors=self._kinds.total(version), templates=self._kinds.told(version)
            )  # fmt: skip
        return found

    def _paths(self, version: str) -> list[Path] | None:
        folder = self._folder.logs / path_element(version)
        try:
            paths = sorted(path for path in folder.iterdir() if path.suffix == ".log")
        except FileNotFoundError:
            self._forget(folder, [])
            return None
        except OSError as error:
            raise DependencyFailed(
                f"{self.name}: the logs of {version} cannot be read: {error.strerror}", hint=f"look at {folder}"
            ) from None
        self._forget(folder, paths)
        return paths or None

    def _forget(self, folder: Path, paths: list[Path]) -> None:
        here, kept = f"{folder.name}/", {self._key(path) for path in paths}
        for key in [key for key in self._logs if key.startswith(here) and key not in kept]:
            del self._logs[key]
            self._waiting.pop(key, None)

    def _take(self, version: str, path: Path, first_look: int | None, most: int) -> int:
        """Count what is new in one log; return how many bytes that was."""
        if most <= 0:
            return 0
        key = self._key(path)
        log = self._logs.setdefault(key, GrowingLog(path))
        try:
            piece = log.read(first_look=first_look, most=min(most, 1024 * 1024))
        except FileNotFoundError:
            self._logs.pop(key, None)
            return 0
        except OSError as error:
            raise DependencyFailed(f"{self.name}: {path} cannot be read: {error.strerror}") from None
        if not piece.lines or log.place is None:
            return 0
        before = log.place.position
        self._count(version, key, log, piece)
        return max(0, piece.ends[-1] - before)

    def _count(self, version: str, key: str, log: GrowingLog, piece: Piece) -> None:
        index = 0
        for error, complete in self._reader.errors(piece.lines):
            if not complete and not piece.ended and self._waiting.get(key) != piece.ends[-1]:
                self._waiting[key] = piece.ends[-1]
                return
            if error is not None and self._sorted < KINDS_AT_ONCE:
                self._kinds.add(version, error.whole, shown=error.text)
                self._sorted += 1
            elif error is not None:
                self._kinds.count(version)
            index += complete or (error.lines if error else 0)
            log.done(piece.ends[index - 1])
        self._waiting.pop(key, None)

    def _key(self, path: Path) -> str:
        return f"{path.parent.name}/{path.name}"

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Tell how many error lines were counted. See Source."""
        try:
            found = await self.read(version_ids, now)
        except DependencyFailed as error:
            return [QueryResult("error lines", str(self._folder.logs), problem=error.message)]
        values = {version: _count_of(found.get(version)) for version in version_ids}
        return [QueryResult("error lines", str(self._folder.logs), values, self._skipped(), now, "lines")]

    def _skipped(self) -> str:
        skipped = sum(log.place.skipped for log in self._logs.values() if log.place)
        return f"{skipped} bytes were skipped: they were too many to read" if skipped else ""

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Source."""
        places = {key: msgspec.to_builtins(log.place) for key, log in self._logs.items() if log.place}
        kept = dict(list(places.items())[-FILES_KEPT:])
        return {"places": kept, "kinds": self._kinds.state(), "versions": sorted(self._known)[-FILES_KEPT:]}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from `state`. See Source."""
        try:
            saved = msgspec.convert(state, _Saved)
        except msgspec.ValidationError:
            return
        self._kinds.restore(saved.kinds)
        self._known = set(saved.versions)
        self._waiting = {}
        self._logs = {
            key: GrowingLog(self._folder.logs / key, place)
            for key, place in saved.places.items()
            if key.count("/") == 1 and ".." not in key
        }

    async def close(self) -> None:
        """Nothing is held open. See Source."""


class _Saved(msgspec.Struct):
    places: dict[str, Place] = {}
    kinds: dict[str, object] = {}
    versions: list[str] = []


def _count_of(reading: Reading | None) -> float | None:
    return None if reading is None or reading.log_errors is None else float(reading.log_errors)


def open_logs(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener. Raises UsageError on a target that keeps no logs on this machine."""
    if context.environment.target != "local":
        raise UsageError(
            f"environment {context.environment.name}, signals `{plan.name}`: target `{context.environment.target}` "
            "keeps no logs on this machine",
            hint="read them from where they are collected: `elasticsearch` or `loki`",
        )
    return ProcessLogs(plan.name, EnvironmentFolder(context.folder), msgspec.convert(plan.config, Config))
