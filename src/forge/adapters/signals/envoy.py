"""What the proxy counted for each version: requests, errors, latency."""

from __future__ import annotations

import math
import re

import msgspec

from forge.adapters.routers.envoy_admin import EnvoyAdmin
from forge.adapters.routers.envoy_config import version_of

FILTER = r"^cluster\.v-.*\.upstream_rq_(\dxx|time)$"
GONE_KEPT = 50
"""So many versions that are gone are remembered, for when they come back."""

_LINE = re.compile(r"(envoy_cluster_upstream_rq_(?:xx|time_bucket))\{([^}]*)\} ([0-9.eE+]+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Counters(msgspec.Struct, frozen=True):
    """Cumulative counts of one version. `latency` maps upper bounds in seconds to cumulative counts."""

    requests: int = 0
    errors: int = 0
    latency: tuple[tuple[float, int], ...] = ()


def parse(text: str) -> dict[str, Counters]:
    """Read Envoy's Prometheus text: counters by version id."""
    requests: dict[str, int] = {}
    errors: dict[str, int] = {}
    latency: dict[str, list[tuple[float, int]]] = {}
    for name, labels_text, value in _LINE.findall(text):
        labels = dict(_LABEL.findall(labels_text))
        version = version_of(labels["envoy_cluster_name"])
        count = int(float(value))
        if name.endswith("_xx"):
            requests[version] = requests.get(version, 0) + count
            if labels["envoy_response_code_class"] == "5":
                errors[version] = errors.get(version, 0) + count
        else:
            bound = math.inf if labels["le"] == "+Inf" else float(labels["le"]) / 1000
            latency.setdefault(version, []).append((bound, count))
    return {
        version: Counters(
            requests.get(version, 0), errors.get(version, 0), tuple(sorted(latency.get(version, ())))
        )
        for version in requests.keys() | latency.keys()
    }  # fmt: skip


class _Series(msgspec.Struct):
    """One version: what is counted for good (`base`), and the proxy's last reading."""

    requests: int = 0
    errors: int = 0
    latency: dict[float, int] = {}
    last: Counters = Counters()


class EnvoyCounters:
    """Reads the proxy's counters so that they never fall: each series is carried over every reset of its own.

    `source` tells which proxy process is asked: another one has counted from nothing.
    """

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}
        self._source = ""

    async def read(self, admin: EnvoyAdmin, source: str, version_ids: list[str]) -> dict[str, Counters]:
        """Return the counters of these versions, zeros for one that has had no request yet."""
        from urllib.parse import quote

        text = await admin.get(f"/stats/prometheus?filter={quote(FILTER)}")
        return self.take(parse(text), source, version_ids)

    def take(self, readings: dict[str, Counters], source: str, version_ids: list[str]) -> dict[str, Counters]:
        """Add one reading of all versions; return what is counted of the ones asked for."""
        restarted = source != self._source
        self._source = source
        for version in {*readings, *version_ids}:
            series = self._series.setdefault(version, _Series())
            reading = readings.get(version, Counters())
            before = Counters() if restarted else series.last
            series.requests += _grown(before.requests, reading.requests)
            series.errors += _grown(before.errors, reading.errors)
            _add_latency(series.latency, before.latency, reading.latency)
            series.last = reading
        self._forget({*readings, *version_ids})
        return {version: self._total(self._series[version]) for version in version_ids}

    def _forget(self, current: set[str]) -> None:
        """Keep the sums of only so many versions that are gone."""
        gone = [version for version in self._series if version not in current]
        for version in gone[: max(0, len(gone) - GONE_KEPT)]:
            del self._series[version]

    @staticmethod
    def _total(series: _Series) -> Counters:
        return Counters(series.requests, series.errors, tuple(sorted(series.latency.items())))

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`."""
        series = {
            version: {
                "requests": one.requests,
                "errors": one.errors,
                "latency": _pairs(tuple(sorted(one.latency.items()))),
                "last": [one.last.requests, one.last.errors, _pairs(one.last.latency)],
            }
            for version, one in self._series.items()
        }
        return {"source": self._source, "series": series}

    def restore(self, state: dict[str, object]) -> None:
        """Go on from `state`."""
        saved = msgspec.convert(state, _Saved)
        self._source = saved.source
        self._series = {
            version: _Series(
                one.requests, one.errors, dict(_unpairs(one.latency)),
                Counters(one.last[0], one.last[1], _unpairs(one.last[2])),
            )
            for version, one in saved.series.items()
        }  # fmt: skip


class _SavedSeries(msgspec.Struct):
    requests: int
    errors: int
    latency: list[tuple[float | None, int]]
    last: tuple[int, int, list[tuple[float | None, int]]]


class _Saved(msgspec.Struct):
    source: str = ""
    series: dict[str, _SavedSeries] = {}


def _grown(before: int, now: int) -> int:
    """Return how much a counter grew; one that fell was reset and has counted from nothing since."""
    return now - before if now >= before else now


def _add_latency(
    total: dict[float, int], before: tuple[tuple[float, int], ...], now: tuple[tuple[float, int], ...]
) -> None:
    """Add a histogram's growth. The whole of it is reset at once, so one bucket that fell tells of all."""
    old = dict(before)
    if any(count < old.get(bound, 0) for bound, count in now):
        old = {}
    for bound, count in now:
        total[bound] = total.get(bound, 0) + count - old.get(bound, 0)


def _pairs(latency: tuple[tuple[float, int], ...]) -> list[list[float | int | None]]:
    # JSON has no infinity.
    return [[None if math.isinf(bound) else bound, count] for bound, count in latency]


def _unpairs(pairs: list[tuple[float | None, int]]) -> tuple[tuple[float, int], ...]:
    return tuple((math.inf if bound is None else bound, count) for bound, count in pairs)
