"""A judge's settings in words, for `forge plan`: by what a release will be judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from forge.core.judge.canary_analysis import OWN, AnalysisSettings
from forge.core.judge.failure_limit import FailureLimit
from forge.core.judge.scoring import Metric
from forge.core.judge.settings import SequentialSettings
from forge.model.units import format_duration

CHECKS_UNUSED = frozenset({"mann_whitney", "none"})
"""Judges to which the strategy's `checks:` say nothing."""


def judge_words(name: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one line for each thing to know; none for `threshold` and for `sequential` as it comes."""
    if name == "failure_limit":
        return _failure_limit(msgspec.convert(config, FailureLimit))
    if name == "mann_whitney":
        return _mann_whitney(msgspec.convert(config, AnalysisSettings))
    if name == "none":
        return ("nobody judges it",)
    if name == "sequential" and config:
        return _sequential(msgspec.convert(config, SequentialSettings), config)
    return ()


def _sequential(settings: SequentialSettings, config: Mapping[str, Any]) -> tuple[str, ...]:
    words = (
        f"judged by evidence: back if surely worse than {settings.ratio:g} times stable, wrongly in at most "
        f"{settings.alpha * 100:g}% of good releases"
    )
    rows = [words]
    if settings.prove is not None:
        rows.append(f"goes on when {settings.prove * 100:g}% more errors than stable are excluded")
    others = [f"{key} {_shown(value)}" for key, value in config.items() if key not in {"alpha", "ratio", "prove"}]
    return (*rows, f"judge: {', '.join(others)}") if others else tuple(rows)


def _failure_limit(settings: FailureLimit) -> tuple[str, ...]:
    looks = f"judged every {_brief(settings.interval)}"
    if settings.initial_delay is not None:
        looks += f", first after {_brief(settings.initial_delay)}" if settings.initial_delay else ", first at once"
    if settings.count is not None:
        looks += f", {_times(settings.count, 'look')}, then it goes on"
    forgiven = [
        f"{_forgiven(settings.failure_limit)} that {_verb(settings.failure_limit)} a check exceeded",
        f"{_forgiven(settings.consecutive_error_limit)} in a row without data",
        f"{_forgiven(settings.inconclusive_limit)} at too few requests",
    ]
    return (looks, f"forgives {forgiven[0]}, {forgiven[1]}, {forgiven[2]}")


def _mann_whitney(settings: AnalysisSettings) -> tuple[str, ...]:
    end = "a person decides" if settings.at_marginal == "pause" else "back"
    scores = (
        f"scored every {_brief(settings.interval)} for {_brief(settings.lifetime)}: back below {settings.marginal:g}, "
        f"on from {settings.passing:g}, between them at the end {end}"
    )
    groups: dict[str, list[str]] = {}
    for metric in settings.metrics:
        for group in metric.groups:
            groups.setdefault(group, []).append(_metric(metric))
    parts = []
    for group, metrics in groups.items():
        weight = settings.weights.get(group)
        parts.append(f"{group}{f' {weight:g}%' if weight is not None else ''} ({', '.join(metrics)})")
    return (scores, f"the score is of {', '.join(parts)}")


def _metric(metric: Metric) -> str:
    words = {"increase": "not more", "decrease": "not less", "either": "not other"}[metric.direction]
    marks = [mark for mark in ("critical", "must_have_data", "muted") if getattr(metric, mark)]
    told = "".join(f", {mark.replace('_', ' ')}" for mark in marks)
    return f"{metric.name.removeprefix(OWN)} {words}{told}"


def _forgiven(limit: int) -> str:
    return "all looks" if limit < 0 else ("no look" if limit == 0 else _times(limit, "look"))


def _verb(limit: int) -> str:
    return "find" if limit < 0 or limit > 1 else "finds"


def _times(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_shown(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _brief(seconds: float) -> str:
    return format_duration(seconds).removesuffix(" 0s").removesuffix(" 0m")
