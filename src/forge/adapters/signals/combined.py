"""Several sources as one: each thing is taken from the first source that is there for it, and from no other.

A source that fails is not replaced by another one that knows the same: two stores never count alike, and a jump
from one to the other would look like a fault of the version.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from msgspec.structs import replace

from forge.adapters.signals.base import Field, QueryResult, Reading, Source
from forge.model.errors import DependencyFailed, ForgeError
from forge.model.traffic import Sample

PATIENCE = 4.5
"""Seconds that one source may take for one reading: less than the engine waits for all."""
GOOD_FOR = 15.0
"""Seconds for which a reading tells of now when it does not say itself."""
_FIELDS: dict[Field, tuple[str, ...]] = {
    "requests": ("requests", "errors"),
    "latency": ("latency",),
    "groups": ("groups",),
    "cpu": ("cpu_seconds",),
    "memory": ("memory",),
    "logs": ("log_errors",),
    "templates": ("templates",),
}
"""What belongs to one source alone; `gauges` and `values` of all sources stand side by side."""


class CombinedSignals:
    """The signals of an environment, read from its sources in the order in which the file names them."""

    def __init__(
        self, sources: Sequence[tuple[str, Source]], *, clock: Callable[[], float] = time.time
    ) -> None:  # fmt: skip
        self.sources = tuple(sources)
        self._clock = clock
        self._owner = {
            field: next((name for name, source in self.sources if field in source.gives), "") for field in _FIELDS
        }

    async def read(self, version_ids: list[str]) -> dict[str, Sample]:
        """Return one sample a version; it says what a source that failed would have told. See Signals."""
        now = self._clock()
        found = await asyncio.gather(*(self._ask(source, version_ids, now) for _, source in self.sources))
        readings = {name: answer for (name, _), answer in zip(self.sources, found, strict=True)}
        counting = self._owner["requests"]
        if not counting:
            raise DependencyFailed("none of the sources counts requests", hint="add one that does to `signals`")
        told = readings[counting]
        if isinstance(told, ForgeError):
            raise DependencyFailed(told.message, hint=told.hint)
        return {
            version: self._sample(version, told[version], readings, now)
            for version in version_ids
            if version in told and told[version].requests is not None
        }

    async def examine(self, version_ids: list[str]) -> dict[str, list[QueryResult]]:
        """Run every query of every source once, by the source's name."""
        now = self._clock()
        found = await asyncio.gather(*(self._examine(source, version_ids, now) for _, source in self.sources))
        return {name: results for (name, _), results in zip(self.sources, found, strict=True)}

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Signals."""
        return {name: source.state() for name, source in self.sources}

    def restore(self, state: dict[str, object]) -> None:
        """Go on from `state`. See Signals."""
        for name, source in self.sources:
            saved = state.get(name)
            if isinstance(saved, dict):
                source.restore(cast("dict[str, object]", saved))

    async def close(self) -> None:
        """Let go of every source's connections."""
        await asyncio.gather(*(source.close() for _, source in self.sources))

    async def _ask(self, source: Source, version_ids: list[str], now: float) -> dict[str, Reading] | ForgeError:
        try:
            async with asyncio.timeout(PATIENCE):
                return await source.read(version_ids, now)
        except TimeoutError:
            return DependencyFailed(f"no answer within {PATIENCE:g} s")
        except ForgeError as error:
            return error

    async def _examine(self, source: Source, version_ids: list[str], now: float) -> list[QueryResult]:
        try:
            async with asyncio.timeout(PATIENCE * 4):
                return await source.examine(version_ids, now)
        except TimeoutError:
            return [QueryResult("", "", problem=f"no answer within {PATIENCE * 4:g} s")]
        except ForgeError as error:
            return [QueryResult("", "", problem=error.message)]

    def _sample(
        self, version: str, counts: Reading, readings: Mapping[str, dict[str, Reading] | ForgeError], now: float
    ) -> Sample:
        values: dict[str, Any] = {}
        lacks: list[str] = []
        at = counts.at if counts.at is not None else now
        for name, source in self.sources:
            answer = readings[name]
            if isinstance(answer, ForgeError):
                lacks.append(f"{name}: {answer.message}")
                continue
            reading = answer.get(version)
            if reading is None:
                lacks.append(f"{name}: nothing of {version}")
                continue
            if (age := _too_old(reading, now)) and name != self._owner["requests"]:
                # That of the requests is told by the sample's own time.
                lacks.append(f"{name}: its newest data of {version} is {age:.0f} s old")
                continue
            for field in source.gives:
                if self._owner.get(field) == name:
                    values |= {key: getattr(reading, key) for key in _FIELDS[field]}
            values["gauges"] = (*values.get("gauges", ()), *reading.gauges)
            values["values"] = (*values.get("values", ()), *reading.values)
        sample = Sample(at, counts.requests or 0, counts.errors or 0, lacks=tuple(lacks))
        if counts.good_for is not None:
            sample = replace(sample, good_for=counts.good_for)
        return replace(sample, **{key: value for key, value in values.items() if key not in ("requests", "errors")})


def _too_old(reading: Reading, now: float) -> float:
    """Return the age of what a source told, in seconds, when that is too old to tell of now; else 0."""
    age = now - reading.at if reading.at is not None else 0.0
    return age if age > (reading.good_for if reading.good_for is not None else GOOD_FOR) else 0.0
