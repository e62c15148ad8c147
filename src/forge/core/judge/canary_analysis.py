"""The judge `mann_whitney`: readings in buckets of a minute since the arm's first traffic, scored at fixed
intervals over all of them, as a canary stage with a growing lookback does (scoring.py has the words).

What is marginal at the last look rolls back, as in such a stage, or (`at_marginal`) pauses for a person.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from forge.core.judge.base import Series
from forge.core.judge.scoring import LEVEL, TOLERANCE, Metric, Score, classify, score
from forge.core.judge.windows import Window, quantile, window
from forge.core.release.state import ReleaseState, Verdict
from forge.model.units import format_duration

METRICS = (
    Metric("error_rate", ("errors",), "increase", must_have_data=True),
    Metric("latency_p99", ("latency",), "increase"),
)
KNOWN = ("error_rate", "latency_p50", "latency_p90", "latency_p95", "latency_p99", "latency_p99.9", "cpu", "memory")
"""What every environment measures: cores for each replica, bytes of the fullest one, seconds of latency."""
OWN = "value:"
"""Before the name of one of the environment's own queries."""
MOST_BUCKETS = 240
LONGEST_STEP = 300.0
"""Readings older than this are not shown to a judge."""


class AnalysisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`step`: seconds of one value; `interval`: seconds between scores; `lifetime`: seconds until the last one.

    `marginal`: the score below which it fails; `passing`: from which on it passes. `weights`: of groups, in percent;
    the groups without one share the rest. `confidence` of each metric's interval, and the part of the estimated
    shift that the interval has to clear (`tolerance`).
    """

    step: float = 60.0
    interval: float = 300.0
    lifetime: float = 900.0
    marginal: float = 75.0
    passing: float = 95.0
    weights: dict[str, float] = {}
    metrics: tuple[Metric, ...] = METRICS
    confidence: float = LEVEL
    tolerance: float = TOLERANCE
    at_marginal: Literal["rollback", "pause"] = "rollback"

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.interval <= self.lifetime:
            raise ValueError("`step` is more than 0, `interval` at least `step`, and `lifetime` at least `interval`")
        if self.step > LONGEST_STEP:
            raise ValueError(f"`step` is at most {format_duration(LONGEST_STEP)}")
        if not 0 <= self.marginal <= self.passing <= 100:
            raise ValueError("`marginal` is at most `passing`, and both are scores from 0 to 100")
        if not 0 < self.confidence < 1 or not 0 <= self.tolerance <= 1:
            raise ValueError("`confidence` is between 0 and 1, `tolerance` from 0 to 1")
        needed, most = values_needed(self.confidence), values_at_most(self.step, self.lifetime)
        if needed > most:
            raise ValueError(
                f"`confidence` {self.confidence * 100:g} % takes {needed} values of each version, `lifetime` has {most}"
            )
        names = [metric.name for metric in self.metrics]
        if not names or len(names) != len(set(names)):
            raise ValueError("`metrics` has each metric once, and at least one")
        if unknown := {name for name in names if not is_metric(name)}:
            raise ValueError(f"there is no metric {', '.join(sorted(unknown))}")
        groups = {group for metric in self.metrics for group in metric.groups}
        if self.weights.keys() - groups or math.fsum(self.weights.values()) > 100 + 1e-9:
            raise ValueError(f"`weights` are of {', '.join(sorted(groups))} and sum to at most 100")


def values_at_most(step: float, lifetime: float) -> int:
    """Return how many values a version can have at the last look."""
    return min(MOST_BUCKETS, int(lifetime / step + 1e-9))


def values_needed(confidence: float) -> int:
    """Return how many values each version needs before an interval of that confidence exists."""
    count = 1
    # Of all ways in which the ranks of both fall, one has all values of one above all of the other.
    while 2 / math.comb(2 * count, count) > 1 - confidence + 1e-12:
        count += 1
    return count


def is_metric(name: str) -> bool:
    """Whether it can be measured: one of KNOWN, another quantile (`latency_p99.5`), or `value:` and a query's name."""
    if name.startswith(OWN):
        return len(name) > len(OWN)
    return name in KNOWN or _quantile_of(name) is not None


def _quantile_of(name: str) -> float | None:
    match = re.fullmatch(r"latency_p(\d{1,2}(?:\.\d{1,3})?)", name)
    return float(match[1]) / 100 if match and float(match[1]) > 0 else None


class Lookback(msgspec.Struct, frozen=True):
    """The judge's state, plain JSON: the values of each metric in both versions, and what the last score said."""

    arm: dict[str, tuple[float | None, ...]] = {}
    stable: dict[str, tuple[float | None, ...]] = {}
    bucket: float | None = None
    """When the open bucket began."""
    scored_at: float | None = None
    kind: str = ""
    why: str = ""
    data: dict[str, Any] = {}
    final: bool = False


