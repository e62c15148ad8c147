"""Differences of cumulative counters over a window, and quantiles of the histograms that they make."""

from __future__ import annotations

import math

import msgspec

from forge.model.traffic import Gauge, Sample

UNBOUNDED = 1e300
"""A bucket's upper bound from here on stands for infinity (JSON has no infinity)."""
LARGEST = 1.7e308
"""How an infinite bound is written in a state."""


class Window(msgspec.Struct, frozen=True):
    """What one version did between two readings. `latency` holds counts at or below each bound, in the window."""

    seconds: float
    requests: int
    errors: int
    latency: tuple[tuple[float, int], ...] = ()
    cores: float | None = None
    """Mean number of cores that all replicas together kept busy."""
    memory: int | None = None
    values: tuple[tuple[str, float, int], ...] = ()
    """(name, mean, readings) of each of the user's own queries."""

    @property
    def error_rate(self) -> float:
        """The fraction of requests that failed; 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0


def storable(sample: Sample) -> Sample:
    """Return the sample as JSON can keep it: infinite bucket bounds are written as the largest number, and what is
    not a number is no reading at all."""
    latency = tuple((min(bound, LARGEST), count) for bound, count in sample.latency)
    whole = sample.cpu_seconds is None or math.isfinite(sample.cpu_seconds)
    if latency == sample.latency and whole and not sample.gauges and not sample.values:
        return sample
    return msgspec.structs.replace(
        sample,
        latency=latency,
        cpu_seconds=sample.cpu_seconds if whole else None,
        gauges=tuple(gauge for gauge in sample.gauges if _is_finite(gauge)),
        values=tuple(each for each in sample.values if math.isfinite(each[1])),
    )


def _is_finite(gauge: Gauge) -> bool:
    return math.isfinite(gauge.value) and (gauge.limit is None or math.isfinite(gauge.limit))


def window(samples: tuple[Sample, ...], start: float) -> Window | None:
    """Return the difference between the newest sample and the one at `start`; None without two readings.

    The beginning is the newest sample at or before `start`, or the oldest there is (a young window).
    """
    if len(samples) < 2:
        return None
    first = 0
    for index, sample in enumerate(samples[:-1]):
        if sample.at <= start:
            first = index
    before, after = samples[first], samples[-1]
    if after.at <= before.at:
        return None
    memories = [sample.memory for sample in samples[first:] if sample.memory is not None]
    return Window(
        seconds=after.at - before.at,
        requests=max(0, after.requests - before.requests),
        errors=max(0, after.errors - before.errors),
        latency=_buckets(before, after),
        cores=_cores(samples[first:]),
        memory=max(memories, default=None),
        values=_means(samples[first + 1 :]),
    )


def quantile(buckets: tuple[tuple[float, int], ...], q: float) -> tuple[float, bool] | None:
    """Return the `q` quantile in seconds, interpolated in its bucket; None for an empty histogram.

    The second value is True when it lies above the last finite bound, which is then what is returned.
    """
    total = buckets[-1][1] if buckets else 0
    if total <= 0:
        return None
    rank = q * total
    lower, below = 0.0, 0
    for bound, count in buckets:
        if count >= rank and count > below:
            if bound >= UNBOUNDED:
                return lower, True
            return lower + (bound - lower) * max(0.0, rank - below) / (count - below), False
        lower, below = (bound if bound < UNBOUNDED else lower), max(count, below)
    return lower, True


def _buckets(before: Sample, after: Sample) -> tuple[tuple[float, int], ...]:
    old = dict(before.latency)
    counts = [(bound, max(0, count - old.get(bound, 0))) for bound, count in after.latency]
    rising: list[tuple[float, int]] = []
    for bound, count in counts:
        rising.append((bound, max(count, rising[-1][1] if rising else 0)))
    return tuple(rising)


def _means(samples: tuple[Sample, ...]) -> tuple[tuple[str, float, int], ...]:
    found: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.values:
            found.setdefault(name, []).append(value)
    return tuple((name, sum(values) / len(values), len(values)) for name, values in sorted(found.items()))


def _cores(samples: tuple[Sample, ...]) -> float | None:
    """Not every reading has CPU time: the first and the last that have it count."""
    measured = [(sample.at, sample.cpu_seconds) for sample in samples if sample.cpu_seconds is not None]
    if len(measured) < 2 or measured[-1][0] <= measured[0][0]:
        return None
    return max(0.0, measured[-1][1] - measured[0][1]) / (measured[-1][0] - measured[0][0])
