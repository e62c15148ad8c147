"""`envoy`: what the target's own proxy and processes tell, as one source beside others."""

from __future__ import annotations

from collections.abc import Mapping

from forge.adapters.signals.base import Field, QueryResult, Reading, Signals
from forge.model.errors import ForgeError

OWN = "the proxy's own counters"
GIVES: frozenset[Field] = frozenset({"requests", "latency", "groups", "cpu", "memory", "gauges", "values"})


class OwnSignals:
    """Makes a source of the signals that a target brings along."""

    def __init__(self, signals: Signals, gives: frozenset[Field] = GIVES) -> None:
        self._signals = signals
        self._gives = gives

    @property
    def gives(self) -> frozenset[Field]:
        """What the target tells. See Source."""
        return self._gives

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Return what the target knows of these versions. See Source."""
        del now  # the target's own clock tells when its samples are from
        samples = await self._signals.read(version_ids)
        return {
            version: Reading(
                at=sample.at,
                requests=sample.requests,
                errors=sample.errors,
                latency=sample.latency,
                groups=sample.groups,
                cpu_seconds=sample.cpu_seconds,
                memory=sample.memory,
                gauges=sample.gauges,
                values=sample.values,
            )
            for version, sample in samples.items()
        }

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Tell the newest counts. See Source."""
        try:
            readings = await self.read(version_ids, now)
        except ForgeError as error:
            return [QueryResult("requests", OWN, problem=error.message)]
        return [
            _told("requests", {version: readings[version].requests for version in version_ids if version in readings}),
            _told("errors", {version: readings[version].errors for version in version_ids if version in readings}),
            *_told_gauges(readings),
        ]

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`. See Source."""
        return self._signals.state()

    def restore(self, state: dict[str, object]) -> None:
        """Go on from `state`. See Source."""
        self._signals.restore(state)

    async def close(self) -> None:
        """Nothing is held open. See Source."""


def _told(name: str, counts: Mapping[str, int | None]) -> QueryResult:
    return QueryResult(name, OWN, dict(counts))


def _told_gauges(readings: Mapping[str, Reading]) -> list[QueryResult]:
    found: dict[str, dict[str, float | None]] = {}
    for version, reading in readings.items():
        for gauge in reading.gauges:
            found.setdefault(gauge.name, dict.fromkeys(readings))[version] = gauge.value
    return [QueryResult(name, OWN, values) for name, values in found.items()]
