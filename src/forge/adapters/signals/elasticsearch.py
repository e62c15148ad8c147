"""`elasticsearch`: error lines in Elasticsearch (7 to 9) or OpenSearch, counted by version and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from forge.adapters.signals.base import Source
from forge.adapters.signals.http import HttpConfig, StoreClient
from forge.adapters.signals.registry import SourceContext
from forge.adapters.signals.stored_logs import MOST_LINES, StoredLine, StoredLogs, VersionCounts, misshapen
from forge.model.errors import DependencyFailed
from forge.model.plan import SourcePlan

_LEVELS = ("error", "err", "fatal", "critical", "crit", "panic", "emergency", "emerg", "alert", "severe")
LEVELS = [spelling for word in _LEVELS for spelling in (word, word.upper(), word.capitalize())]
"""Values of the level field that are errors: keywords are compared by their letters."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`query` narrows the documents, `errors` tells which are errors (else the level does): both query DSL."""

    http: HttpConfig
    index: str = "logs-*"
    version: str = "service.version"
    time: str = "@timestamp"
    level: str = "log.level"
    message: tuple[str, ...] = ("message", "error.type", "error.message")
    query: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    step: float = 10.0


class ElasticsearchStore:
    """Asks `_search`. See LogStore."""

    def __init__(self, name: str, config: Config, client: StoreClient, environment: str) -> None:
        self._name = name
        self._config = config
        self._client = client
        self._query = filled(config.query, environment)
        self._errors = filled(config.errors, environment) or {"terms": {config.level: LEVELS}}

    def query(self) -> str:
        """Return the filters. See LogStore."""
        parts = [one for one in (self._query, self._errors) if one]
        return f"{self._config.index}: {msgspec.json.encode(parts).decode()}"

    async def counts(self, version_ids: Sequence[str], start: float, end: float) -> dict[str, VersionCounts]:
        """Count in the store: one request for all versions. See LogStore."""
        config = self._config
        times = {"date_histogram": {"field": config.time, "fixed_interval": f"{config.step:.0f}s", "min_doc_count": 1}}
        inside = {
            "newest": {"max": {"field": config.time}},
            "errors": {"filter": self._errors, "aggs": {"times": times}},
        }
        buckets = await self._search(version_ids, start, end, [], inside)
        found = {}
        for version, bucket in buckets.items():
            rows = _dig(bucket, "errors", "times", "buckets")
            newest = _dig(bucket, "newest", "value")
            if not isinstance(rows, list):
                raise misshapen(self._name, "counts by time")
            found[version] = VersionCounts(
                {_number(self._name, row, "key") / 1000: _number(self._name, row, "doc_count") for row in rows},
                newest / 1000 if isinstance(newest, (int, float)) else None,
            )
        return found

    async def lines(self, version_ids: Sequence[str], start: float, end: float) -> dict[str, list[StoredLine]]:
        """Fetch the newest lines of each version. See LogStore."""
        config = self._config
        newest = {
            "top_hits": {
                "size": MOST_LINES,
                "sort": [{config.time: {"order": "desc"}}],
                "_source": {"includes": list(config.message)},
            }
        }
        buckets = await self._search(version_ids, start, end, [self._errors], {"newest": newest})
        found = {}
        for version, bucket in buckets.items():
            hits = _dig(bucket, "newest", "hits", "hits")
            if not isinstance(hits, list):
                raise misshapen(self._name, "lines")
            found[version] = [self._line(hit) for hit in hits if isinstance(hit, dict)]
        return found

    async def close(self) -> None:
        """Let go of connections. See LogStore."""
        await self._client.close()

    def _line(self, hit: Mapping[str, Any]) -> StoredLine:
        parts: list[str] = []
        for field in self._config.message:
            value = _field(hit.get("_source"), field)
            if isinstance(value, str) and value and not any(value in part for part in parts):
                parts.append(value)
        return StoredLine(f"{hit.get('_index')}/{hit.get('_id')}", " | ".join(parts))

    async def _search(
        self, version_ids: Sequence[str], start: float, end: float, filters: list[Any], inside: Mapping[str, Any]
    ) -> dict[str, Mapping[str, Any]]:
        config = self._config
        span = {"gte": round(start * 1000), "lt": round(end * 1000), "format": "epoch_millis"}
        narrowed = [{"range": {config.time: span}}, {"terms": {config.version: list(version_ids)}}]
        body = {
            "size": 0,
            "track_total_hits": False,
            "timeout": f"{max(1, round(config.http.timeout * 1000) - 200)}ms",
            "query": {"bool": {"filter": [*narrowed, *([self._query] if self._query else []), *filters]}},
            "aggs": {"versions": {"terms": {"field": config.version, "size": len(version_ids)}, "aggs": dict(inside)}},
        }
        path = f"/{quote(config.index, safe='*,-_.+')}/_search"
        answer = await self._client.json("POST", path, params={"allow_partial_search_results": "false"}, body=body)
        self._check(answer)
        buckets = _dig(answer, "aggregations", "versions", "buckets")
        if not isinstance(buckets, list) or not all(isinstance(one, dict) and "key" in one for one in buckets):
            raise misshapen(self._name, "aggregations")
        return {str(bucket["key"]): bucket for bucket in buckets}

    def _check(self, answer: Any) -> None:
        """Raise for an answer that is not of all shards: a part of the counts would look like fewer errors."""
        shards = _dig(answer, "_shards")
        if not isinstance(shards, dict):
            raise misshapen(self._name, "`_shards`")
        if shards.get("failed"):
            failures = shards.get("failures")
            reason = _dig(failures[0], "reason", "reason") if isinstance(failures, list) and failures else None
            told = f": {str(reason)[:200]}" if reason else ""
            raise DependencyFailed(
                f"{self._name}: {shards['failed']} of {shards.get('total')} shards failed{told}",
                hint="what a part of the shards counted is not known to be all",
            )
        if answer.get("timed_out") or answer.get("terminated_early"):
            raise DependencyFailed(
                f"{self._name}: did not finish counting in time",
                hint="narrow `index` or `query`, or ask for longer steps",
            )
        if shards.get("total") == 0:
            raise DependencyFailed(
                f"{self._name}: no index is called `{self._config.index}`",
                hint="look at `index`, and at what may be read",
            )


def filled(query: Any, environment: str) -> Any:
    """Return query DSL with the environment's name for `$environment` in its texts."""
    if isinstance(query, dict):
        return {key: filled(value, environment) for key, value in query.items()}
    if isinstance(query, (list, tuple)):
        return [filled(value, environment) for value in query]
    if isinstance(query, str):
        return query.replace("${environment}", environment).replace("$environment", environment)
    return query


def _dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _field(source: Any, name: str) -> Any:
    """Return a field that is written with dots, as objects inside each other, or both."""
    if not isinstance(source, dict):
        return None
    if name in source:
        return source[name]
    first, _, rest = name.partition(".")
    return _field(source.get(first), rest) if rest else None


def _number(name: str, row: Any, key: str) -> float:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise misshapen(name, f"a number in `{key}`")
    return float(value)


def open_elasticsearch(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source. See SourceOpener."""
    config = msgspec.convert(plan.config, Config)
    client = StoreClient(plan.name, config.http, context.secrets)
    return StoredLogs(
        plan.name, ElasticsearchStore(plan.name, config, client, context.environment.name), config.step
    )  # fmt: skip
