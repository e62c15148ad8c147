"""Sources of signals on a cluster, where a version is called as its objects are.

Whatever a cluster counts is labelled with the names of pods, workloads and Services, which hold a version's slug
(`1-4-0-3f2a11`) instead of its id (`1.4.0`). What an application says of itself may name the id. A source is asked for
both, and answers for one version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from forge.adapters.kubernetes.naming import version_slug
from forge.adapters.signals.base import Field, QueryResult, Reading, RequestTrace, Source, TracingSource

T = TypeVar("T")


class NamedSource:
    """A source that is asked for versions by their ids and by their slugs."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def gives(self) -> frozenset[Field]:
        """See Source."""
        return self._source.gives

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Return what it knows of each version, under whichever name it knows it. See Source."""
        return _by_version(version_ids, await self._source.read(_names(version_ids), now))

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Run each query once and tell what came back. See Source."""
        results = await self._source.examine(_names(version_ids), now)
        return [replace(result, values=_values(version_ids, result.values)) for result in results]

    def state(self) -> dict[str, object]:
        """See Source."""
        return self._source.state()

    def restore(self, state: dict[str, object]) -> None:
        """See Source."""
        self._source.restore(state)

    async def close(self) -> None:
        """See Source."""
        await self._source.close()


class NamedTracingSource(NamedSource):
    """One that also knows which requests stand for its counts."""

    def __init__(self, source: Source, tracing: TracingSource) -> None:
        super().__init__(source)
        self._tracing = tracing

    async def traces(self, version: str, start: float, end: float) -> list[RequestTrace]:
        """Return requests of the version under any of its names, newest first. See TracingSource."""
        found: dict[str, RequestTrace] = {}
        for name in _names([version]):
            for trace in await self._tracing.traces(name, start, end):
                found.setdefault(trace.trace, replace(trace, version=version))
        return sorted(found.values(), key=lambda trace: -trace.at)


def named_source(source: Source) -> Source:
    """Return a source that is asked by every name that a cluster has for a version."""
    return NamedTracingSource(source, source) if isinstance(source, TracingSource) else NamedSource(source)


def _names(version_ids: list[str]) -> list[str]:
    return list(dict.fromkeys([*version_ids, *(version_slug(version) for version in version_ids)]))


def _by_version(version_ids: list[str], found: Mapping[str, T]) -> dict[str, T]:
    known = {version: found.get(version, found.get(version_slug(version))) for version in version_ids}
    return {version: value for version, value in known.items() if value is not None}


def _values(version_ids: list[str], found: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the values by version: None where none of its names has one."""
    values: dict[str, float | None] = {}
    for version in version_ids:
        own = found.get(version)
        values[version] = own if own is not None else found.get(version_slug(version))
    return values
