"""`loki`: error lines in Grafana Loki, counted by version and time with LogQL."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from forge.adapters.signals.base import Source
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.registry import SourceContext
from forge.adapters.signals.stored_logs import MOST_LINES, StoredLine, StoredLogs, VersionCounts, misshapen
from forge.model.errors import DependencyFailed
from forge.model.plan import SourcePlan

Levels = Literal["detected", "label", "json", "logfmt", "text"]
AT_ONCE = 6
"""Requests that are under way at the same time."""
_WORDS = "error|err|fatal|critical|crit|panic|emergency|emerg|alert|severe"
_PLACEHOLDER = re.compile(r"\$(?:(version|environment)\b|\{(version|environment)\})")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`query` is a LogQL log query; `version` the label that tells versions apart, unless `$version` stands in it.

    `levels` says where the level is found: Loki's own `detected_level`, the label `level`, the field `level` of
    JSON or logfmt, or a word in the text. `errors` is a pipeline that replaces this.
    """

    http: HttpConfig
    query: str
    version: str = "version"
    level: str = "level"
    levels: Levels = "detected"
    errors: str = ""
    tenant: str = ""
    step: float = 10.0


class LokiStore:
    """Asks `query_range`. See LogStore."""

    def __init__(self, name: str, config: Config, client: StoreClient, environment: str) -> None:
        self._name = name
        self._config = config
        self._client = client
        self._environment = environment
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._apart = bool(re.search(r"\$(?:version\b|\{version\})", config.query))

    def query(self) -> str:
        """Return the query of the error lines. See LogStore."""
        return f"{self._config.query} {self._pipeline()}"

    async def counts(self, version_ids: Sequence[str], start: float, end: float) -> dict[str, VersionCounts]:
        """Count all lines and the error lines: who writes none at all is not known. See LogStore."""
        whole, errors = await asyncio.gather(
            self._counted(version_ids, "", start, end), self._counted(version_ids, self._pipeline(), start, end)
        )
        step = self._config.step
        return {
            version: VersionCounts(errors.get(version, {}), max(points) + step)
            for version, points in whole.items()
            if points
        }

    async def lines(self, version_ids: Sequence[str], start: float, end: float) -> dict[str, list[StoredLine]]:
        """Fetch the newest lines of each version. See LogStore."""
        found = await asyncio.gather(*(self._newest(version, start, end) for version in version_ids))
        return dict(zip(version_ids, found, strict=True))

    async def close(self) -> None:
        """Let go of connections. See LogStore."""
        await self._client.close()

    async def _counted(
        self, version_ids: Sequence[str], pipeline: str, start: float, end: float
    ) -> dict[str, dict[float, float]]:
        """Return {beginning of an interval: lines} by version."""
        step = self._config.step
        if self._apart:
            asked = [(version, f"sum(count_over_time({self._log(version, pipeline)} [{_span(step)}]))")
                     for version in version_ids]  # fmt: skip
        else:
            label = self._config.version
            several = self._several(version_ids, pipeline)
            asked = [("", f"sum by ({label}) (count_over_time({several} [{_span(step)}]))")]
        # The point at T counts what lies in the step before T; points that are multiples of the step stay where
        # they are when Loki aligns them.
        span = {"start": _nanoseconds(start + step), "end": _nanoseconds(math.ceil(end / step) * step)}
        answers = await asyncio.gather(*(self._ask(query, {**span, "step": f"{step:g}"}) for _, query in asked))
        found: dict[str, dict[float, float]] = {}
        for (version, _), (kind, rows) in zip(asked, answers, strict=True):
            if kind != "matrix":
                raise misshapen(self._name, "counts by time (a matrix)")
            for row in rows:
                labels = row.get("metric")
                name = version or (labels.get(self._config.version, "") if isinstance(labels, dict) else "")
                if name in version_ids:
                    points = found.setdefault(name, {})
                    for at, count in self._points(row):
                        points[at - step] = points.get(at - step, 0.0) + count
        return found

    async def _newest(self, version: str, start: float, end: float) -> list[StoredLine]:
        pipeline = self._pipeline()
        query = self._log(version, pipeline) if self._apart else self._several([version], pipeline)
        span = {"start": _nanoseconds(start), "end": _nanoseconds(end)}
        kind, rows = await self._ask(query, {**span, "limit": str(MOST_LINES), "direction": "backward"})
        if kind != "streams":
            raise misshapen(self._name, "lines (streams)")
        lines = [entry for row in rows for entry in self._entries(row)]
        lines.sort(reverse=True)
        return [StoredLine(key, text) for _, key, text in lines[:MOST_LINES]]

    async def _ask(self, query: str, params: Mapping[str, str]) -> tuple[str, list[dict[str, Any]]]:
        headers = {"X-Scope-OrgID": self._config.tenant} if self._config.tenant else {}
        async with self._gate:
            answer = await self._client.json(
                "POST", "/loki/api/v1/query_range", form={"query": query, **params}, headers=headers
            )
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, dict) or answer.get("status") != "success":
            raise misshapen(self._name, "a result")
        rows = data.get("result")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise misshapen(self._name, "a list of results")
        self._whole(answer, data)
        return str(data.get("resultType")), rows

    def _whole(self, answer: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Raise for an answer of which Loki says that something is missing."""
        warnings = answer.get("warnings") or data.get("warnings")
        if isinstance(warnings, list) and warnings:
            raise DependencyFailed(
                f"{self._name}: told only a part: {' '.join(str(warnings[0]).split())[:200]}",
                hint="narrow `query`, or raise Loki's limits",
            )
        summary = data.get("stats", {}).get("summary", {}) if isinstance(data.get("stats"), dict) else {}
        if isinstance(summary, dict) and summary.get("partial"):
            raise DependencyFailed(f"{self._name}: told only a part", hint="look at Loki's queriers")

    def _points(self, row: Mapping[str, Any]) -> list[tuple[float, float]]:
        try:
            found = [(float(at), float(count)) for at, count in row["values"]]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise misshapen(self._name, "points of time and count") from None
        return [(at, count) for at, count in found if math.isfinite(at) and math.isfinite(count)]

    def _entries(self, row: Mapping[str, Any]) -> list[tuple[int, str, str]]:
        try:
            stream = msgspec.json.encode(row.get("stream", {}), order="sorted")
            found = [(int(entry[0]), str(entry[1])) for entry in row["values"]]
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            raise misshapen(self._name, "lines with their times") from None
        mark = hashlib.sha256(stream).hexdigest()[:8]
        return [
            (at, f"{at}/{mark}/{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}", text)
            for at, text in found
        ]

    def _pipeline(self) -> str:
        config = self._config
        if config.errors:
            return config.errors
        if config.levels == "text":
            return f'|~ "(?i)\\\\b({_WORDS})\\\\b"'
        if config.levels in ("json", "logfmt"):
            field = config.level.replace("\\", "\\\\").replace('"', '\\"')
            return f'| {config.levels} forge_level="{field}" | forge_level=~"(?i)({_WORDS})" | __error__=""'
        label = "detected_level" if config.levels == "detected" else config.level
        return f'| {label}=~"(?i)({_WORDS})"'

    def _log(self, version: str, pipeline: str) -> str:
        words = {"version": _quoted(version), "environment": _quoted(self._environment)}
        text = _PLACEHOLDER.sub(lambda found: words[found.group(1) or found.group(2)], self._config.query)
        return f"{text} {pipeline}".strip()

    def _several(self, version_ids: Sequence[str], pipeline: str) -> str:
        names = "|".join(_quoted(re.sub(r"([.+*?()|\[\]{}^$\\])", r"\\\1", name)) for name in version_ids)
        return f'{self._log("", "")} | {self._config.version}=~"{names}" {pipeline}'.strip()


def _quoted(word: str) -> str:
    """Return a word so that it cannot end a text in double quotes."""
    return re.sub(r'([\\"])', r"\\\1", word).replace("\n", "\\n")


def _span(step: float) -> str:
    return f"{round(step * 1000)}ms" if step != round(step) else f"{round(step)}s"


def _nanoseconds(at: float) -> str:
    return str(round(at * 1000) * 1_000_000)


def open_loki(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener."""
    config = msgspec.convert(plan.config, Config)
    client = StoreClient(plan.name, config.http, context.secrets)
    return StoredLogs(plan.name, LokiStore(plan.name, config, client, context.environment.name), config.step)