class MannWhitneyJudge:
    """Rolls back below the marginal score, and at the last look below the passing score."""

    def __init__(self, settings: AnalysisSettings = AnalysisSettings()) -> None:  # noqa: B008  # it is frozen
        self.settings = settings

    def needs_data(self, release: ReleaseState) -> bool:
        """Always: it compares what was measured."""
        del release
        return True

    def judge(
        self, state: dict[str, Any], release: ReleaseState, arm: Series, stable: Series, now: float
    ) -> tuple[Verdict, dict[str, Any]]:
        """Close the bucket and score when it is time to; between scores the last one stands."""
        del release
        lookback = msgspec.convert(state, Lookback) if state else Lookback(bucket=arm.since)
        lookback = collect(lookback, arm, stable, now, self.settings)
        lookback = assess(lookback, arm, now, self.settings)
        # As JSON gives it back: the state is then the same before and after it was stored.
        memory = msgspec.json.decode(msgspec.json.encode(lookback))
        if lookback.kind in {"rollback", "promote", "inconclusive", "hold"}:
            return Verdict(lookback.kind, lookback.why, lookback.data), memory  # type: ignore[arg-type]
        left = format_duration(max(0.0, arm.since + self.settings.interval - now))
        return Verdict("hold", f"{arm.version}: the first score is due in {left}"), memory


def collect(lookback: Lookback, arm: Series, stable: Series, now: float, settings: AnalysisSettings) -> Lookback:
    """Close the open bucket when it is full."""
    began = arm.since if lookback.bucket is None else lookback.bucket
    # A millisecond of tolerance: ticks a minute apart are never exactly a minute apart.
    if now < began + settings.step - 0.001 or lookback.final:
        return lookback
    names = [metric.name for metric in settings.metrics]
    own, other = _values(arm, began, names), _values(stable, began, names)
    return msgspec.structs.replace(
        lookback,
        bucket=now,
        arm={name: (*lookback.arm.get(name, ()), own.get(name))[-MOST_BUCKETS:] for name in names},
        stable={name: (*lookback.stable.get(name, ()), other.get(name))[-MOST_BUCKETS:] for name in names},
    )


def assess(lookback: Lookback, arm: Series, now: float, settings: AnalysisSettings) -> Lookback:
    """Score when the next interval is over."""
    since = arm.since if lookback.scored_at is None else lookback.scored_at
    if now < since + settings.interval - 0.001 or lookback.final:
        return lookback
    found = analyse(lookback.arm, lookback.stable, settings)
    last = now >= arm.since + settings.lifetime - 0.001
    kind = _kind(found, settings, last=last)
    details = "; ".join(f"{result.metric} {result.classification} ({result.why})" for result in found.results)
    data = {"score": found.score, "summary": found.summary, "groups": found.groups}
    why = f"{arm.version}: {found.summary}, {found.why}: {details}"
    return msgspec.structs.replace(
        lookback, scored_at=now, kind=kind, why=why, data=data, final=last or kind == "rollback"
    )


def analyse(
    arm: dict[str, tuple[float | None, ...]], stable: dict[str, tuple[float | None, ...]], settings: AnalysisSettings
) -> Score:
    """Score values by metric. A metric that neither version ever reported is left out, unless it must have data."""
    metrics = [
        metric
        for metric in settings.metrics
        if metric.must_have_data
        or any(v is not None for v in (*arm.get(metric.name, ()), *stable.get(metric.name, ())))
    ]
    level, tolerance = settings.confidence, settings.tolerance
    results = [
        classify(metric, arm.get(metric.name, ()), stable.get(metric.name, ()), level=level, tolerance=tolerance)
        for metric in metrics
    ]
    groups = {group for metric in metrics for group in metric.groups}
    weights = {group: weight for group, weight in settings.weights.items() if group in groups}
    return score(metrics, results, weights, marginal=settings.marginal, passing=settings.passing)


def _kind(found: Score, settings: AnalysisSettings, *, last: bool) -> str:
    if found.summary == "Fail":
        return "rollback"
    if found.summary == "Nodata":
        return "inconclusive" if last else "hold"
    if found.summary == "Pass":
        return "promote"
    if not last:
        return "hold"
    return "inconclusive" if settings.at_marginal == "pause" else "rollback"


def _values(series: Series, began: float, names: Sequence[str]) -> dict[str, float | None]:
    """Return one value a metric of the readings since `began`; None for what was not measured."""
    seen = window(series.samples, began)
    if seen is None:
        return {}
    return {name: _value(name, seen, series.replicas) for name in names}


def _value(name: str, seen: Window, replicas: int) -> float | None:
    if name.startswith(OWN):
        return next((mean for own, mean, _ in seen.values if own == name.removeprefix(OWN)), None)
    if name == "cpu":
        return seen.cores / replicas if seen.cores is not None and replicas > 0 else None
    if name == "memory":
        return float(seen.memory) if seen.memory is not None else None
    if not seen.requests:
        return None
    if name == "error_rate":
        return seen.error_rate
    slow = quantile(seen.latency, _quantile_of(name) or 0.99)
    return slow[0] if slow else None
