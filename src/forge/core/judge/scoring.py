"""Automated canary analysis in Kayenta's words: each metric is Pass, High, Low or Nodata; groups have a score;
the summary is a Pass, Marginal or Fail. The judge over it looks at fixed intervals, as a canary stage does.

It makes no correction for looking more than once. Deviations, because missing data is no evidence: Nodata is never
a pass (there, a group without data does not lower the score and a metric without data may pass), a group's score
is of the metrics that have data, and too little data gives Nodata, not a score of 0; too few values for the
interval's level are Nodata too (there, the widest interval is taken).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from forge.core.judge.mann_whitney import MannWhitneyTest, mann_whitney

Direction = Literal["increase", "decrease", "either"]
Classification = Literal["Pass", "High", "Low", "Nodata"]
Summary = Literal["Pass", "Marginal", "Fail", "Nodata"]
LEVEL, TOLERANCE = 0.98, 0.25
"""The interval's confidence, and the part of the Hodges-Lehmann estimate that it must clear."""


class EffectSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How large a significant change must be to count: as a ratio of means (`mean_ratio`), or as the chance that
    a value of the arm is above one of stable (`cles`, 0.5: the same). `allowed_increase` 1.2: up to 20 % more.

    None for both bounds: every significant change counts.
    """

    measure: Literal["mean_ratio", "cles"] = "mean_ratio"
    allowed_increase: float | None = None
    allowed_decrease: float | None = None


class Metric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One metric and how it is classified. `nan`: what a missing value becomes; `outliers`: whether values beyond
    three interquartile ranges are dropped; `muted`: classified and shown, but no part of the score."""

    name: str
    groups: tuple[str, ...] = ("metrics",)
    direction: Direction = "increase"
    critical: bool = False
    must_have_data: bool = False
    muted: bool = False
    effect: EffectSize = EffectSize()
    nan: Literal["remove", "zero"] = "remove"
    outliers: Literal["keep", "remove"] = "keep"


class Result(msgspec.Struct, frozen=True):
    """What was found for one metric, with the test behind it."""

    metric: str
    classification: Classification
    why: str
    ratio: float | None = None
    test: MannWhitneyTest | None = None


class Score(msgspec.Struct, frozen=True):
    """0 to 100 for each group with data and for all together (None: Nodata)."""

    summary: Summary
    score: float | None
    groups: dict[str, float]
    results: tuple[Result, ...]
    why: str


def classify(
    metric: Metric, experiment: Sequence[float | None], control: Sequence[float | None], *,
    level: float = LEVEL, tolerance: float = TOLERANCE,
) -> Result:  # fmt: skip
    """Classify one metric by its values in both versions; None and NaN are missing values."""
    own, other = _cleaned(metric, experiment), _cleaned(metric, control)
    if not own or not other:
        who = "either version" if not own and not other else ("stable" if own else "the arm")
        return Result(metric.name, "Nodata", f"no values of {who}")
    test = mann_whitney(own, other, level)
    mean, base = math.fsum(own) / len(own), math.fsum(other) / len(other)
    ratio = mean / base if base else (math.inf if mean > 0 else 1.0)
    if test.interval is None:
        why = f"{len(own)} and {len(other)} values are too few for {level * 100:g} % confidence"
        return Result(metric.name, "Nodata", why, _finite(ratio), test)
    low, high = test.interval
    bound = tolerance * abs(test.estimate)
    size = ratio if metric.effect.measure == "mean_ratio" else test.superiority
    most, least = metric.effect.allowed_increase, metric.effect.allowed_decrease
    words = f"shift {test.estimate:.4g} [{low:.4g}, {high:.4g}], means {mean:.4g} and {base:.4g}"
    if metric.direction != "decrease" and low > bound and (most is None or size >= most):
        return Result(metric.name, "High", words, _finite(ratio), test)
    if metric.direction != "increase" and high < -bound and (least is None or size <= least):
        return Result(metric.name, "Low", words, _finite(ratio), test)
    return Result(metric.name, "Pass", words, _finite(ratio), test)


def score(
    metrics: Sequence[Metric], results: Sequence[Result], weights: Mapping[str, float], *,
    marginal: float = 75.0, passing: float = 95.0,
) -> Score:  # fmt: skip
    """Score groups and all together; `weights` in percent, groups without one share what is left of 100.

    A critical metric that is High or Low fails all. Raises ValueError for weights above 100 or of unknown groups.
    """
    known = {group for metric in metrics for group in metric.groups}
    if unknown := weights.keys() - known:
        raise ValueError(f"no metric is in group {', '.join(sorted(unknown))}")
    if math.fsum(weights.values()) > 100 + 1e-9:
        raise ValueError(f"the groups' weights sum to {math.fsum(weights.values()):g}, which is above 100")
    counted = [(metric, result) for metric, result in zip(metrics, results, strict=True) if not metric.muted]
    groups = _group_scores(counted)
    total = _weighted(groups, weights, known)
    failed = [metric.name for metric, result in counted if metric.critical and result.classification in {"High", "Low"}]
    if failed:
        return Score("Fail", 0.0, groups, tuple(results), f"critical: {', '.join(failed)}")
    missing = [metric.name for metric, result in counted if result.classification == "Nodata"]
    vital = [metric.name for metric, result in counted if metric.name in missing and (metric.must_have_data or metric.critical)]  # fmt: skip
    if total is not None and total < marginal:
        return Score("Fail", total, groups, tuple(results), f"score {total:.0f} is below {marginal:g}")
    if total is None or vital or 2 * len(missing) >= max(1, len(counted)):
        return Score("Nodata", total, groups, tuple(results), f"no data: {', '.join(vital or missing) or 'no metric'}")
    summary: Summary = "Pass" if total >= passing else "Marginal"
    return Score(summary, total, groups, tuple(results), f"score {total:.0f}")


def _group_scores(counted: Sequence[tuple[Metric, Result]]) -> dict[str, float]:
    by_group: dict[str, list[bool]] = {}
    for metric, result in counted:
        if result.classification != "Nodata":
            for group in metric.groups:
                by_group.setdefault(group, []).append(result.classification == "Pass")
    return {group: 100.0 * sum(passes) / len(passes) for group, passes in sorted(by_group.items())}


def _weighted(groups: Mapping[str, float], weights: Mapping[str, float], known: set[str]) -> float | None:
    """Return the score over the groups that have data, relative to their weights."""
    rest = max(0.0, 100 - math.fsum(weights.values())) / max(1, len(known - weights.keys()))
    whole = math.fsum(weights.get(group, rest) for group in groups)
    if whole <= 0:
        return None
    return math.fsum(points * weights.get(group, rest) for group, points in groups.items()) / whole


def _cleaned(metric: Metric, values: Sequence[float | None]) -> list[float]:
    kept: list[float] = []
    for value in values:
        if value is not None and math.isfinite(value):
            kept.append(float(value))
        elif metric.nan == "zero":
            kept.append(0.0)
    return _without_outliers(kept) if metric.outliers == "remove" else kept


def _without_outliers(values: list[float], factor: float = 3.0) -> list[float]:
    if len(values) < 4:
        return values
    ordered = sorted(values)
    low, high = _quantile(ordered, 0.25), _quantile(ordered, 0.75)
    reach = factor * (high - low)
    return [value for value in values if low - reach <= value <= high + reach]


def _quantile(ordered: Sequence[float], q: float) -> float:
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _finite(ratio: float) -> float | None:
    return ratio if math.isfinite(ratio) else None
